"""The events of an instance's changes tell as much as its last state does."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.domain.inventory_events import EventKind, events_of
from edge_day2.domain.resources import Instance, OSType
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    InventoryStatus,
    StatusDetail,
    UpdateLogEntry,
    UpdateRecord,
)
from edge_day2.testing.inventory_contents import START

FIRST = Instance(
    resource_id="inst-1",
    tenant_id="tenant",
    host_id="host-1",
    os_type=OSType.IMMUTABLE,
    current_os_id="a",
    desired_os_id="a",
)
TOLD = {
    EventKind.UPDATE_STARTED: InventoryStatus.UPDATE_IN_PROGRESS,
    EventKind.UPDATE_DONE: InventoryStatus.DONE,
    EventKind.UPDATE_FAILED: InventoryStatus.FAILED,
    EventKind.UPDATE_LOST: InventoryStatus.LOST,
}
STATES = st.builds(
    lambda current, desired, status, available: evolve(
        FIRST,
        current_os_id=current,
        desired_os_id=desired,
        update=UpdateRecord(status=status, text=status.text, timestamp=START),
        os_update_available=available,
    ),
    st.sampled_from("abc"),
    st.sampled_from("abc"),
    st.sampled_from(InventoryStatus),
    st.sampled_from(["", "newer"]),
)


@given(states=st.lists(STATES, min_size=1, max_size=12))
def test_who_follows_the_events_knows_links_and_the_status_that_was_told_last(states: list[Instance]) -> None:
    current = desired = FIRST.current_os_id
    status, expected = InventoryStatus.UNKNOWN, InventoryStatus.UNKNOWN
    for old, new in zip([FIRST, *states], states, strict=False):
        if new.update.status in TOLD.values():
            expected = new.update.status
        for event in events_of(old, new, START):
            detail = dict(event.detail)
            match event.kind:
                case EventKind.CURRENT_OS_CHANGED:
                    assert detail["from"] == current
                    current = detail["to"]
                case EventKind.DESIRED_OS_CHANGED:
                    assert detail["from"] == desired
                    desired = detail["to"]
                case _:
                    status = TOLD[event.kind]

    assert (current, desired) == (states[-1].current_os_id, states[-1].desired_os_id)
    assert status is expected


@given(state=STATES)
def test_what_stays_as_it_is_is_no_event(state: Instance) -> None:
    assert list(events_of(state, state, START)) == []


def test_a_failed_update_that_was_rolled_back_later_is_told_twice_with_reason_and_status() -> None:
    def failure(status: EntryStatus) -> Instance:
        entry = UpdateLogEntry(
            package_name="", update_time=START, status=status, failure_reason=FailureReason.BOOTLOADER_FAIL
        )
        detail = StatusDetail(update_log=(entry,)).to_json()
        record = UpdateRecord(status=InventoryStatus.FAILED, text="Update failed", timestamp=START, detail=detail)
        return evolve(FIRST, update=record)

    failed, rolled_back = failure(EntryStatus.FAILED), failure(EntryStatus.ROLLED_BACK)

    found = [*events_of(FIRST, failed, START), *events_of(failed, rolled_back, START)]

    assert [event.kind for event in found] == [EventKind.UPDATE_FAILED] * 2
    assert [dict(event.detail)["status"] for event in found] == ["failed", "rolledback"]
    assert {dict(event.detail)["reason"] for event in found} == {"bootloader"}
