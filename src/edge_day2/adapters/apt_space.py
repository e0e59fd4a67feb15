"""Is there room for what apt would download and dpkg would unpack?"""

from __future__ import annotations

import os
from pathlib import Path

from edge_day2.adapters.apt_plan import PlannedChange, Simulation, parse_download, unpacking_bytes
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.apt_tool import AptTool
from edge_day2.adapters.dpkg import DatabaseContent
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure


def check_space(
    settings: AptSettings, tool: AptTool, simulation: Simulation, content: DatabaseContent, *arguments: str
) -> None:
    """Return where there is room for `simulation`, which apt-get would do with `arguments`, and the margin.

    Raises:
        NodeFailure: INSUFFICIENT_STORAGE: with folder, bytes that are free, and bytes that are needed.
    """
    download = parse_download(tool.answered(*tool.get("--print-uris", *arguments, until=None)).output)
    needs = [
        (_existing(settings.root / "var/cache/apt/archives"), download, "downloads"),
        (_existing(settings.root / "usr"), _unpacking(tool, simulation.changes, content), "unpacking"),
    ]
    for folder, _, _ in needs:
        device = folder.stat().st_dev
        shared = [need for need in needs if need[0].stat().st_dev == device]
        needed = sum(size for _, size, _ in shared) + settings.free_space_margin
        free = _free_bytes(folder)
        if any(size for _, size, _ in shared) and free < needed:
            what = " and ".join(f"{size:,} bytes for {use}" for _, size, use in shared)
            log = f"{folder}: {free:,} bytes free; needed are {what}, and {settings.free_space_margin:,} to spare"
            raise NodeFailure(FailureReason.INSUFFICIENT_STORAGE, log)


def _unpacking(tool: AptTool, changes: tuple[PlannedChange, ...], content: DatabaseContent) -> int:
    if not changes:
        return 0
    # In kibibytes: deb-control(5).
    sizes = {
        (record["Package"], record["Version"]): int(record.get("Installed-Size", "0")) * 1024
        for record in tool.shown(*(f"{one.name}={one.version}" for one in changes))
    }
    named = {(one.name, one.version): sizes.get((one.name.partition(":")[0], one.version), 0) for one in changes}
    return unpacking_bytes(changes, named, content)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return folder if folder.exists() or folder == folder.parent else _existing(folder.parent)


def _free_bytes(folder: Path) -> int:
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize
