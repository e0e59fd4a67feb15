"""A fleet's Day 2: two revisions of OS profiles, 200 nodes of both kinds, some simulated days, and some bad luck.

An SQLite Inventory holds two tenants. In `north` the OS Resource Manager links new images by itself, in `south` an
admin does it by hand. On the second day the orchestrator is upgraded to a newer revision of profiles, and the nodes
update themselves in the windows of their site, region or own. At the end: a table, and a picture in one HTML file.

    python examples/day2_fleet.py --profiles DIR --nodes 200 --days 6 --seed 7

Needs edge_day2[profiles,sql,rich]. The story is in `fleet_week.py`, the table in `fleet_outcomes.py`, the picture in
`fleet_timeline.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

try:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
except ModuleNotFoundError:
    sys.exit("rich isn't installed; install edge_day2[profiles,sql,rich]")

from edge_day2 import EdgeDay2Error
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.adapters.storage import open_inventory
from fleet_history import Node, rows_of
from fleet_outcomes import Standing, print_tables
from fleet_timeline import Picture, write_timeline
from fleet_week import BEGIN, LINKING, OWN_PROFILES, PLACES, TENANTS, FleetWeek, two_revisions


def number(least: int, most: int) -> Callable[[str], int]:
    """Return a converter of the command line's whole numbers."""

    def convert(text: str) -> int:
        if not text.isdecimal() or len(text) > len(str(most)) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least} to {most}")
        return int(text)

    return convert


def picture_of(week: FleetWeek, nodes: Sequence[Node]) -> Picture:
    """Return what the picture shows: the nodes by place, and in each by kind, how they stand, and when they updated."""
    rows = rows_of(nodes, week.fleet.history, week.end)
    tenants = [name for name, _ in TENANTS.values()]
    sites = [place.site for place in PLACES]
    standings = list(Standing)
    rows.sort(
        key=lambda row: (
            tenants.index(row.node.tenant),
            sites.index(row.node.site),
            row.node.os_type.name,
            standings.index(row.node.outcome.standing),
            row.updated_at or week.end,
            row.node.name,
        )
    )
    return Picture(
        title=f"A fleet's Day 2: {len(rows)} nodes, {(week.end - BEGIN).days} days",
        subtitle=f"OS profiles {week.old} → {week.new}. A line is a node. Times are UTC.",
        begin=BEGIN,
        end=week.end,
        rows=rows,
        milestones=week.milestones,
        tenants=[(name, f"images linked {LINKING[mode]}") for name, mode in TENANTS.values()],
    )


def check_writable(picture: Path) -> None:
    """Find out before the fleet's week whether its picture can be written after it.

    Raises:
        OSError: it can't.
    """
    picture.parent.mkdir(parents=True, exist_ok=True)
    with picture.open("a", encoding="utf-8"):
        pass


def run(options: argparse.Namespace, console: Console) -> None:
    """Let the week pass, and tell of it."""
    begun = time.perf_counter()
    service = DirectoryReleaseService(options.profiles)
    revisions = two_revisions(service)
    check_writable(options.picture)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_inventory(f"sqlite:///{folder}/inventory.db") as inventory,
    ):
        with Progress(TextColumn("{task.description:>20}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
            task = bar.add_task("bringing the fleet up", total=timedelta(days=options.days).total_seconds())
            week = FleetWeek(inventory, service, revisions, options.nodes, options.days, options.seed)

            def show(now: datetime) -> None:
                bar.update(task, description=f"{now:%A %H:%M}", completed=(now - BEGIN).total_seconds())

            week.fleet.run(week.end, show)
        nodes = week.nodes()
    print_tables(console, [node.outcome for node in nodes])
    write_timeline(options.picture, picture_of(week, nodes))
    for name, report in week.reports.items():
        console.print(
            f"{name}: {len(report.created)} OS Resources created, {len(report.patched)} patched, "
            f"{report.linked_instances} instances linked, {len(report.conflicts)} conflicts, "
            f"{len(report.rejected)} manifests rejected",
            soft_wrap=True,
        )
    digest = hashlib.sha256(week.fleet.history_bytes()).hexdigest()
    console.print(f"history: {len(week.fleet.history)} lines, sha256 {digest[:16]}…")
    console.print(f"{len(week.fleet.nodes)} nodes, {options.days} days in {time.perf_counter() - begun:.1f} s")
    console.print(f"picture: {options.picture}", soft_wrap=True)


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`."""
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> None:
    """Read the command line and run the demo."""
    parser = OneLineParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profiles", type=Path, default=OWN_PROFILES, help="folder with a folder for each revision")
    parser.add_argument("--nodes", type=number(1, 100_000), default=200)
    parser.add_argument("--days", type=number(1, 3650), default=6)
    parser.add_argument("--seed", type=number(0, 999_999_999), default=7)
    parser.add_argument("--picture", type=Path, default=Path("build/day2_fleet.html"), help="where the picture goes")
    # The faults of the week are meant; the table and the picture tell of them.
    logging.getLogger("edge_day2").addHandler(logging.NullHandler())
    try:
        run(parser.parse_args(), Console())
    except (EdgeDay2Error, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
