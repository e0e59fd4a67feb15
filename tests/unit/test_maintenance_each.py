"""Several reports at once: each is answered as it would be alone, and reading is shared."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest
from attrs import evolve

from edge_day2 import MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc.answers import Answers
from edge_day2.adapters.grpc.conversion import decode_response, encode_request
from edge_day2.adapters.grpc.report_workers import Refusal
from edge_day2.adapters.grpc.tokens import Caller
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.maintenance_manager import Report
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse
from edge_day2.domain.resources import Instance, OSType, OSUpdateRun
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import NotFound, StorageError
from edge_day2.ports.inventory import Inventory, UnitOfWork
from wire_server import OTHER_TENANT, TENANT, guid, says, settle

STARTED, IDLE = UpdateStatusType.STARTED, UpdateStatusType.UP_TO_DATE


class Counting:
    """An Inventory that counts transactions and can be made to fail."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.reads = self.writes = 0
        self.broken = False

    @contextmanager
    def reading(self) -> Iterator[UnitOfWork]:
        self.reads += 1
        if self.broken:
            raise StorageError("the disk is gone")
        with self.inventory.reading() as unit:
            yield unit

    @contextmanager
    def writing(self) -> Iterator[UnitOfWork]:
        self.writes += 1
        with self.inventory.writing() as unit:
            yield unit

    def turn(self, name: str) -> AbstractContextManager[bool]:
        return self.inventory.turn(name)

    def close(self) -> None:
        self.inventory.close()

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def inventory() -> Iterator[Counting]:
    with open_inventory("memory://") as opened:
        settle(opened, 11)
        yield Counting(opened)


@pytest.fixture
def manager(inventory: Counting) -> MaintenanceManager:
    return MaintenanceManager(inventory, clock=SystemClock())


def report(kind: UpdateStatusType, number: int, tenant: str = TENANT) -> Report:
    return Report(tenant=tenant, request=says(kind, number))


def test_each_report_is_answered_as_it_is_alone(manager: MaintenanceManager) -> None:
    reports = [report(IDLE, 0), report(STARTED, 1), report(IDLE, 1000), report(IDLE, 2, OTHER_TENANT)]

    first, second, third, fourth = manager.answer_each(reports)

    assert first == manager.platform_update_status(reports[0].request, tenant=TENANT)
    assert second == manager.platform_update_status(reports[1].request, tenant=TENANT)
    assert isinstance(third, NotFound)
    assert isinstance(fourth, NotFound)


def test_reports_that_change_nothing_share_one_reading_and_write_nothing(
    manager: MaintenanceManager, inventory: Counting
) -> None:
    reports = [report(IDLE, number) for number in range(3)]
    manager.answer_each(reports)
    inventory.reads = inventory.writes = 0

    manager.answer_each(reports)

    assert (inventory.reads, inventory.writes) == (1, 0)


def test_each_report_that_changes_something_is_stored_on_its_own(
    manager: MaintenanceManager, inventory: Counting
) -> None:
    manager.answer_each([report(STARTED, 0), report(IDLE, 1000), report(STARTED, 1), report(STARTED, 1)])

    with inventory.reading() as unit:
        runs = list(unit.all(OSUpdateRun, TENANT))
        updating = [one for one in unit.all(Instance, TENANT) if one.update.text == "Updating"]
    assert len(runs) == len(updating) == 2
    assert inventory.writes == 3


def test_what_a_host_says_after_a_report_that_is_to_be_stored_is_not_judged_by_what_was_before(
    manager: MaintenanceManager, inventory: Counting
) -> None:
    updated = UpdateStatusType.UPDATED
    manager.answer_each([report(STARTED, 0), report(updated, 0)])
    manager.answer_each([report(STARTED, 0), report(updated, 0)])

    with inventory.reading() as unit:
        runs = list(unit.all(OSUpdateRun, TENANT))
        texts = [one.update.text for one in unit.all(Instance, TENANT) if one.update.text != ""]
    assert [run.end_time is not None for run in runs] == [True, True]
    assert "Updating" not in texts


def test_an_inventory_that_can_not_be_read_answers_none(manager: MaintenanceManager, inventory: Counting) -> None:
    inventory.broken = True

    with pytest.raises(StorageError):
        manager.answer_each([report(IDLE, 0), report(IDLE, 1)])


def test_no_reports_at_all_have_no_answers(manager: MaintenanceManager) -> None:
    assert manager.answer_each([]) == []


