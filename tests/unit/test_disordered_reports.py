"""Reports twice, out of order, late, and of nodes that aren't what the Inventory thinks; docs/reports.md tells of them.

The node of these tests runs image 3.0.1 and should run 3.0.2. The Maintenance Manager hears what the network brings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2.adapters.storage import open_inventory
from edge_day2.application.inventory_service import InventoryService
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    InventoryStatus,
    StatusDetail,
    UpdateLogEntry,
    UpdateStatusType,
)
from report_fleet import EDGE, NOW, TENANT, UBUNTU, Fleet, image

S, Recorded = UpdateStatusType, InventoryStatus
OLD: dict[str, str] = {"profile_name": "edge", "os_image_id": "3.0.1"}
NEW: dict[str, str] = {"profile_name": "edge", "os_image_id": "3.0.2"}


@pytest.fixture
def fleet(caplog: pytest.LogCaptureFixture) -> Iterator[Fleet]:
    caplog.set_level(logging.INFO, "edge_day2")
    with open_inventory("memory://") as inventory:
        yield Fleet(inventory)


def log(minute: int, **changes: Any) -> str:
    entry = UpdateLogEntry(package_name="os", update_time=NOW + timedelta(minutes=minute))
    return StatusDetail(update_log=(evolve(entry, **changes),)).to_json()


def failure(minute: int, status: EntryStatus = EntryStatus.FAILED) -> str:
    return log(minute, status=status, failure_reason=FailureReason.BOOTLOADER_FAIL, failure_log="no boot")


def runs(fleet: Fleet, guid: str = EDGE) -> list[tuple[InventoryStatus, bool]]:
    """Return status and whether it has ended of each run, oldest first."""
    return [(run.update.status, run.end_time is not None) for run in reversed(fleet.runs(guid))]


def state(fleet: Fleet, guid: str = EDGE) -> tuple[InventoryStatus, str]:
    found = fleet.instance(guid)
    return found.update.status, found.current_os_id


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["event"] for record in caplog.records]


def test_what_is_said_twice_is_recorded_and_logged_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    for kind, words in ((S.STARTED, OLD), (S.UPDATED, {**NEW, "status_detail": log(1)}), (S.UP_TO_DATE, NEW)):
        for _ in range(3):
            fleet.report(EDGE, kind, **words)

    assert (state(fleet), runs(fleet)) == ((Recorded.UP_TO_DATE, "os-2"), [(Recorded.DONE, True)])
    assert events(caplog) == ["update_began", "update_done", "current_os_recorded"]


def test_a_rollback_that_follows_a_failure_amends_its_run(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.report(EDGE, S.FAILED, status_detail=failure(1))
    for _ in range(2):
        fleet.report(EDGE, S.FAILED, status_detail=failure(1, EntryStatus.ROLLED_BACK))

    (run,) = fleet.runs(EDGE)
    assert run.update.detail == failure(1, EntryStatus.ROLLED_BACK)
    assert events(caplog) == ["update_began", "update_failed", "update_rolled_back"]


def test_a_late_started_from_the_image_before_is_not_recorded(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED, **OLD)
    fleet.report(EDGE, S.UPDATED, **NEW)
    fleet.report(EDGE, S.STARTED, **OLD)
    assert (state(fleet), runs(fleet)) == ((Recorded.DONE, "os-2"), [(Recorded.DONE, True)])

    fleet.report(EDGE, S.UP_TO_DATE, **NEW)
    for kind in (S.STARTED, S.DOWNLOADING, S.DOWNLOADED):
        fleet.report(EDGE, kind, **OLD)

    assert (state(fleet), runs(fleet)) == ((Recorded.UP_TO_DATE, "os-2"), [(Recorded.DONE, True)])


def test_a_node_that_was_put_back_and_begins_again_is_heard_when_no_report_can_be_that_late(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED, **OLD)
    fleet.report(EDGE, S.UPDATED, **NEW)
    fleet.clock.later(minutes=2)

    fleet.report(EDGE, S.STARTED, **OLD)

    assert runs(fleet) == [(Recorded.DONE, True), (Recorded.UPDATE_IN_PROGRESS, False)]


@pytest.mark.parametrize("words", [{}, NEW])
def test_a_late_started_that_tells_no_older_image_is_a_run_that_the_next_report_ends(
    fleet: Fleet, words: dict[str, str]
) -> None:
    fleet.report(EDGE, S.STARTED, **OLD)
    fleet.report(EDGE, S.UPDATED, **NEW)
    fleet.report(EDGE, S.STARTED, **words)
    assert runs(fleet) == [(Recorded.DONE, True), (Recorded.UPDATE_IN_PROGRESS, False)]

    fleet.report(EDGE, S.UP_TO_DATE, **NEW)

    assert (state(fleet), runs(fleet)) == (
        (Recorded.UP_TO_DATE, "os-2"),
        [(Recorded.DONE, True), (Recorded.UP_TO_DATE, True)],
    )


def test_an_updated_without_a_beginning_is_a_run_of_which_the_end_is_known(fleet: Fleet) -> None:
    for _ in range(2):
        fleet.report(EDGE, S.UPDATED, **NEW)

    assert (state(fleet), runs(fleet)) == ((Recorded.DONE, "os-2"), [(Recorded.DONE, True)])
    (run,) = fleet.runs(EDGE)
    assert (run.start_time, run.end_time, run.description) == (NOW, NOW, "OS update for edge 3.0.2")


@pytest.mark.parametrize(("guid", "words"), [(UBUNTU, {"status_detail": log(1)}), (EDGE, OLD), (EDGE, {})])
def test_an_updated_that_may_be_a_double_makes_no_run(fleet: Fleet, guid: str, words: dict[str, str]) -> None:
    fleet.report(guid, S.UPDATED, **words)

    assert (fleet.instance(guid).update.status, runs(fleet, guid)) == (Recorded.DONE, [])


@pytest.mark.parametrize("guid", [EDGE, UBUNTU])
@pytest.mark.parametrize(("kind", "detail"), [(S.UPDATED, log(1)), (S.FAILED, failure(1))])
def test_how_an_update_ended_is_not_recorded_after_the_failure_of_a_newer_one(
    fleet: Fleet, guid: str, kind: UpdateStatusType, detail: str
) -> None:
    fleet.report(guid, S.STARTED)
    fleet.report(guid, kind, status_detail=detail)
    fleet.clock.later(minutes=30)
    fleet.report(guid, S.STARTED)
    fleet.report(guid, S.FAILED, status_detail=failure(30))
    before = fleet.instance(guid), fleet.runs(guid)

    fleet.report(guid, kind, status_detail=detail)

    assert (fleet.instance(guid), fleet.runs(guid)) == before


@pytest.mark.parametrize("detail", ["", "no JSON", log(-30_000_000), '{"update_log": [{"status": "installed"}]}'])
def test_an_end_that_tells_no_time_counts_and_the_nodes_next_report_corrects_it(fleet: Fleet, detail: str) -> None:
    fleet.report(UBUNTU, S.STARTED)
    fleet.report(UBUNTU, S.FAILED, status_detail=failure(30))

    fleet.report(UBUNTU, S.UPDATED, status_detail=detail)
    assert state(fleet, UBUNTU)[0] is Recorded.DONE

    fleet.report(UBUNTU, S.FAILED, status_detail=failure(30))
    assert (state(fleet, UBUNTU)[0], runs(fleet, UBUNTU)) == (Recorded.FAILED, [(Recorded.FAILED, True)])


def test_a_late_idle_report_ends_the_run_and_the_node_opens_another(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED, **OLD)
    fleet.report(EDGE, S.UP_TO_DATE, **OLD)
    fleet.report(EDGE, S.UPDATED, **NEW)

    assert (state(fleet), runs(fleet)) == (
        (Recorded.DONE, "os-2"),
        [(Recorded.UP_TO_DATE, True), (Recorded.DONE, True)],
    )


def test_a_node_that_was_put_back_is_recorded_when_it_has_said_so_for_a_while(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.report(EDGE, S.STARTED, **OLD)
    fleet.report(EDGE, S.UPDATED, **NEW)
    fleet.report(EDGE, S.UP_TO_DATE, **NEW)
    fleet.clock.later(seconds=119)
    fleet.report(EDGE, S.UP_TO_DATE, **OLD)
    assert state(fleet) == (Recorded.UP_TO_DATE, "os-2")
    caplog.clear()

    fleet.clock.later(seconds=1)
    for _ in range(2):
        fleet.report(EDGE, S.UP_TO_DATE, **OLD)

    assert (state(fleet), runs(fleet)) == ((Recorded.UP_TO_DATE, "os-1"), [(Recorded.DONE, True)])
    assert fleet.instance(EDGE).os_update_available == "edge 3.0.2"
    assert events(caplog) == ["current_os_corrected"]


def test_a_node_that_was_installed_anew_with_the_desired_image_is_recorded(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UP_TO_DATE, **NEW)
    fleet.clock.later(minutes=2)

    fleet.report(EDGE, S.UP_TO_DATE, **NEW)

    assert (state(fleet), runs(fleet)) == ((Recorded.UP_TO_DATE, "os-2"), [])
    assert fleet.instance(EDGE).update.timestamp == NOW


@pytest.mark.parametrize("os_type", ["immutable", "mutable"])
def test_a_node_of_another_profile_is_a_conflict_that_is_said_once(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, os_type: str
) -> None:
    guid, os = (EDGE, "os-1") if os_type == "immutable" else (UBUNTU, "os-9")
    fleet.add(image(5, profile_name="kiosk"))
    for kind in (S.UP_TO_DATE, S.UP_TO_DATE, S.UPDATED, S.UPDATED, S.FAILED, S.UP_TO_DATE):
        fleet.report(guid, kind, profile_name="kiosk", os_image_id="3.0.5")
        fleet.clock.later(hours=1)

    assert state(fleet, guid) == (Recorded.UP_TO_DATE, os)
    assert "the node runs image '3.0.5' of profile 'kiosk'" in fleet.instance(guid).update.text
    assert events(caplog).count("os_conflict") == 1
    assert "current_os_recorded" not in events(caplog)


def test_a_conflict_ends_when_the_node_runs_its_profile_again(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UP_TO_DATE, profile_name="kiosk", os_image_id="3.0.5")

    fleet.report(EDGE, S.UP_TO_DATE, **OLD)

    assert fleet.instance(EDGE).update.text == "No new updates available"


def test_a_conflict_is_what_an_admin_is_told(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UP_TO_DATE, profile_name="kiosk", os_image_id="3.0.5")

    told = InventoryService(fleet.inventory, clock=fleet.clock).explain(TENANT, EDGE)

    assert told == (
        "the node runs image '3.0.5' of profile 'kiosk', its current OS has profile 'edge'; "
        "not updated: no schedule applies"
    )


def test_an_image_is_recorded_when_its_os_resource_comes_after_it(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    words = {"profile_name": "edge", "os_image_id": "3.0.3"}
    fleet.report(EDGE, S.STARTED, **OLD)
    fleet.report(EDGE, S.UPDATED, **words)
    fleet.report(EDGE, S.UP_TO_DATE, **words)
    assert (state(fleet), runs(fleet)) == ((Recorded.UP_TO_DATE, "os-1"), [(Recorded.DONE, True)])
    assert fleet.instance(EDGE).update.text.endswith("of which there is no OS Resource")

    fleet.add(image(3))
    fleet.clock.later(minutes=2)
    for _ in range(2):
        fleet.report(EDGE, S.UP_TO_DATE, **words)

    assert (state(fleet), runs(fleet)) == ((Recorded.UP_TO_DATE, "os-3"), [(Recorded.DONE, True)])
    assert fleet.instance(EDGE).update.text == "No new updates available"
    assert events(caplog) == ["update_began", "update_done", "os_conflict", "current_os_corrected"]


def test_a_new_agent_without_a_journal_ends_the_run_of_the_one_before(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED, **OLD)

    fleet.report(EDGE, S.UP_TO_DATE, **OLD)

    assert (state(fleet), runs(fleet)) == ((Recorded.UP_TO_DATE, "os-1"), [(Recorded.UP_TO_DATE, True)])


def test_a_new_agent_without_a_journal_on_the_new_image_is_recorded(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED, **OLD)
    fleet.report(EDGE, S.UP_TO_DATE, **NEW)
    assert state(fleet) == (Recorded.UP_TO_DATE, "os-1")
    fleet.clock.later(minutes=2)

    fleet.report(EDGE, S.UP_TO_DATE, **NEW)

    assert state(fleet) == (Recorded.UP_TO_DATE, "os-2")


def test_a_clock_that_was_put_back_corrects_nothing(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UP_TO_DATE, **OLD)
    fleet.clock.later(hours=-1)

    fleet.report(EDGE, S.UP_TO_DATE, **NEW)
    assert state(fleet) == (Recorded.UP_TO_DATE, "os-1")


def test_a_clock_that_was_put_back_makes_no_report_late(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UPDATED, **NEW)
    fleet.clock.later(hours=-1)

    fleet.report(EDGE, S.STARTED, **OLD)

    assert sorted(ended for _, ended in runs(fleet)) == [False, True]


def test_a_failure_whose_beginning_was_not_heard_amends_no_update_that_ended_well(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.report(EDGE, S.UP_TO_DATE)
    before = fleet.runs(EDGE)

    fleet.report(EDGE, S.FAILED)
    fleet.report(EDGE, S.FAILED, status_detail=failure(1))

    assert fleet.runs(EDGE) == before
