"""The schedule book by example: inheritance, blackouts, fleet questions, big and odd fleets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.resources import Host, Region, ScheduleResource, ScheduleTarget, Site, TargetLevel
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind, SingleSchedule, Window
from edge_day2.errors import InvalidResource, InvalidSchedule, NotFound

TENANT = "tenant"
NIGHTLY = RepeatedSchedule("0", "2", day_week="*")
CHRISTMAS = SingleSchedule(datetime(2026, 12, 20, tzinfo=UTC), datetime(2027, 1, 3, tzinfo=UTC))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def host(number: int, site_id: str | None = "site") -> Host:
    guid = f"00000000-0000-0000-0000-{number:012x}"
    return Host(resource_id=f"host-{number}", tenant_id=TENANT, guid=guid, name=f"node {number}", site_id=site_id)


def site(resource_id: str = "site", region_id: str | None = "inner") -> Site:
    return Site(resource_id=resource_id, tenant_id=TENANT, name=resource_id.upper(), region_id=region_id)


def region(resource_id: str, parent_id: str | None = None) -> Region:
    return Region(resource_id=resource_id, tenant_id=TENANT, name=resource_id.upper(), parent_id=parent_id)


def schedule(
    resource_id: str,
    schedule: Schedule,
    level: TargetLevel,
    target: str,
    kind: ScheduleKind = ScheduleKind.OS_UPDATE,
) -> ScheduleResource:
    return ScheduleResource(
        resource_id=resource_id,
        tenant_id=TENANT,
        name=resource_id,
        schedule=schedule,
        kind=kind,
        target=ScheduleTarget(level=level, resource_id=target),
    )


def book(*more: Host | Site | Region | ScheduleResource) -> ScheduleBook:
    made = ScheduleBook(TENANT)
    made.put(region("outer"), region("inner", "outer"), site(), host(1), *more)
    return made


def test_a_schedule_of_an_outer_region_reaches_the_host_and_says_so() -> None:
    made = book(schedule("nightly", NIGHTLY, TargetLevel.REGION, "outer"))

    (applied,) = made.applying("host-1")

    assert (applied.resource.resource_id, applied.level, applied.place_name) == ("nightly", TargetLevel.REGION, "OUTER")
    assert made.window_at("host-1", at("2026-11-24T02:30")) == Window(at("2026-11-24T02:00"), at("2026-11-24T03:00"))
    assert made.next_window("host-1", at("2026-11-24T02:30")) == Window(at("2026-11-25T02:00"), at("2026-11-25T03:00"))


def test_only_kinds_that_open_updates_open_them() -> None:
    shipping = schedule("ship", NIGHTLY, TargetLevel.SITE, "site", ScheduleKind.SHIPPING)
    made = book(shipping)

    assert made.window_at("host-1", at("2026-11-24T02:30")) is None
    assert made.applying("host-1")[0].resource == shipping

    wider = ScheduleBook(TENANT, frozenset({ScheduleKind.SHIPPING}))
    wider.put(site(), host(1), shipping)
    assert wider.window_at("host-1", at("2026-11-24T02:30")) is not None


@pytest.mark.parametrize(
    ("level", "target"),
    [
        (TargetLevel.HOST, "host-1"),
        (TargetLevel.SITE, "site"),
        (TargetLevel.REGION, "inner"),
        (TargetLevel.REGION, "outer"),
    ],
)
def test_a_blackout_closes_at_every_level(level: TargetLevel, target: str) -> None:
    made = book(
        schedule("nightly", NIGHTLY, TargetLevel.HOST, "host-1"),
        schedule("freeze", CHRISTMAS, level, target, ScheduleKind.BLACKOUT),
    )

    assert made.window_at("host-1", at("2026-12-19T02:30")) is not None
    assert made.window_at("host-1", at("2026-12-24T02:30")) is None
    assert made.next_window("host-1", at("2026-12-19T03:00")) == Window(at("2027-01-03T02:00"), at("2027-01-03T03:00"))
    assert list(made.windows("host-1", at("2026-12-20"), at("2027-01-03"))) == []


def test_a_blackout_in_the_middle_of_a_window_splits_it() -> None:
    joint = JointSchedule(
        [SingleSchedule(at("2026-11-24"), at("2026-11-25"))], [RepeatedSchedule("0", "12", day_week="*")]
    )

    assert list(joint.windows(at("2026-11-24"), at("2026-11-26"))) == [
        Window(at("2026-11-24"), at("2026-11-24T12:00")),
        Window(at("2026-11-24T13:00"), at("2026-11-25")),
    ]
    assert joint.next_window(at("2026-11-24T12:30")) == Window(at("2026-11-24T13:00"), at("2026-11-25"))


def test_an_open_ended_blackout_leaves_no_next_window() -> None:
    joint = JointSchedule([NIGHTLY], [SingleSchedule(at("2026-11-24"))])

    assert joint.next_window(at("2026-11-24")) is None
    assert joint.window_at(at("2026-11-23T02:30")) is not None


def test_a_blackout_that_always_covers_the_window_ends_the_search() -> None:
    joint = JointSchedule([NIGHTLY], [RepeatedSchedule("0", "1", day_week="*", duration_seconds=3 * 3600)])

    assert joint.next_window(at("2026-11-24")) is None


def test_schedules_that_take_turns_without_end_are_followed_for_about_a_year() -> None:
    day = RepeatedSchedule("0", "0", day_week="*", duration_seconds=43_200)
    night = RepeatedSchedule("0", "12", day_week="*", duration_seconds=43_200)

    found = JointSchedule([day, night]).window_at(at("2026-11-24"))

    assert found is not None
    assert found.start <= at("2026-11-24") - timedelta(days=400)
    assert found.end is not None
    assert found.end >= at("2026-11-24") + timedelta(days=400)


def test_minutes_that_take_turns_without_end_are_answered_without_a_hang() -> None:
    even = ",".join(str(minute) for minute in range(0, 60, 2))
    odd = ",".join(str(minute) for minute in range(1, 60, 2))
    joint = JointSchedule([RepeatedSchedule(minutes, "*", "*", "*", "*", 60) for minutes in (even, odd)])

    found = joint.window_at(at("2026-11-24"))

    assert found is not None
    assert found.end is not None
    assert found.end > at("2026-11-25")


def test_moving_a_site_changes_what_its_hosts_inherit() -> None:
    made = book(region("other"), schedule("nightly", NIGHTLY, TargetLevel.REGION, "other"))
    assert made.next_window("host-1", at("2026-11-24")) is None

    made.put(site(region_id="other"))
    assert made.next_window("host-1", at("2026-11-24")) is not None

    made.remove(site())
    assert made.next_window("host-1", at("2026-11-24")) is None


def test_replacing_a_schedule_moves_it_from_its_old_target() -> None:
    made = book(host(2, None), schedule("nightly", NIGHTLY, TargetLevel.HOST, "host-1"))

    made.put(schedule("nightly", NIGHTLY, TargetLevel.HOST, "host-2"))

    assert list(made.open_hosts(at("2026-11-24T02:30"))) == ["host-2"]


def test_a_region_within_itself_is_refused() -> None:
    made = book()

    with pytest.raises(InvalidResource, match="parent_id"):
        made.put(region("outer", "inner"))
    with pytest.raises(InvalidResource, match="parent_id"):
        made.put(region("self", "self"))


def test_another_tenants_resource_is_refused() -> None:
    with pytest.raises(InvalidResource, match="tenant_id"):
        ScheduleBook("another").put(host(1))


def test_an_unknown_host_is_not_found() -> None:
    made = book()

    for ask in (made.host, made.applying, made.schedule_of):
        with pytest.raises(NotFound, match="host-9"):
            ask("host-9")
    with pytest.raises(NotFound, match="host-9"):
        made.remove(host(9))


def test_a_naive_instant_is_refused() -> None:
    made = book(schedule("nightly", NIGHTLY, TargetLevel.SITE, "site"))
    naive = datetime(2026, 11, 24)  # noqa: DTZ001

    with pytest.raises(InvalidSchedule):
        made.window_at("host-1", naive)
    with pytest.raises(InvalidSchedule):
        made.open_hosts(naive)
    with pytest.raises(InvalidSchedule):
        made.openings(naive)


def test_hosts_alike_share_one_schedule_and_open_together() -> None:
    made = book(
        *(host(number) for number in range(2, 5)),
        host(5, "elsewhere"),
        schedule("nightly", NIGHTLY, TargetLevel.SITE, "site"),
        # The same values in another order are the same schedule.
        schedule("own", RepeatedSchedule("0", "2", day_week="6,5,4,3,2,1,0"), TargetLevel.HOST, "host-5"),
        schedule("own too", RepeatedSchedule("0", "2", day_week="0,1,2,3,4,5,6"), TargetLevel.HOST, "host-1"),
    )

    assert made.schedule_of("host-2") is made.schedule_of("host-3")
    opening = next(made.openings(at("2026-11-24")))
    assert opening.window == Window(at("2026-11-24T02:00"), at("2026-11-24T03:00"))
    assert opening.host_ids == ("host-2", "host-3", "host-4")


def test_openings_go_on_for_as_long_as_one_asks() -> None:
    made = book(host(2, None), schedule("a", NIGHTLY, TargetLevel.SITE, "site"))
    made.put(schedule("b", RepeatedSchedule("0", "14", day_week="*"), TargetLevel.HOST, "host-2"))

    found = [(opening.window.start.hour, opening.host_ids) for opening in islice(made.openings(at("2026-11-24")), 4)]

    assert found == [(2, ("host-1",)), (14, ("host-2",))] * 2


def test_a_hundred_thousand_schedules_on_one_site_are_answered() -> None:
    begin = at("2026-11-24")
    singles = (
        schedule(
            f"single-{number}",
            SingleSchedule(begin + timedelta(hours=number), begin + timedelta(hours=number, minutes=30)),
            TargetLevel.SITE,
            "site",
        )
        for number in range(100_000)
    )
    made = book(*singles)

    last = begin + timedelta(hours=99_999)
    assert made.window_at("host-1", last) == Window(last, last + timedelta(minutes=30))
    assert made.next_window("host-1", last + timedelta(seconds=1)) is None
