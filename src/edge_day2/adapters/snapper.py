"""Snapshots of a root on btrfs, through snapper: the way back from an update that isn't well after its reboot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.commands import run_command
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure

_LABEL: Final = "edge_day2"
_ROLLED_BACK: Final = "edge_day2_rollback"
# A line for each of ten thousand snapshots.
_MOST_BYTES: Final = 8 * 1024 * 1024


@frozen(kw_only=True)
class _Snapshot:
    """`mark` is made of the label that we took it with; `rolled_back` is the identifier of what it is a copy of."""

    number: int
    default: bool
    active: bool
    mark: str
    rolled_back: str


class Snapper:
    """`SnapshotPort` over snapper's classic rollback: the next boot takes btrfs's default subvolume, which is changed.

    So what boots must be the default subvolume. A kernel command line with `rootflags=subvol=…`, which Debian's GRUB
    scripts write where the root isn't the default subvolume, would boot the same one as before: it is refused.

    Args:
        config: snapper's configuration of the root.
        apart: folders that must not go back with the root: the journal's above all.
        command: snapper, as an argument list.
        btrfs: the program of btrfs-progs, as an argument list.
        proc: where procfs is mounted.
        root: the root.
        timeout_seconds: limit of each command.
    """

    def __init__(
        self,
        *,
        config: str = "root",
        apart: Sequence[Path] = (Path("/var/lib/edge_day2"),),
        command: Sequence[str] = ("snapper",),
        btrfs: Sequence[str] = ("btrfs",),
        proc: Path = Path("/proc"),
        root: Path = Path("/"),
        timeout_seconds: float = 300,
    ) -> None:
        self._command = (*command, "--config", config)
        self._btrfs = tuple(btrfs)
        self._apart = tuple(apart)
        self._proc = proc
        self._root = root
        self._timeout_seconds = timeout_seconds

    def take(self, label: str) -> str:
        """See `SnapshotPort.take`."""
        self._check_layout()
        mark = hashlib.sha256(label.encode()).hexdigest()[:16]
        snapshots = self._snapshots()
        if any(one.default and not one.active and one.rolled_back for one in snapshots):
            # snapper itself can only make copies the default: what runs has to be it again.
            self._execute(*self._btrfs, "subvolume", "set-default", str(self._root))
        for snapshot in snapshots:
            if snapshot.mark == mark:
                return _identifier(snapshot)
        self._run("create", "--description", "before a Day 2 update", "--userdata", f"{_LABEL}={mark}")
        return next(_identifier(snapshot) for snapshot in self._snapshots() if snapshot.mark == mark)

    def roll_back(self, snapshot: str) -> None:
        """See `SnapshotPort.roll_back`."""
        self._check_layout()
        snapshots = self._snapshots()
        found = next((one for one in snapshots if one.mark and _identifier(one) == snapshot), None)
        if found is None:
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"snapshot {snapshot} isn't there")
        # Done already, and not yet booted. What was booted may have changed since.
        if any(one.default and not one.active and one.rolled_back == snapshot for one in snapshots):
            return
        mark = f"{_ROLLED_BACK}={snapshot}"
        self._run("--ambit", "classic", "rollback", "--userdata", mark, str(found.number))

    def discard(self, snapshot: str) -> None:
        """See `SnapshotPort.discard`."""
        for one in self._snapshots():
            if one.mark and _identifier(one) == snapshot:
                self._run("delete", "--sync", str(one.number))

    def _check_layout(self) -> None:
        try:
            command_line = (self._proc / "cmdline").read_text().split()
            together = [path for path in self._apart if path.stat().st_dev == self._root.stat().st_dev]
        except OSError as error:
            raise NodeFailure(FailureReason.UPDATE_TOOL, str(error)) from error
        if flags := [word for word in command_line if word.startswith("rootflags=") and "subvol" in word]:
            log = f"the kernel was started with {flags[0]}: expected the default subvolume, which a rollback changes"
            raise NodeFailure(FailureReason.UPDATE_TOOL, log)
        if together:
            log = f"{together[0]} is in the subvolume of {self._root}, and would be rolled back with it"
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"{log}: expected a subvolume of its own")

    def _snapshots(self) -> list[_Snapshot]:
        said = self._run("list", "--disable-used-space", before=("--jsonout",))
        try:
            (rows,) = json.loads(said[said.index("{") :]).values()
            return [_snapshot_of(row) for row in rows]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"snapper's list can't be read: {error!r}") from error

    def _run(self, *arguments: str, before: Sequence[str] = ()) -> str:
        return self._execute(*self._command, *before, *arguments)

    def _execute(self, *command: str) -> str:
        return run_command(
            command,
            timeout_seconds=self._timeout_seconds,
            reason=FailureReason.UPDATE_TOOL,
            most_bytes=_MOST_BYTES,
        )


def _snapshot_of(row: dict[str, object]) -> _Snapshot:
    userdata = row["userdata"]
    marks = {str(name): str(value) for name, value in userdata.items()} if isinstance(userdata, dict) else {}
    number = row["number"]
    if not isinstance(number, int):
        raise TypeError(f"number: {number!r}")
    return _Snapshot(
        number=number,
        default=row["default"] is True,
        active=row["active"] is True,
        mark=marks.get(_LABEL, ""),
        rolled_back=marks.get(_ROLLED_BACK, ""),
    )


def _identifier(snapshot: _Snapshot) -> str:
    # snapper gives the number of a snapshot that was deleted to another one.
    return f"{snapshot.number}-{snapshot.mark}"
