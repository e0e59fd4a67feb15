"""Whatever reports come, in whatever order: the rules hold, and the next truth is heard."""

from __future__ import annotations

from datetime import timedelta

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import Instance, OSUpdateRun
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    InventoryStatus,
    StatusDetail,
    UpdateLogEntry,
    UpdateStatusType,
)
from report_fleet import EDGE, NOW, UBUNTU, Fleet, image

S = UpdateStatusType
PROFILE = ("3.0.1", "3.0.2", "3.0.3")


@frozen
class Said:
    """A report, and how long after the one before it comes."""

    kind: UpdateStatusType
    profile: str
    image: str
    detail: str
    pause: int


def entry(minute: int, status: EntryStatus) -> str:
    reason = FailureReason.NO_FAILURE if status is EntryStatus.INSTALLED else FailureReason.BOOTLOADER_FAIL
    found = UpdateLogEntry(
        package_name="os", update_time=NOW + timedelta(minutes=minute), status=status, failure_reason=reason
    )
    return StatusDetail(update_log=(found,)).to_json()


details = st.just("") | st.builds(entry, st.integers(0, 5), st.sampled_from(EntryStatus))
images = st.sampled_from(
    [("", ""), ("kiosk", "3.0.5"), ("edge", "9.9.9"), ("", "3.0.2"), *(("edge", one) for one in PROFILE)]
)
reports = st.builds(
    lambda kind, named, detail, pause: Said(kind, named[0], named[1], detail, pause),
    st.sampled_from(UpdateStatusType),
    images,
    details,
    st.sampled_from([0, 20, 130, -300]),
)
sequences = st.lists(reports, max_size=12)
guids = st.sampled_from([EDGE, UBUNTU])


def say(fleet: Fleet, guid: str, said: Said) -> None:
    fleet.clock.later(seconds=said.pause)
    words = {"profile_name": said.profile, "os_image_id": said.image, "status_detail": said.detail}
    fleet.report(guid, said.kind, **words)


def recorded(fleet: Fleet, guid: str) -> tuple[Instance, dict[str, OSUpdateRun]]:
    return fleet.instance(guid), {run.resource_id: run for run in fleet.runs(guid)}


def check_step(said: Said, before: tuple[Instance, dict[str, OSUpdateRun]], fleet: Fleet, guid: str) -> None:
    instance, runs = recorded(fleet, guid)
    was, earlier = before
    assert sum(run.end_time is None for run in runs.values()) <= 1
    assert earlier.keys() <= runs.keys()
    for key, run in earlier.items():
        if run.end_time is not None and runs[key] != run:
            amended = runs[key].update.status is run.update.status is InventoryStatus.FAILED
            assert runs[key].end_time is not None
            assert amended
            assert said.kind is S.FAILED
    if instance.current_os_id != was.current_os_id:
        assert guid == EDGE
        assert said.kind in (S.UPDATED, S.UP_TO_DATE)
        assert (said.profile, instance.current_os_id) == ("edge", f"os-{said.image[-1]}")
    if (instance.update.status, instance.update.text.partition("; ")[0]) == (was.update.status, was.update.text):
        assert instance.update.timestamp == was.update.timestamp


@given(guids, sequences)
def test_runs_and_current_os_keep_their_rules_whatever_is_reported(guid: str, said: list[Said]) -> None:
    with open_inventory("memory://") as inventory:
        fleet = Fleet(inventory)
        fleet.add(image(3), image(5, profile_name="kiosk"))
        for one in said:
            before = recorded(fleet, guid)
            say(fleet, guid, one)
            check_step(one, before, fleet, guid)


@given(guids, sequences, reports)
def test_the_same_report_twice_is_the_same_as_once(guid: str, said: list[Said], last: Said) -> None:
    with open_inventory("memory://") as inventory:
        fleet = Fleet(inventory)
        fleet.add(image(3))
        for one in (*said, last):
            say(fleet, guid, one)
        before, fleet.inventory.written = recorded(fleet, guid), 0

        say(fleet, guid, Said(last.kind, last.profile, last.image, last.detail, 1))

        assert recorded(fleet, guid) == before
        assert fleet.inventory.written == 0


@given(sequences, st.sampled_from(PROFILE))
def test_a_node_at_rest_is_recorded_as_it_is_after_a_few_minutes(said: list[Said], running: str) -> None:
    with open_inventory("memory://") as inventory:
        fleet = Fleet(inventory)
        fleet.add(image(3))
        for one in said:
            say(fleet, EDGE, one)
        # More than the clock was put back by.
        fleet.clock.later(hours=2)
        for _ in range(3):
            say(fleet, EDGE, Said(S.UP_TO_DATE, "edge", running, "", 130))

        instance, runs = recorded(fleet, EDGE)

    assert instance.current_os_id == f"os-{running[-1]}"
    assert instance.update.text == "No new updates available"
    assert all(run.end_time is not None for run in runs.values())
