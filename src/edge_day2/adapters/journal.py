"""The agent's journal: one file that is replaced as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_day2.adapters.durable_files import replace_file
from edge_day2.adapters.journal_format import decode, encode
from edge_day2.domain.agent import AgentRecord
from edge_day2.errors import NewerFormat, UnreadableState

_DEFAULT: Final = Path("/var/lib/edge_day2/journal.json")


class FileJournal:
    """A journal in a file that both slots can read.

    A record is written beside the file, flushed, and renamed over it; then the folder is flushed. A file that can't be
    read is copied to the name `….unreadable`, one that a newer version wrote is left alone.

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
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            # A copy: should the agent be cut off before it stores a record, it finds the damage once more.
            aside.write_bytes(content)
            raise UnreadableState(f"{error}; kept as {aside}") from error

    def store(self, record: AgentRecord) -> None:
        """See `Journal.store`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, encode(record), mode=0o600)
