"""What hosts share is read from the database once: never longer than its row is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from edge_day2 import (
    Instance,
    InventoryService,
    MaintenanceManager,
    OSResource,
    OSType,
    PlatformUpdateStatusResponse,
    RepeatedSchedule,
)
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.storage import open_inventory, report_context
from edge_day2.application.maintenance_manager import Report
from edge_day2.domain.maintenance import ReportContext
from edge_day2.domain.messages import UpdateSchedule
from edge_day2.domain.resources import Host, ScheduleResource, ScheduleTarget, Site, TargetLevel
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.ports.inventory import Inventory
from wire_server import OTHER_TENANT, TENANT, guid, image, says, settle


def context_of(inventory: Inventory) -> ReportContext:
    with inventory.reading() as unit:
        return unit.report_context(TENANT, guid(0))


def test_a_resource_that_did_not_change_is_the_same_object(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        settle(inventory, 2)

        assert context_of(inventory).current_os is context_of(inventory).current_os


def test_a_resource_that_somebody_else_changed_is_read_as_it_is_now(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as inventory, open_inventory(url) as elsewhere:
        settle(inventory, 1)
        before = context_of(inventory)
        with elsewhere.writing() as unit:
            old = unit.get(OSResource, TENANT, image(1).resource_id)
            unit.replace(old, evolve(old, description="changed"))

        after = context_of(inventory)

    assert before.current_os is not None
    assert after.current_os is not None
    assert (before.current_os.description, after.current_os.description) == ("", "changed")


def test_a_new_schedule_is_seen_by_the_next_report(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        settle(inventory, 1)
        before = context_of(inventory)
        first = before.schedules[0]
        InventoryService(inventory, clock=SystemClock()).add_schedule(
            TENANT, "more", first.schedule, target=first.target
        )

        assert len(context_of(inventory).schedules) == len(before.schedules) + 1


def test_what_an_admin_changes_elsewhere_is_in_the_answer_to_the_next_report(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as inventory, open_inventory(url) as elsewhere:
        settle(inventory, 1)
        manager = MaintenanceManager(inventory, clock=SystemClock())
        admin = InventoryService(elsewhere, clock=SystemClock())

        def answer() -> PlatformUpdateStatusResponse:
            report = Report(tenant=TENANT, request=says(UpdateStatusType.UP_TO_DATE))
            alone = manager.platform_update_status(report.request, tenant=TENANT)
            assert manager.answer_each([report, report]) == [alone, alone]
            return alone

        before = answer()
        with elsewhere.reading() as unit:
            (instance,) = unit.all(Instance, TENANT)
            (schedule,) = unit.all(ScheduleResource, TENANT)
        admin.link_desired_os(TENANT, instance.resource_id, image(1).resource_id)
        linked = answer()
        with elsewhere.writing() as unit:
            unit.replace(schedule, evolve(schedule, schedule=RepeatedSchedule(hours="3")))
        moved = answer()
        with elsewhere.writing() as unit:
            unit.delete(evolve(schedule, schedule=RepeatedSchedule(hours="3")))
        closed = answer()
        admin.link_desired_os(TENANT, instance.resource_id, image(2).resource_id)
        again = answer()

    assert [one.os_profile_update_source for one in (before, again)] == [before.os_profile_update_source] * 2
    assert linked.os_profile_update_source != before.os_profile_update_source
    assert moved.update_schedule.repeated_schedules == (RepeatedSchedule(hours="3"),)
    assert closed.update_schedule == again.update_schedule == UpdateSchedule()


def test_two_tenants_whose_resources_have_the_same_ids_are_never_mixed(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        for tenant in (TENANT, OTHER_TENANT):
            whose: dict[str, Any] = {"tenant_id": tenant}
            with inventory.writing() as unit:
                unit.add_all(
                    [
                        Site(resource_id="site", name="site", **whose),
                        evolve(image(1), resource_id="os", image_url=f"files/{tenant}.raw.gz", **whose),
                        Host(resource_id="host", guid=guid(0), name="node", site_id="site", **whose),
                        Instance(
                            resource_id="inst",
                            host_id="host",
                            os_type=OSType.IMMUTABLE,
                            current_os_id="os",
                            desired_os_id="os",
                            **whose,
                        ),
                        ScheduleResource(
                            resource_id="schedule",
                            name="when",
                            schedule=RepeatedSchedule(hours=tenant[0]),
                            target=ScheduleTarget(level=TargetLevel.SITE, resource_id="site"),
                            **whose,
                        ),
                    ]
                )
        manager = MaintenanceManager(inventory, clock=SystemClock())
        asked = [TENANT, OTHER_TENANT] * 3
        reports = [Report(tenant=tenant, request=says(UpdateStatusType.UP_TO_DATE)) for tenant in asked]
        alone = [manager.platform_update_status(one.request, tenant=one.tenant) for one in reports]

        assert manager.answer_each(reports) == alone

    for tenant, answer in zip(asked, alone, strict=True):
        assert answer.os_profile_update_source is not None
        assert answer.os_profile_update_source.os_image_url == f"files/{tenant}.raw.gz"
        assert answer.update_schedule.repeated_schedules == (RepeatedSchedule(hours=tenant[0]),)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = report_context._Remembered()
    monkeypatch.setattr(report_context, "_REMEMBERED_CHARACTERS", 1000)
    monkeypatch.setattr(report_context, "_remembered", remembered)
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        settle(inventory, 1)
        for _ in range(3):
            assert context_of(inventory).current_os is not None

    assert sum(len(content) for _, content in remembered._resources) <= 1000
