"""What hosts share is read from the database once: never longer than its row is what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from edge_day2 import InventoryService, OSResource
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.storage import open_inventory, report_context
from edge_day2.domain.maintenance import ReportContext
from edge_day2.ports.inventory import Inventory
from wire_server import TENANT, guid, image, settle


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


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = report_context._Remembered()
    monkeypatch.setattr(report_context, "_REMEMBERED_CHARACTERS", 1000)
    monkeypatch.setattr(report_context, "_remembered", remembered)
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        settle(inventory, 1)
        for _ in range(3):
            assert context_of(inventory).current_os is not None

    assert sum(len(content) for _, content in remembered._resources) <= 1000