class Spoiled(MaintenanceManager):
    """A Maintenance Manager with a mistake that one kind of report meets."""

    def platform_update_status(self, request: object, *, tenant: str) -> PlatformUpdateStatusResponse:
        if request == says(STARTED, 1):
            raise ZeroDivisionError
        return PlatformUpdateStatusResponse(os_type=OSType.MUTABLE)

    def answer_each(self, reports: object) -> list[PlatformUpdateStatusResponse]:  # type: ignore[override]
        raise ZeroDivisionError


def test_a_report_that_meets_a_mistake_spoils_no_other(inventory: Counting) -> None:
    caller = Caller(tenant=TENANT)
    contents = [encode_request(says(STARTED, number)) for number in range(3)]

    outcomes = Answers(Spoiled(inventory, clock=SystemClock())).answer([(caller, content) for content in contents])

    assert [outcome.code if isinstance(outcome, Refusal) else "" for outcome in outcomes] == ["", "INTERNAL", ""]


def test_outcomes_come_in_the_order_of_their_reports(manager: MaintenanceManager) -> None:
    good, bound = Caller(tenant=TENANT), Caller(tenant=TENANT, host_guid="another")
    content = encode_request(says(IDLE, 0))

    answer, denied, garbage, missing = Answers(manager).answer(
        [(good, content), (bound, content), (good, b"\xff"), (evolve(good, tenant=OTHER_TENANT), content)]
    )

    assert isinstance(answer, bytes)
    assert decode_response(answer).os_type is OSType.IMMUTABLE
    codes = [outcome.code for outcome in (denied, garbage, missing) if isinstance(outcome, Refusal)]
    assert codes == ["PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND"]


def test_an_answer_that_can_not_be_said_is_the_servers_mistake(inventory: Counting) -> None:
    class Unsayable(MaintenanceManager):
        def platform_update_status(self, request: object, *, tenant: str) -> PlatformUpdateStatusResponse:
            return PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, installed_packages="\ud800")

    content = encode_request(says(IDLE, 0))
    (outcome,) = Answers(Unsayable(inventory, clock=SystemClock())).answer([(Caller(tenant=TENANT), content)])

    assert isinstance(outcome, Refusal)
    assert outcome.code == "INTERNAL"


class Slow(MaintenanceManager):
    """A Maintenance Manager that records STARTED when it is let, and everything else at once."""

    def __init__(self, inventory: Inventory) -> None:
        super().__init__(inventory, clock=SystemClock())
        self.entered, self.open = threading.Event(), threading.Event()

    def platform_update_status(
        self, request: PlatformUpdateStatusRequest, *, tenant: str
    ) -> PlatformUpdateStatusResponse:
        if request.update_status.status_type is STARTED:
            self.entered.set()
            assert self.open.wait(120)
        return super().platform_update_status(request, tenant=tenant)


def test_a_report_that_a_thread_still_holds_is_never_recorded_after_the_next_one_of_its_host(
    inventory: Counting,
) -> None:
    manager, caller = Slow(inventory), Caller(tenant=TENANT)
    answers = Answers(manager)

    def say(*reports: PlatformUpdateStatusRequest) -> list[str]:
        outcomes = answers.answer([(caller, encode_request(one)) for one in reports])
        return [outcome.code if isinstance(outcome, Refusal) else "" for outcome in outcomes]

    upper = evolve(says(IDLE, 10), host_guid=guid(10).upper())
    with ThreadPoolExecutor(1) as agents:
        given_up = agents.submit(say, says(STARTED, 10))
        assert manager.entered.wait(120)

        meanwhile = say(says(UpdateStatusType.UPDATED, 10), says(IDLE, 1), upper)
        manager.open.set()
        assert (meanwhile, given_up.result(120)) == (["ABORTED", "", "ABORTED"], [""])
    assert say(says(UpdateStatusType.UPDATED, 10), says(IDLE, 10)) == ["", ""]
    with inventory.reading() as unit:
        assert [run.end_time is not None for run in unit.all(OSUpdateRun, TENANT)] == [True]


def test_a_mistake_leaves_no_host_at_work(inventory: Counting) -> None:
    answers, content = Answers(Spoiled(inventory, clock=SystemClock())), encode_request(says(STARTED, 1))

    outcomes = [answers.answer([(Caller(tenant=TENANT), content)])[0] for _ in range(2)]

    assert [outcome.code for outcome in outcomes if isinstance(outcome, Refusal)] == ["INTERNAL", "INTERNAL"]
