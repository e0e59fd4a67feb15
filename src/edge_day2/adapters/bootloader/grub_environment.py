"""GRUB's environment block: 1,024 bytes that GRUB reads and, without any file system code, writes in place.

It is changed by grub-editenv on a copy that then replaces it: grub-editenv itself empties the file first, and flushes
nothing.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.adapters.durable_files import replace_file
from edge_day2.errors import shown

_DEFAULT: Final = Path("/boot/grub/grubenv")
_BYTES: Final = 1024


class GrubEnvironment:
    """The variables of one environment block.

    Args:
        path: the block, a file of 1,024 bytes.
        editor: GRUB's tool; some distributions call it grub2-editenv.
        timeout_seconds: how long one call of it may take.
    """

    def __init__(
        self, path: Path | str = _DEFAULT, *, editor: str = "grub-editenv", timeout_seconds: float = 30
    ) -> None:
        self._path = Path(path)
        self._editor = editor
        self._timeout = timeout_seconds

    def read(self) -> dict[str, str]:
        """Return the variables.

        Raises:
            NodeFailure: the block is missing or torn, so that GRUB takes its first entry.
            OSError: it can't be read.
        """
        return self._whole()[1]

    def change(self, values: Mapping[str, str | None]) -> None:
        """Set variables, or remove those whose value is None. All or nothing, durable, and read back.

        Raises:
            NodeFailure: the block is missing or torn, grub-editenv refuses, or it says something else afterwards.
            OSError: it can't be written.
        """
        self._replace(self._edited(self._whole()[0], values), values)

    def renew(self, values: Mapping[str, str | None]) -> None:
        """Like `change`, but a block that is missing or torn is made again, with these variables alone.

        Raises:
            NodeFailure: grub-editenv refuses, or the block says something else afterwards.
            OSError: it can't be written.
        """
        block = self._path.read_bytes() if self._path.is_file() else b""
        readable = len(block) == _BYTES and self._run("list", block).returncode == 0
        self._replace(self._edited(block if readable else None, values), values)

    def _whole(self) -> tuple[bytes, dict[str, str]]:
        """Return the block and its variables."""
        advice = f"`{self._editor} {self._path} create` makes a new one, and setting the default entry does"
        try:
            block = self._path.read_bytes()
        except FileNotFoundError as error:
            raise boot_failure(f"GRUB's environment block {self._path} is missing; {advice}") from error
        if len(block) != _BYTES:
            found = f"{self._path} has {len(block)} bytes, expected {_BYTES}"
            raise boot_failure(f"GRUB's environment block {found}; {advice}")
        done = self._run("list", block)
        if done.returncode:
            raise boot_failure(f"GRUB's environment block {self._path} is torn: {_said(done)}; {advice}")
        lines = (line.partition("=") for line in done.stdout.decode("utf-8", errors="replace").splitlines())
        return block, {name: value for name, _, value in lines}

    def _edited(self, block: bytes | None, values: Mapping[str, str | None]) -> bytes:
        gone = [name for name, value in values.items() if value is None]
        kept = [f"{name}={value}" for name, value in values.items() if value is not None]
        with tempfile.TemporaryDirectory(prefix="edge_day2-grub-") as folder:
            copy = Path(folder) / "grubenv"
            if block is None:
                self._edit(copy, "create")
            else:
                copy.write_bytes(block)
            if gone:
                self._edit(copy, "unset", *gone)
            if kept:
                self._edit(copy, "set", *kept)
            return copy.read_bytes()

    def _replace(self, block: bytes, values: Mapping[str, str | None]) -> None:
        if len(block) != _BYTES:
            raise boot_failure(f"{self._editor} made an environment block of {len(block)} bytes, expected {_BYTES}")
        replace_file(self._path, block)
        found = self.read()
        wrong = {name: found.get(name) for name, value in values.items() if found.get(name) != value}
        if wrong:
            raise boot_failure(f"{self._path} says {wrong} after {dict(values)} was written")

    def _edit(self, path: Path, *arguments: str) -> None:
        done = self._call([self._editor, str(path), *arguments])
        if done.returncode:
            raise boot_failure(f"{self._editor} {' '.join(arguments)}: {_said(done)}")

    def _run(self, what: str, block: bytes) -> subprocess.CompletedProcess[bytes]:
        """Let the tool look at a copy, so that what it reads is what we read."""
        with tempfile.NamedTemporaryFile(prefix="edge_day2-grub-") as copy:
            copy.write(block)
            copy.flush()
            return self._call([self._editor, copy.name, what])

    def _call(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603 a list, no shell
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._timeout, check=False
            )
        except FileNotFoundError as error:
            raise boot_failure(f"{self._editor} isn't installed") from error
        except subprocess.TimeoutExpired as error:
            raise boot_failure(f"{self._editor} took more than {self._timeout:g} s: {' '.join(command)}") from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return shown((done.stderr or done.stdout).decode("utf-8", errors="replace").strip())
