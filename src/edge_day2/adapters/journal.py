"""The agent's journal: one file that is replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge_day2.adapters.durable_files import flush_folder, replace_file
from edge_day2.adapters.journal_format import decode, encode
from edge_day2.domain.agent import AgentRecord
from edge_day2.errors import NewerFormat, UnreadableState

_DEFAULT: Final = Path("/var/lib/edge_day2/journal.json")
# A node whose disk damages its journal again and again must not fill it with copies.
_MOST_COPIES: Final = 5


class FileJournal:
    """A journal in a file that both slots can read.

    A record is written beside the file, flushed, and renamed over it; then the folder is flushed. A file that can't be
    read is copied to `….unreadable`, the next one to `….unreadable-2`, up to five; one that a newer version wrote is
    left alone.

    Args:
        path: the file. Its folder is made where it is missing.
    """

    def __init__(self, path: Path | str = _DEFAULT) -> None:
        self._path = Path(path)

    def load(self) -> AgentRecord | None:
        """See `Journal.load`."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return decode(content)
        except NewerFormat:
            raise
        except UnreadableState as error:
            raise UnreadableState(f"{error}; {self._keep_aside(content)}") from error

    def store(self, record: AgentRecord) -> None:
        """See `Journal.store`."""
        self._make_folder(self._path.parent)
        replace_file(self._path, encode(record), mode=0o600)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            flush_folder(folder.parent)

    def _keep_aside(self, content: bytes) -> str:
        """Copy what can't be read, and return what became of it.

        A copy: should the agent be cut off before it stores a record, it finds the damage once more.
        """
        name = f"{self._path.name}.unreadable"
        try:
            for number in range(1, _MOST_COPIES + 1):
                aside = self._path.with_name(name if number == 1 else f"{name}-{number}")
                if not os.path.lexists(aside):
                    replace_file(aside, content, mode=0o600)
                    return f"kept as {aside}"
                if aside.is_file() and aside.read_bytes() == content:
                    return f"kept as {aside}"
        except OSError as error:
            return f"it couldn't be kept: {error}"
        return f"not kept: there are {_MOST_COPIES} copies of others already"
