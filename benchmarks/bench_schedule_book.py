"""How long a schedule book takes to answer for a whole fleet.

Run: python benchmarks/bench_schedule_book.py [hosts]

The fleet: 100 regions in three layers with a nightly window each (three time zones), a blackout, 20,000 sites, and an
own window for every tenth host.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

from edge_day2.domain.resources import Host, Region, ScheduleResource, ScheduleTarget, Site, TargetLevel
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind, SingleSchedule

_T = TypeVar("_T")
NOW = datetime(2026, 11, 24, 3, 30, tzinfo=UTC)
SITES = 20_000
ZONES = ("UTC", "Europe/Warsaw", "America/New_York")


def timed(what: str, ask: Callable[[], _T]) -> _T:
    """Print how long `ask` takes, and return its answer."""
    begun = time.perf_counter()
    answer = ask()
    print(f"{what:60}{(time.perf_counter() - begun) * 1000:10.1f} ms")
    return answer


def applied(
    name: str, schedule: Schedule, level: TargetLevel, target: str, kind: ScheduleKind = ScheduleKind.OS_UPDATE
) -> ScheduleResource:
    """Return a schedule resource that targets a place."""
    where = ScheduleTarget(level=level, resource_id=target)
    return ScheduleResource(resource_id=name, tenant_id="t", name=name, schedule=schedule, kind=kind, target=where)


def fleet(count: int) -> tuple[ScheduleBook, list[Host]]:
    """Return the book without its hosts, and the hosts."""
    book = ScheduleBook("t")
    for number in range(100):
        parent = f"r{(number - 1) // 10}" if number else None
        nightly = RepeatedSchedule("0", str(number % 24), day_week="*", time_zone=ZONES[number % 3])
        book.put(
            Region(resource_id=f"r{number}", tenant_id="t", name=f"r{number}", parent_id=parent),
            applied(f"region {number}", nightly, TargetLevel.REGION, f"r{number}"),
        )
    freeze = SingleSchedule(NOW - timedelta(days=1), NOW + timedelta(days=1))
    book.put(applied("freeze", freeze, TargetLevel.REGION, "r7", ScheduleKind.BLACKOUT))
    for number in range(SITES):
        book.put(Site(resource_id=f"s{number}", tenant_id="t", name=f"s{number}", region_id=f"r{number % 100}"))
    for number in range(0, count, 10):
        own = RepeatedSchedule(str(number % 60), str(number % 24), day_week="*")
        book.put(applied(f"host {number}", own, TargetLevel.HOST, f"h{number}"))
    hosts = [
        Host(
            resource_id=f"h{number}",
            tenant_id="t",
            guid=f"00000000-0000-0000-0000-{number:012x}",
            name=f"h{number}",
            site_id=f"s{number % SITES}",
        )
        for number in range(count)
    ]
    return book, hosts


def main(count: int) -> None:
    """Print a table of milliseconds."""
    book, hosts = fleet(count)
    timed(f"put {count} hosts", lambda: book.put(*hosts))
    first = timed("which hosts are in a window now, asked first", lambda: list(book.open_hosts(NOW)))
    later = NOW + timedelta(hours=3)
    timed("which hosts are in a window three hours later", lambda: list(book.open_hosts(later)))
    change = applied("region 5", RepeatedSchedule("0", "3", day_week="*"), TargetLevel.REGION, "r5")
    timed("replace one region's schedule", lambda: book.put(change))
    second = timed("which hosts are in a window now, asked after it", lambda: list(book.open_hosts(NOW)))
    openings = timed("begin the list of what opens next", lambda: book.openings(NOW))
    timed("the next 1,000 openings", lambda: sum(len(opening.host_ids) for opening in islice(openings, 1000)))
    timed("one host's next window, 1,000 times", lambda: [book.next_window("h77", NOW) for _ in range(1000)])
    distinct = sum(1 for _ in book.fleet())
    print(f"{len(first)} and {len(second)} hosts in a window; {distinct} distinct schedules")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
