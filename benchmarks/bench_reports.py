"""What a status report costs on SQLite and PostgreSQL, in Inventories of several sizes.

    python benchmarks/bench_reports.py [--instances 1000 100000 1000000] [--databases sqlite postgresql]
                                       [--calls 1000] [--processes 1 2] [--seconds 3] [--folder DIR]

Reports go through the Maintenance Manager, one after the other: those that change nothing, those that begin and end an
update, and batches of 1,000 of both sorts. Statements are counted where SQLAlchemy hands them to the driver; BEGIN and
COMMIT come on top. The peer of a changed report is one UPDATE of the same row and its COMMIT by sqlite3 or psycopg
alone. Inventories take turns, so that a change of the machine's speed meets all. Then several processes report at once
to the largest Inventory. PostgreSQL runs on the same machine, and its processes share the cores with the benchmark.

Ends with status 1 where a report that changes nothing writes, takes more than one SELECT, or costs more than 1.5 times
as much in the largest Inventory as in the smallest one.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen
from sqlalchemy import Engine, event

from edge_day2 import MaintenanceManager
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.maintenance_manager import Report
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import RequestError
from inventory_databases import DATABASES, Database, plain_connection
from inventory_fleet import NOW, TENANT, fill, guid, is_updating, latest_system
from own_process import in_a_process_of_its_own, peak_megabytes

RATIO_LIMIT: Final = 1.5
BATCH: Final = 1000
# What the workers of the gRPC server answer together at most.
GATHERED: Final = 64
SORTS: Final = ("unchanged", "began", "finished", "plain", "unchanged batch", "changed batch")


class TickingClock:
    """Goes on by a microsecond at each look: no report comes due for noting again while this is measured.

    Runs are named by the instant of their start, so that each process needs seconds of its own.
    """

    def __init__(self, second: int) -> None:
        self._now = NOW + timedelta(minutes=1, seconds=second)

    def now(self) -> datetime:
        """Return the next instant."""
        self._now += timedelta(microseconds=1)
        return self._now


@define
class Cost:
    """What calls of one sort took: wall time of each, this process's processor time, statements by kind."""

    calls: list[float] = field(factory=list)
    processor: float = 0.0
    statements: Counter[str] = field(factory=Counter)

    def measure(self, work: Callable[[], object]) -> None:
        """Do it, and note what it took."""
        with counted(self.statements):
            processor, began = time.process_time(), time.perf_counter()
            work()
            self.calls.append(time.perf_counter() - began)
            self.processor += time.process_time() - processor

    def microseconds(self, reports: int = 1) -> float:
        """Return the median for one report, where each call had so many."""
        return statistics.median(self.calls) * 1e6 / reports

    def told(self, reports: int = 1) -> str:
        """Return time and statements of one call in words."""
        each = Counter({kind: count / len(self.calls) for kind, count in self.statements.items()})
        own = self.processor / len(self.calls) * 1e6 / reports
        kinds = ", ".join(f"{count:g} {kind}" for kind, count in sorted(each.items()))
        return f"{self.microseconds(reports):7.0f} us a report, {own:.0f} of them in this process; {kinds}"


