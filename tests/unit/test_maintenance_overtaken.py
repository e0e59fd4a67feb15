"""Between the reading that finds something to record and the transaction that records it, others may write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

import pytest
from attrs import evolve

from edge_day2 import MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.maintenance_manager import Report
from edge_day2.domain.resources import Instance, OSUpdateRun
from edge_day2.domain.statuses import InventoryStatus, UpdateStatusType
from edge_day2.ports.inventory import Inventory, UnitOfWork
from wire_server import TENANT, guid, says, settle

STARTED, UPDATED, FAILED = UpdateStatusType.STARTED, UpdateStatusType.UPDATED, UpdateStatusType.FAILED
DOWNLOADING = UpdateStatusType.DOWNLOADING


class CountedReads:
    """A unit of work that counts the contexts that it reads one by one."""

    def __init__(self, unit: UnitOfWork, read: list[str]) -> None:
        self._unit, self._read = unit, read

    def __getattr__(self, name: str) -> object:
        if name == "report_context":
            self._read.append(name)
        return getattr(self._unit, name)


class Overtaken:
    """An Inventory in which somebody else comes first whenever a transaction that writes is begun."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.come_first: list[Callable[[], object]] = []
        self.contexts_read: list[str] = []

    @contextmanager
    def reading(self) -> Iterator[UnitOfWork]:
        with self.inventory.reading() as unit:
            yield self._counted(unit)

    @contextmanager
    def writing(self) -> Iterator[UnitOfWork]:
        if self.come_first:
            self.come_first.pop(0)()
        with self.inventory.writing() as unit:
            yield self._counted(unit)

    def _counted(self, unit: UnitOfWork) -> UnitOfWork:
        counted: object = CountedReads(unit, self.contexts_read)
        return counted  # type: ignore[return-value]  # by __getattr__

    def turn(self, name: str) -> AbstractContextManager[bool]:
        return self.inventory.turn(name)

    def close(self) -> None:
        self.inventory.close()

    def __enter__(self) -> Overtaken:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@pytest.fixture
def inventory() -> Iterator[Overtaken]:
    with open_inventory("memory://") as opened:
        settle(opened, 3)
        yield Overtaken(opened)


@pytest.fixture
def manager(inventory: Overtaken) -> MaintenanceManager:
    return MaintenanceManager(inventory, clock=SystemClock())


@pytest.fixture
def somebody(inventory: Overtaken) -> MaintenanceManager:
    """Another manager on the same Inventory, in whose way nobody is."""
    return MaintenanceManager(inventory.inventory, clock=SystemClock())


def instance(inventory: Overtaken, number: int = 0) -> Instance:
    with inventory.inventory.reading() as unit:
        found = unit.instance_of_host(TENANT, unit.host_by_guid(TENANT, guid(number)).resource_id)
    assert found is not None
    return found


def runs(inventory: Overtaken, number: int = 0) -> tuple[OSUpdateRun, ...]:
    found = instance(inventory, number)
    with inventory.inventory.reading() as unit:
        return unit.runs_of_instance(TENANT, found.resource_id)


def test_a_report_that_changes_something_is_read_once(manager: MaintenanceManager, inventory: Overtaken) -> None:
    manager.platform_update_status(says(STARTED, 0), tenant=TENANT)

    assert inventory.contexts_read == ["report_context"]
    assert instance(inventory).update.status is InventoryStatus.UPDATE_IN_PROGRESS


@pytest.mark.parametrize("together", [False, True])
def test_what_somebody_else_changed_meanwhile_is_kept(
    manager: MaintenanceManager, inventory: Overtaken, *, together: bool
) -> None:
    def take_note() -> None:
        found = instance(inventory)
        with inventory.inventory.writing() as unit:
            unit.replace(found, evolve(found, existing_cves="[]"))

    inventory.come_first = [take_note]

    if together:
        manager.answer_each([Report(tenant=TENANT, request=says(STARTED, 0))])
    else:
        manager.platform_update_status(says(STARTED, 0), tenant=TENANT)

    found = instance(inventory)
    assert (found.existing_cves, found.update.status) == ("[]", InventoryStatus.UPDATE_IN_PROGRESS)
    assert len(runs(inventory)) == 1


def test_a_run_that_somebody_else_ended_meanwhile_is_not_ended_again(
    manager: MaintenanceManager, somebody: MaintenanceManager, inventory: Overtaken
) -> None:
    somebody.platform_update_status(says(STARTED, 0), tenant=TENANT)
    inventory.come_first = [lambda: somebody.platform_update_status(says(FAILED, 0), tenant=TENANT)]

    manager.platform_update_status(says(FAILED, 0), tenant=TENANT)

    (run,) = runs(inventory)
    assert run.end_time is not None
    assert run.update == instance(inventory).update


def test_no_run_is_opened_for_what_is_over_meanwhile(
    manager: MaintenanceManager, somebody: MaintenanceManager, inventory: Overtaken
) -> None:
    somebody.platform_update_status(says(DOWNLOADING, 0), tenant=TENANT)
    (run,) = runs(inventory)
    with inventory.inventory.writing() as unit:
        unit.delete(run)

    def update_and_fail() -> None:
        for kind in (STARTED, FAILED):
            somebody.platform_update_status(says(kind, 0), tenant=TENANT)

    inventory.come_first = [update_and_fail]

    # The instance is DOWNLOADING already: alone, this opens the run that is missing and changes nothing else.
    manager.platform_update_status(says(DOWNLOADING, 0), tenant=TENANT)

    assert runs(inventory)[0].update == instance(inventory).update


def test_reports_of_one_host_in_a_batch_build_on_each_other(manager: MaintenanceManager, inventory: Overtaken) -> None:
    said = [(STARTED, 0), (STARTED, 1), (UPDATED, 0), (FAILED, 1), (STARTED, 0)]

    manager.platform_update_statuses(Report(tenant=TENANT, request=says(kind, number)) for kind, number in said)

    assert [run.end_time is None for run in runs(inventory, 0)] == [True, False]
    assert [run.update.status for run in runs(inventory, 1)] == [InventoryStatus.FAILED]
    assert len(inventory.contexts_read) == 3
