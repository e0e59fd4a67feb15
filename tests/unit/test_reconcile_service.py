"""The OS Resource Manager as a service: when it works, when it waits, and what it does when something fails."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from typing import Any

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager, ReconcileReport
from edge_day2.application.reconcile_service import Bell, RetryTimes, run
from edge_day2.application.tenant_rounds import TenantRound
from edge_day2.errors import InvalidValue, NotFound, StorageError, Unavailable
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import plain_fleet, store
from orchestrator import stored
from release_bench import CVES, ReleaseBench

TENANTS = ("tenant-a", "tenant-b")
HALF_A_DAY = 12 * 3600.0


class Rests(Bell):
    """A bell at which waits pass at once: before each, the next of `events` happens; after the last it says stop.

    An event that returns True rings.
    """

    def __init__(self, *events: Callable[[], object]) -> None:
        super().__init__()
        self.waited: list[float] = []
        self._events = list(events)

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        if not self._events:
            self.stop()
            return True
        return self._events.pop(0)() is True


def nothing() -> None:
    pass


@pytest.fixture
def inventory() -> Iterator[Inventory]:
    with open_inventory("memory://") as opened:
        for tenant in TENANTS:
            store(opened, *plain_fleet(tenant).resources)
        yield opened


@pytest.fixture
def bench() -> ReleaseBench:
    bench = ReleaseBench(content={"cves": CVES, "more": CVES})
    bench.publish("1.0.0", "edge", "1.0", osExistingCvesURL="cves", osFixedCvesURL="more")
    return bench


class Service:
    """Runs a manager as a service with a bell, and keeps what came of each round."""

    def __init__(self, inventory: Inventory, bench: ReleaseBench) -> None:
        self.manager = OSResourceManager(inventory, bench, revision="~1.0.0", files=bench)
        self.rounds: list[TenantRound[ReconcileReport]] = []

    def run(self, bell: Bell, **options: Any) -> list[tuple[str, ...]]:
        """Return the tenants that were done in each round."""
        run(self.manager, bell=bell, heard=self.rounds.append, **options)
        return [tuple(outcome.done) for outcome in self.rounds]


@pytest.fixture
def service(inventory: Inventory, bench: ReleaseBench) -> Service:
    return Service(inventory, bench)


def test_it_reconciles_at_its_start_and_then_periodically(service: Service, bench: ReleaseBench) -> None:
    bell = Rests(nothing, nothing)

    assert service.run(bell) == [TENANTS] * 3
    assert bell.waited == [HALF_A_DAY] * 3
    assert (bench.asked, bench.downloads["cves"]) == (3, 3)


def test_it_is_woken_up_for_a_new_tenant(service: Service, inventory: Inventory) -> None:
    bell = Rests(lambda: True, lambda: True)

    done = service.run(bell, tenants=iter([["tenant-a"], ["tenant-a", "new"], ["new"]]).__next__)

    assert done == [("tenant-a",), ("tenant-a", "new"), ("new",)]
    assert stored(inventory, "new")


def test_while_the_release_service_is_down_it_asks_again_after_distances_that_grow_up_to_a_minute(
    service: Service, bench: ReleaseBench
) -> None:
    bench.down = Unavailable("status 503")
    bell = Rests(*[nothing] * 12, lambda: setattr(bench, "down", None))

    assert service.run(bell) == [TENANTS]
    *failures, last = bell.waited
    assert len(failures) == 13
    assert all(1 <= wait <= min(60, 2**number) for number, wait in enumerate(failures))
    assert last == pytest.approx(HALF_A_DAY - sum(failures))
    assert len(set(failures[1:])) > 1


def test_distances_are_the_callers(service: Service, bench: ReleaseBench) -> None:
    bench.down = Unavailable("status 503")
    bell = Rests(nothing, nothing)

    service.run(bell, retry=RetryTimes(shortest=7, longest=7), every=timedelta(seconds=17))

    assert bell.waited == [7, 7, 3]


def test_a_list_that_could_not_be_had_is_fetched_again_and_nothing_else_is(
    service: Service, bench: ReleaseBench, inventory: Inventory
) -> None:
    cves = bench.content.pop("cves")
    bench.content["more"] = b"no list"
    bell = Rests(nothing, lambda: bench.content.update(cves=cves))

    # While it is still missing no tenant is looked at.
    assert service.run(bell) == [TENANTS, (), TENANTS]
    assert bench.downloads == {"cves": 3, "more": 1}
    assert len(bell.waited) == 3
    assert bell.waited[2] > 3600
    (resource,) = (found for found in stored(inventory, "tenant-b").values() if found.profile_name == "edge")
    assert "CVE-2026-1" in resource.existing_cves


def test_a_tenant_that_is_disturbed_while_a_list_is_missing_is_come_back_to_alone(
    service: Service, bench: ReleaseBench, inventory: Inventory
) -> None:
    cves = bench.content.pop("cves")
    with ExitStack() as another:
        another.enter_context(inventory.turn("reconcile tenant-a"))
        bell = Rests(another.close, nothing, lambda: bench.content.update(cves=cves))

        assert service.run(bell) == [("tenant-b",), ("tenant-a",), (), TENANTS]


def test_every_period_looks_at_everything_again_also_at_what_made_no_sense(
    service: Service, bench: ReleaseBench
) -> None:
    bench.content["more"] = b"no list"

    service.run(Rests(nothing))

    assert bench.downloads == {"cves": 2, "more": 2}


def test_a_manifest_that_could_not_be_fetched_is_asked_for_again_soon(service: Service, bench: ReleaseBench) -> None:
    bench.published["1.0.0", "other"] = Unavailable("status 503")
    bell = Rests(lambda: bench.publish("1.0.0", "other", "1.0"))

    service.run(bell)

    assert [len(report.created) for outcome in service.rounds for report in outcome.done.values()] == [1, 1, 1, 1]
    assert bell.waited[0] <= 1
    assert bell.waited[1] > 3600


@pytest.mark.parametrize("failure", [NotFound("no such revision"), InvalidValue("x", "y", "z")])
def test_what_trying_again_does_not_mend_waits_for_the_period(
    service: Service, bench: ReleaseBench, failure: Exception
) -> None:
    bench.down = failure
    bell = Rests(lambda: setattr(bench, "down", None))

    assert service.run(bell) == [TENANTS]
    assert bell.waited == [HALF_A_DAY] * 2


def test_only_the_tenant_that_failed_is_tried_again_and_nothing_is_discovered_again(
    service: Service, bench: ReleaseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [StorageError("connection lost")]
    reconcile = OSResourceManager.reconcile

    def fails_once(manager: OSResourceManager, tenant_id: str, *arguments: Any) -> ReconcileReport:
        if tenant_id == "tenant-a" and failures:
            raise failures.pop()
        return reconcile(manager, tenant_id, *arguments)

    monkeypatch.setattr(OSResourceManager, "reconcile", fails_once)

    assert service.run(Rests(nothing)) == [("tenant-b",), ("tenant-a",)]
    assert bench.asked == 1


def test_a_tenant_that_another_process_works_on_is_come_back_to(service: Service, inventory: Inventory) -> None:
    with ExitStack() as another:
        turn: AbstractContextManager[bool] = inventory.turn("reconcile tenant-a")
        another.enter_context(turn)

        assert service.run(Rests(nothing, another.close)) == [("tenant-b",), (), ("tenant-a",)]


def test_a_defect_neither_ends_nor_silences_it(
    service: Service, bench: ReleaseBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.down = ZeroDivisionError("a defect")
    bell = Rests(nothing, lambda: setattr(bench, "down", None))

    with caplog.at_level(logging.ERROR):
        assert service.run(bell) == [TENANTS]
    assert caplog.text.count("ZeroDivisionError: a defect") == 2


def test_a_listener_that_fails_disturbs_nobody(inventory: Inventory, bench: ReleaseBench) -> None:
    def fail(outcome: TenantRound[ReconcileReport]) -> None:
        raise ZeroDivisionError

    bell = Rests(nothing)
    run(OSResourceManager(inventory, bench, revision="1.0.0"), bell=bell, heard=fail)

    assert bell.waited == [HALF_A_DAY] * 2


def test_a_failure_that_lasts_does_not_put_off_the_round_that_looks_at_everything(
    service: Service, bench: ReleaseBench
) -> None:
    bench.content.pop("cves")
    bell = Rests(*[nothing] * 5)

    service.run(bell, every=timedelta(seconds=3), retry=RetryTimes(shortest=1, longest=1))

    # Every third round fetches both.
    assert (bench.downloads["cves"], bench.downloads["more"]) == (6, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"every": timedelta(0)},
        {"every": timedelta.max},
        {"retry": RetryTimes(shortest=0)},
        {"retry": RetryTimes(shortest=2, longest=1)},
    ],
)
def test_times_that_make_no_sense_are_refused(service: Service, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        service.run(Rests(), **options)


def test_it_ends_at_once_where_it_waits_and_wakes_up_where_it_is_rung(service: Service) -> None:
    bell, done = Bell(), threading.Semaphore(0)
    arguments = {"bell": bell, "heard": lambda outcome: done.release()}
    thread = threading.Thread(target=run, args=(service.manager,), kwargs=arguments)
    thread.start()
    done.acquire()
    bell.wake()
    done.acquire()
    bell.stop()
    thread.join(60)

    assert not thread.is_alive()


def test_several_rings_count_as_one_and_a_signal_handler_may_ring() -> None:
    bell = Bell()
    before = signal.signal(signal.SIGUSR1, lambda *_: bell.wake())
    try:
        bell.wake()
        signal.raise_signal(signal.SIGUSR1)
        assert bell.wait(60)
        assert not bell.wait(0)
    finally:
        signal.signal(signal.SIGUSR1, before)