@contextmanager
def counted(statements: Counter[str]) -> Iterator[None]:
    """Count what is handed to a driver meanwhile, by the statement's kind."""

    def count(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        kind = statement.split(maxsplit=1)[0]
        if kind != "BEGIN":
            statements["SELECT" if kind == "WITH" else kind] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def says(number: int, status: UpdateStatusType) -> Report:
    """Return a node's report; one that has updated runs the latest OS of its profile."""
    latest = latest_system(number)
    told = UpdateStatus(status_type=status)
    if status is UpdateStatusType.UPDATED and latest.os_type is OSType.IMMUTABLE:
        told = UpdateStatus(status_type=status, profile_name=latest.profile_name, os_image_id=latest.image_id)
    return Report(tenant=TENANT, request=PlatformUpdateStatusRequest(host_guid=guid(number), update_status=told))


def says_again(number: int) -> Report:
    """Return the report of a node that has nothing new to say."""
    return says(number, UpdateStatusType.STARTED if is_updating(number) else UpdateStatusType.UP_TO_DATE)


def check(answers: Iterable[object]) -> None:
    """Raise the first refusal: a refused report costs something else."""
    for answer in answers:
        if isinstance(answer, RequestError):
            raise answer


class Measured:
    """One Inventory under measurement."""

    def __init__(self, url: str, instances: int, open_here: ExitStack) -> None:
        self.instances = instances
        self.costs = {sort: Cost() for sort in SORTS}
        self._manager = MaintenanceManager(open_here.enter_context(open_inventory(url)), clock=TickingClock(0))
        self._plainly = open_here.enter_context(plain_connection(url))
        self._draw = random.Random(1)
        self._numbers = range(instances)
        self._idle = [number for number in self._numbers if not is_updating(number)]

    def one(self, report: Report) -> None:
        """Report alone."""
        self._manager.platform_update_status(report.request, tenant=report.tenant)

    def unchanged(self) -> None:
        """Let a node say again what it said before."""
        self.costs["unchanged"].measure(partial(self.one, says_again(self._draw.choice(self._numbers))))

    def unchanged_batch(self) -> None:
        """Let many nodes say it again, gathered."""
        reports = [says_again(number) for number in self._draw.sample(self._numbers, BATCH)]
        self.costs["unchanged batch"].measure(lambda: check(self._manager.answer_each(reports)))

    def changed(self) -> None:
        """Let a node begin an update and end it, and the driver alone change the same row twice."""
        number = self._draw.choice(self._idle)
        self.costs["began"].measure(partial(self.one, says(number, UpdateStatusType.STARTED)))
        self.costs["finished"].measure(partial(self.one, says(number, UpdateStatusType.UPDATED)))
        statement = "UPDATE instance SET update_text = ?, last_seen = ? WHERE tenant_id = ? AND resource_id = ?"
        for text in ("Updating", "Update completed"):
            values = (text, len(text), TENANT, f"inst-{number:08x}")
            self.costs["plain"].measure(partial(self._plainly, statement, values))

    def changed_batch(self, status: UpdateStatusType) -> None:
        """Let many nodes say something new, in one transaction."""
        draw = random.Random(2)
        reports = [says(number, status) for number in draw.sample(self._numbers, BATCH)]
        self.costs["changed batch"].measure(lambda: check(self._manager.platform_update_statuses(reports)))


def measure(urls: Sequence[tuple[str, int]], calls: int) -> tuple[list[tuple[int, dict[str, Cost]]], float]:
    """Return the costs by number of instances, and the peak of memory."""
    with ExitStack() as open_here:
        found = [Measured(url, instances, open_here) for url, instances in urls]

        def in_turns(times: int, work: Callable[[Measured], None]) -> None:
            for _ in range(times):
                for inventory in found:
                    work(inventory)

        in_turns(calls // 10, Measured.unchanged)
        for inventory in found:
            inventory.costs["unchanged"] = Cost()
        in_turns(calls, Measured.unchanged)
        in_turns(max(calls // 100, 3), Measured.unchanged_batch)
        in_turns(calls, Measured.changed)
        for _ in range(max(calls // 200, 2)):
            for status in (UpdateStatusType.FAILED, UpdateStatusType.STARTED):
                in_turns(1, partial(Measured.changed_batch, status=status))
        return [(inventory.instances, inventory.costs) for inventory in found], peak_megabytes()


def show(found: list[tuple[int, dict[str, Cost]]]) -> bool:
    """Print the costs, and return whether the budgets are kept."""
    for instances, costs in found:
        print(f"  {instances:,} instances")
        print(f"    unchanged                 {costs['unchanged'].told()}")
        print(f"    unchanged, {BATCH:,} together {costs['unchanged batch'].told(BATCH)}")
        plain = costs["plain"].microseconds()
        for sort in ("began", "finished"):
            ratio = costs[sort].microseconds() / plain
            print(f"    {sort:25} {costs[sort].told()}; {ratio:.1f} times the plain UPDATE")
        print(f"    changed, {BATCH:,} together   {costs['changed batch'].told(BATCH)}")
        print(f"    a plain UPDATE and COMMIT {plain:7.0f} us")
    kept = True
    for instances, costs in found:
        cost = costs["unchanged"]
        if cost.statements != Counter(SELECT=len(cost.calls)):
            kept = False
            print(f"  over the budget at {instances:,}: an unchanged report takes one SELECT and nothing else")
    (few, small), (many, large) = found[0], found[-1]
    for sort, reports in (("unchanged", 1), ("unchanged batch", BATCH)):
        ratio = large[sort].microseconds(reports) / small[sort].microseconds(reports)
        limit = f"limit {RATIO_LIMIT}" if sort == "unchanged" else "no limit"
        print(f"  {sort}: {many:,} instances cost {ratio:.2f} times what {few:,} do ({limit})")
        kept = kept and (ratio <= RATIO_LIMIT or sort != "unchanged")
    return kept


@frozen
class Load:
    """What one of several processes does over and over."""

    url: str
    instances: int
    seconds: float
    together: int
    changing: bool

    def run(self, seed: int, barrier: Any) -> float:
        """Report when all are ready, for so long; return reports per second."""
        draw = random.Random(seed)
        statuses = [UpdateStatusType.FAILED, UpdateStatusType.STARTED]
        with open_inventory(self.url) as inventory:
            manager = MaintenanceManager(inventory, clock=TickingClock(seed))

            def reports(turn: int) -> list[Report]:
                numbers = [draw.randrange(self.instances) for _ in range(self.together)]
                if self.changing:
                    return [says(number, statuses[turn % 2]) for number in numbers]
                return [says_again(number) for number in numbers]

            # What hosts share is remembered from then on.
            check(manager.answer_each([says_again(number) for number in draw.sample(range(self.instances), BATCH)]))
            prepared = [reports(turn) for turn in range(max(2, 4000 // self.together))]
            barrier.wait()
            done, began = 0, time.perf_counter()
            while (passed := time.perf_counter() - began) < self.seconds:
                batch = prepared[done % len(prepared)]
                if self.together == 1:
                    manager.platform_update_status(batch[0].request, tenant=TENANT)
                else:
                    check(manager.answer_each(batch))
                done += 1
            return done * self.together / passed


def _run(load: Load, seed: int, barrier: Any, results: Any) -> None:
    results.put(load.run(seed, barrier))


_seconds: Final = itertools.count(1)


def at_once(load: Load, processes: int) -> float:
    """Return the reports per second of so many processes together."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    started = [context.Process(target=_run, args=(load, next(_seconds), barrier, results)) for _ in range(processes)]
    for process in started:
        process.start()
    rates: list[float] = [results.get() for _ in started]
    for process in started:
        process.join()
    return sum(rates)


def run(name: str, database: Database, options: argparse.Namespace) -> bool:
    """Measure on one database; return whether the budgets are kept."""
    print(database.settings())
    urls: list[tuple[str, int]] = []
    for instances in sorted(options.instances):
        inventory = f"of_{instances}"
        url = database.url(inventory)
        began = time.perf_counter()
        in_a_process_of_its_own(fill, url, instances)
        seconds = time.perf_counter() - began
        database.settle(inventory)
        print(f"  {instances:,} instances: filled in {seconds:.0f} s, {database.megabytes(inventory):,.0f} MB on disk")
        urls.append((url, instances))
    # First, while the fleet says what it said before.
    processes_at_once(*urls[-1], options, changing=False)
    found, peak = in_a_process_of_its_own(measure, urls, options.calls)
    kept = show(found)
    print(f"  peak memory of the reporting process: {peak:.0f} MB")
    if changes := database.row_changes(inventory):
        print(f"  {changes}")
    processes_at_once(*urls[-1], options, changing=True)
    print(f"  {name}: budgets {'kept' if kept else 'missed'}")
    return kept


def processes_at_once(url: str, instances: int, options: argparse.Namespace, *, changing: bool) -> None:
    """Print how many reports several processes do in a second."""
    for together in (1,) if changing else (1, GATHERED):
        for processes in options.processes:
            rate = at_once(Load(url, instances, options.seconds, together, changing), processes)
            sort = "changing" if changing else "unchanged"
            print(f"  {processes} process(es), {sort} reports by {together}: {rate:,.0f} reports/s")


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--calls", type=int, default=1000, help="of each sort, for each Inventory")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0, help="that several processes report at once")
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: a temporary folder)")
    options = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.databases:
            with DATABASES[name](Path(folder)) as database:
                kept = run(name, database, options) and kept
    if not kept:
        sys.exit(1)


if __name__ == "__main__":
    main()
