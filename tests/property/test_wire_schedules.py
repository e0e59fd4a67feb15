"""A node that follows what it was sent, against the schedules as they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.messages import UpdateSchedule
from edge_day2.domain.resources import ScheduleResource
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind
from edge_day2.domain.wire_schedules import update_schedule
from edge_day2.testing.schedule_strategies import repeated_schedules, single_schedules

_FIRST = datetime(2025, 12, 30, tzinfo=UTC)
_KINDS = (ScheduleKind.OS_UPDATE, ScheduleKind.OS_UPDATE, ScheduleKind.BLACKOUT, ScheduleKind.SHIPPING)
_zones = st.sampled_from(("UTC", "UTC", "Europe/Warsaw"))


@st.composite
def _resources(draw: st.DrawFn) -> tuple[ScheduleResource, ...]:
    drawn = draw(
        st.lists(
            st.tuples(st.one_of(repeated_schedules(_zones), single_schedules()), st.sampled_from(_KINDS)), max_size=5
        )
    )
    return tuple(
        ScheduleResource(resource_id=str(place), tenant_id="t", name="n", schedule=schedule, kind=kind)
        for place, (schedule, kind) in enumerate(drawn)
    )


def _is_open(sent: UpdateSchedule, instant: datetime) -> bool:
    schedules: list[Schedule] = [*sent.repeated_schedules]
    if sent.single_schedule is not None:
        schedules.append(sent.single_schedule)
    return any(schedule.window_at(instant) is not None for schedule in schedules)


@settings(max_examples=300, deadline=None)
@given(_resources(), st.integers(0, 8 * 86_400), st.lists(st.integers(0, 34 * 86_400), max_size=10))
def test_a_node_is_open_when_its_schedules_are_and_a_silent_one_stays_out_of_blackouts(
    resources: tuple[ScheduleResource, ...], second: int, later: list[int]
) -> None:
    now = _FIRST + timedelta(seconds=second)
    joint = JointSchedule(
        [resource.schedule for resource in resources if resource.kind is ScheduleKind.OS_UPDATE],
        [resource.schedule for resource in resources if resource.kind is ScheduleKind.BLACKOUT],
    )

    sent = update_schedule(resources, now, frozenset({ScheduleKind.OS_UPDATE}))

    assert all(isinstance(found, RepeatedSchedule) and found.time_zone == "UTC" for found in sent.repeated_schedules)
    assert _is_open(sent, now) == joint.is_open(now)
    for seconds in later:
        instant = now + timedelta(seconds=seconds)
        assert not _is_open(sent, instant) or joint.is_open(instant)
