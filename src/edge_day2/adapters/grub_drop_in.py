"""The kernel command line of a node that boots by GRUB: our drop-in, and a grub.cfg that was checked beforehand."""

from __future__ import annotations

import errno
import json
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from edge_day2.adapters.commands import run_command
from edge_day2.adapters.durable_files import remove_file, replace_file
from edge_day2.adapters.grub_configuration import (
    RESERVED_PARAMETERS,
    MenuEntry,
    drop_in_of,
    in_order,
    kernel_parameters,
    menu_entries,
    parameters_of,
)
from edge_day2.domain.resources import KERNEL_COMMAND_LINE
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidResource
from edge_day2.ports.failures import NodeFailure

_log: Final = logging.getLogger(__name__)

_DROP_INS: Final = Path("/etc/default/grub.d")
# A grub.cfg has some hundred kilobytes at most; a drop-in is one line.
_MOST_BYTES: Final = 16 * 1024 * 1024


@frozen(kw_only=True)
class _Memory:
    """What outlives the process: which parameters were taken away in `boot_id`, and how to undo a change.

    `earlier` holds the drop-ins as they were before the change that is under way, None where there is none.
    """

    boot_id: str
    removed: tuple[str, ...] = ()
    earlier: Mapping[str, str | None] | None = None


class GrubDropIn:
    """`GrubPort` for Debian and Ubuntu.

    The drop-in adds our parameters to those of the distribution. grub-mkconfig writes beside grub.cfg; what it wrote
    is checked, and then replaces grub.cfg in one step, so that the node has a whole configuration at any moment
    (update-grub itself overwrites grub.cfg in place). A change that was cut off is finished by the next call.

    Needs root, and the Debian packages grub-common and grub2-common.

    Args:
        drop_in: our file. The last of those that set the variable should be it: 90 comes after the distribution's.
        superseded: files that ours replaces, the original agent's for example. They are removed.
        configuration: the grub.cfg that the node boots by.
        boot: the folder of kernels and initrds.
        memory: a small file of ours that outlives a boot.
        proc: where procfs is mounted.
        make_configuration: the command; the file to write is added to it.
        check_script: GRUB's syntax check; the file to check is added to it.
        timeout_seconds: limit of each command.
        alphabet: what a kernel command line must match; the default is the original's. Whatever it allows, nothing
            passes that means something to a shell or to GRUB.
        reserved: names of parameters that may not be given.
    """

    def __init__(
        self,
        *,
        drop_in: Path = _DROP_INS / "90-edge-day2.cfg",
        superseded: Sequence[Path] = (_DROP_INS / "90-platform-update-agent.cfg",),
        configuration: Path = Path("/boot/grub/grub.cfg"),
        boot: Path = Path("/boot"),
        memory: Path = Path("/var/lib/edge_day2/grub.json"),
        proc: Path = Path("/proc"),
        make_configuration: Sequence[str] = ("grub-mkconfig", "-o"),
        check_script: Sequence[str] = ("grub-script-check",),
        timeout_seconds: float = 300,
        alphabet: re.Pattern[str] = KERNEL_COMMAND_LINE,
        reserved: frozenset[str] = RESERVED_PARAMETERS,
    ) -> None:
        self._drop_in = drop_in
        self._drop_ins = (drop_in, *superseded)
        self._configuration = configuration
        self._boot = boot
        self._memory = memory
        self._proc = proc
        self._make_configuration = tuple(make_configuration)
        self._check_script = tuple(check_script)
        self._timeout_seconds = timeout_seconds
        self._alphabet = alphabet
        self._reserved = reserved

    def running_kernel_command_line(self) -> str:
        """See `GrubPort`."""
        try:
            return (self._proc / "cmdline").read_text().strip()
        except OSError as error:
            raise _failure(str(error)) from error

    def set_kernel_command_line(self, kernel_command_line: str) -> bool:
        """See `GrubPort`. The parameters are ours alone; "" takes away those that were given earlier.

        The answer tells of our parameters. Those that the distribution has given or taken away since the node booted
        count from whatever boot comes next.
        """
        try:
            wanted = kernel_parameters(kernel_command_line, alphabet=self._alphabet, reserved=self._reserved)
        except InvalidResource as error:
            raise _failure(str(error)) from error
        try:
            return self._set(wanted)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = FailureReason.INSUFFICIENT_STORAGE if full else FailureReason.UT_BOOT_CONFIGURATION
            raise NodeFailure(reason, str(error)) from error

    def _set(self, wanted: tuple[str, ...]) -> bool:
        self._refuse_links()
        text = drop_in_of(wanted) if wanted else None
        found = {str(path): _content(path) for path in self._drop_ins}
        target = {**dict.fromkeys(found), str(self._drop_in): text}
        memory = self._recall(found)
        memory = evolve(memory, removed=self._removed(memory, found, wanted))
        if memory.earlier is None and found == target:
            try:
                return self._differs(wanted, memory.removed, self._bootable_entry(self._configuration, wanted))
            except NodeFailure as error:
                _log.warning("%s; it is made again", error.log)
        earlier = found if memory.earlier is None else memory.earlier
        self._remember(evolve(memory, earlier=earlier))
        try:
            self._write(target)
            entry = self._configure(wanted)
        except (NodeFailure, OSError) as error:
            self._undo(memory, earlier, error)
            raise
        self._remember(evolve(memory, earlier=None))
        return self._differs(wanted, memory.removed, entry)

    def _undo(self, memory: _Memory, earlier: Mapping[str, str | None], error: Exception) -> None:
        said = error.log if isinstance(error, NodeFailure) else str(error)
        try:
            self._write(earlier)
            # grub.cfg may hold what a change that was cut off put there.
            self._configure(())
            self._remember(evolve(memory, earlier=None))
        except (NodeFailure, OSError) as second:
            also = second.log if isinstance(second, NodeFailure) else str(second)
            log = f"{said}; the earlier configuration couldn't be made again either, grub.cfg was left alone: {also}"
            raise _failure(log) from error

    def _removed(self, memory: _Memory, found: Mapping[str, str | None], wanted: tuple[str, ...]) -> tuple[str, ...]:
        # Candidates: whatever the running kernel may have got from us.
        running = self.running_kernel_command_line().split()
        given = (*memory.removed, *self._given(memory.earlier or {}), *self._given(found))
        return tuple(
            dict.fromkeys(parameter for parameter in given if parameter in running and parameter not in wanted)
        )

    @staticmethod
    def _given(drop_ins: Mapping[str, str | None]) -> tuple[str, ...]:
        return tuple(parameter for text in drop_ins.values() for parameter in parameters_of(text or ""))

    def _differs(self, wanted: tuple[str, ...], removed: tuple[str, ...], entry: MenuEntry) -> bool:
        running = self.running_kernel_command_line().split()
        return not in_order(wanted, running) or any(parameter not in entry.parameters for parameter in removed)

    def _configure(self, wanted: tuple[str, ...]) -> MenuEntry:
        """Make grub.cfg from the drop-ins, check it, and put it in place."""
        # A name of its own: a grub-mkconfig whose agent was killed may still be writing to the one that it was given.
        beside = self._configuration.with_name(f"{self._configuration.name}.edge-day2-{secrets.token_hex(8)}")
        try:
            self._run((*self._make_configuration, str(beside)))
            if beside.is_symlink() or not beside.is_file():
                raise _failure(f"{' '.join(self._make_configuration)} wrote no file {beside}")
            self._run((*self._check_script, str(beside)))
            entry = self._bootable_entry(beside, wanted)
            content = beside.read_bytes()
            # As grub-mkconfig does: readable for all, unless a password is in it.
            secret = re.search(rb"^\s*password", content, re.MULTILINE) is not None
            replace_file(self._configuration, content, mode=0o600 if secret else 0o444)
        finally:
            for left in self._configuration.parent.glob(f"{self._configuration.name}.edge-day2-*"):
                left.unlink(missing_ok=True)
        return entry

    def _bootable_entry(self, configuration: Path, wanted: tuple[str, ...]) -> MenuEntry:
        """Return the first menu entry with all of `wanted` whose kernel and initrds are there.

        GRUB sees paths from the root of a file system, so files are told by their names in the boot folder.
        """
        entries = list(menu_entries(_content(configuration) or ""))
        there = [
            entry
            for entry in entries
            if all(self._in_boot(path) for path in (entry.kernel, *entry.initrds))
            and in_order(wanted, entry.parameters)
        ]
        if not there:
            found = "; ".join(f"{entry.kernel} {' '.join(entry.parameters)}" for entry in entries[:4]) or "no entry"
            log = f"{configuration}: expected an entry with a kernel in {self._boot} and {' '.join(wanted) or 'it'}"
            raise _failure(f"{log}, found {found}")
        return there[0]

    def _in_boot(self, path: str) -> bool:
        file = self._boot / path.rpartition("/")[2]
        return file.is_file() and file.stat().st_size > 0

    def _run(self, command: Sequence[str]) -> None:
        run_command(command, timeout_seconds=self._timeout_seconds, reason=FailureReason.UT_BOOT_CONFIGURATION)

    def _write(self, drop_ins: Mapping[str, str | None]) -> None:
        for path, text in drop_ins.items():
            if text is None:
                remove_file(Path(path))
            else:
                replace_file(Path(path), text.encode(errors="surrogateescape"), mode=0o644)

    def _refuse_links(self) -> None:
        self._drop_in.parent.mkdir(exist_ok=True)
        for folder in dict.fromkeys(path.parent for path in (*self._drop_ins, self._configuration)):
            if folder.is_symlink() or not folder.is_dir():
                raise _failure(f"{folder}: expected a folder that is no symbolic link")
        for path in (*self._drop_ins, self._configuration):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise _failure(f"{path}: expected a file that is no symbolic link")
        if not self._configuration.exists():
            raise _failure(f"{self._configuration} isn't there: expected a node that boots by GRUB")

    def _recall(self, found: Mapping[str, str | None]) -> _Memory:
        boot_id = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        text = _content(self._memory)
        if text is None:
            return _Memory(boot_id=boot_id)
        try:
            document = json.loads(text)
            earlier = document["earlier"]
            memory = _Memory(
                boot_id=str(document["boot_id"]),
                removed=tuple(map(str, document["removed"])),
                # Only files of ours are ever put back.
                earlier=None if earlier is None else {path: earlier[path] for path in found},
            )
            assert all(content is None or isinstance(content, str) for content in (memory.earlier or {}).values())
        except (ValueError, LookupError, TypeError, AssertionError) as error:
            _log.warning("%s can't be read, GRUB is configured again: %r", self._memory, error)
            return _Memory(boot_id=boot_id, earlier=found)
        # What was taken away before the node booted is gone, unless the change was cut off.
        if memory.boot_id != boot_id and memory.earlier is None:
            return _Memory(boot_id=boot_id)
        return evolve(memory, boot_id=boot_id)

    def _remember(self, memory: _Memory) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        document = {"boot_id": memory.boot_id, "removed": memory.removed, "earlier": memory.earlier}
        replace_file(self._memory, json.dumps(document).encode(), mode=0o600)


def _failure(log: str) -> NodeFailure:
    return NodeFailure(FailureReason.UT_BOOT_CONFIGURATION, log)


def _content(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(content) > _MOST_BYTES:
        raise _failure(f"{path}: expected at most {_MOST_BYTES} bytes")
    # As grub.cfg may hold any bytes in a title, they survive a round trip.
    return content.decode(errors="surrogateescape")
