# ruff: noqa: RUF001  # sentences have en dashes between figures
"""Why a host is or isn't updated, as a sentence and as data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from edge_day2.domain.resources import (
    Host,
    Instance,
    OSType,
    Provisioning,
    Region,
    ScheduleResource,
    ScheduleTarget,
    Site,
    TargetLevel,
    Trust,
)
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind, SingleSchedule, Window
from edge_day2.domain.window_outlook import Explanation, ReasonKind, Verdict, explain, forecast
from edge_day2.errors import InvalidSchedule, NotFound

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
TUESDAYS = RepeatedSchedule("0", "2", day_week="2", time_zone="Europe/Warsaw")
HOST = Host(
    resource_id="host", tenant_id="t", guid="00000000-0000-0000-0000-000000000001", name="node 1", site_id="site"
)
INSTANCE = Instance(
    resource_id="inst", tenant_id="t", host_id="host", os_type=OSType.IMMUTABLE, current_os_id="a", desired_os_id="b"
)


def schedule(
    schedule: Schedule,
    level: TargetLevel = TargetLevel.REGION,
    target: str = "eu",
    kind: ScheduleKind = ScheduleKind.OS_UPDATE,
) -> ScheduleResource:
    name = f"{level.value} {target} {kind.name}"
    where = ScheduleTarget(level=level, resource_id=target)
    return ScheduleResource(resource_id=name, tenant_id="t", name=name, schedule=schedule, kind=kind, target=where)


def book(*more: ScheduleResource | Host) -> ScheduleBook:
    made = ScheduleBook("t")
    made.put(Region(resource_id="eu", tenant_id="t", name="EU"))
    made.put(Site(resource_id="site", tenant_id="t", name="Gdansk", region_id="eu"), HOST, *more)
    return made


def kinds(explanation: Explanation) -> list[ReasonKind]:
    return [reason.kind for reason in explanation.reasons]


def test_a_host_waits_for_a_window_in_the_zone_and_place_of_its_schedule() -> None:
    found = explain(book(schedule(TUESDAYS)), "host", NOW)

    assert found.sentence == "waits for window Tue 2026-12-01 02:00–03:00 Europe/Warsaw from region EU"
    assert found.verdict is Verdict.WAITS
    (reason,) = found.reasons
    assert reason.window == Window(datetime(2026, 12, 1, 1, tzinfo=UTC), datetime(2026, 12, 1, 2, tzinfo=UTC))
    assert reason.source is not None
    assert reason.source.place_name == "EU"


def test_a_host_in_a_window_can_be_updated_now() -> None:
    found = explain(book(schedule(TUESDAYS)), "host", datetime(2026, 12, 1, 1, 59, tzinfo=UTC), instance=INSTANCE)

    assert found.verdict is Verdict.UPDATES
    assert found.sentence == ("can be updated now, in window Tue 2026-12-01 02:00–03:00 Europe/Warsaw from region EU")


def test_a_host_whose_desired_os_equals_its_current_one_is_not_updated() -> None:
    found = explain(book(schedule(TUESDAYS)), "host", NOW, instance=evolve(INSTANCE, desired_os_id="a"))

    assert found.sentence == "not updated: desired OS equals current OS"
    assert found.verdict is Verdict.NEVER


def test_a_mutable_os_is_patched_in_place_and_so_is_never_up_to_date_by_its_links() -> None:
    mutable = evolve(INSTANCE, os_type=OSType.MUTABLE, desired_os_id="a")

    assert explain(book(schedule(TUESDAYS)), "host", NOW, instance=mutable).verdict is Verdict.WAITS


def test_an_untrusted_host_and_one_that_is_not_provisioned_are_not_updated() -> None:
    untrusted = book(schedule(TUESDAYS), evolve(HOST, trust=Trust.UNTRUSTED))
    pending = evolve(INSTANCE, provisioning=Provisioning.PENDING)

    assert explain(untrusted, "host", NOW).sentence == "not updated: the host isn't trusted"
    assert explain(book(), "host", NOW, instance=pending).sentence == "not updated: the instance isn't provisioned"


def test_a_host_without_a_schedule_that_opens_updates_says_so() -> None:
    shipping = schedule(TUESDAYS, kind=ScheduleKind.SHIPPING)

    assert explain(book(), "host", NOW).sentence == "not updated: no schedule applies"
    assert explain(book(shipping), "host", NOW).sentence == "not updated: no schedule of a kind that opens updates"


def test_a_blackout_over_an_open_window_is_named_before_the_wait() -> None:
    freeze = SingleSchedule(datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 3, tzinfo=UTC))
    made = book(schedule(TUESDAYS), schedule(freeze, TargetLevel.SITE, "site", ScheduleKind.BLACKOUT))

    found = explain(made, "host", datetime(2026, 12, 1, 1, 30, tzinfo=UTC))

    assert kinds(found) == [ReasonKind.BLACKOUT, ReasonKind.WINDOW_AHEAD]
    assert found.sentence == (
        "blackout until Thu 2026-12-03 00:00 UTC from site Gdansk, "
        "then waits for window Tue 2026-12-08 02:00–03:00 Europe/Warsaw from region EU"
    )


def test_a_blackout_without_end_leaves_no_window() -> None:
    freeze = schedule(SingleSchedule(NOW - timedelta(days=1)), TargetLevel.HOST, "host", ScheduleKind.BLACKOUT)
    always = schedule(SingleSchedule(NOW - timedelta(days=9)))

    found = explain(book(freeze, always), "host", NOW)

    assert found.sentence == "not updated: blackout without end from the host, then no window comes"


def test_a_window_that_closes_too_soon_is_named_and_the_next_one_waited_for() -> None:
    found = explain(
        book(schedule(TUESDAYS)), "host", datetime(2026, 12, 1, 1, 45, tzinfo=UTC), needed=timedelta(minutes=30)
    )

    assert kinds(found) == [ReasonKind.TOO_SHORT, ReasonKind.WINDOW_AHEAD]
    assert found.sentence == (
        "window Tue 2026-12-01 02:00–03:00 Europe/Warsaw from region EU closes too soon for an update of 30 min, "
        "then waits for window Tue 2026-12-08 02:00–03:00 Europe/Warsaw from region EU"
    )


def test_windows_that_are_all_too_short_never_do() -> None:
    found = explain(book(schedule(TUESDAYS)), "host", NOW, needed=timedelta(hours=2))

    assert found.sentence == "not updated: no window of 120 min comes"


def test_windows_across_midnight_and_without_end_are_said_in_full() -> None:
    night = schedule(RepeatedSchedule("0", "23", day_week="1", duration_seconds=7200))
    ahead = schedule(SingleSchedule(NOW + timedelta(days=1)), TargetLevel.HOST, "host")
    always = schedule(RepeatedSchedule("0", "0", day_week="*", duration_seconds=86_400))

    assert explain(book(night), "host", NOW).sentence == (
        "waits for window Mon 2026-11-30 23:00–Tue 2026-12-01 01:00 UTC from region EU"
    )
    assert explain(book(ahead), "host", NOW).sentence == (
        "waits for window from Tue 2026-12-01 12:00 UTC on from the host"
    )
    assert explain(book(always), "host", NOW).sentence == (
        "can be updated now, in window that never closes from region EU"
    )


def test_a_forecast_lists_windows_by_host_and_why_others_have_none() -> None:
    lonely = evolve(HOST, resource_id="lonely", site_id=None)
    late = evolve(HOST, resource_id="late", site_id=None)
    made = book(
        schedule(TUESDAYS),
        lonely,
        late,
        schedule(SingleSchedule(NOW + timedelta(days=60)), TargetLevel.HOST, "late"),
    )

    found = forecast(made, ["host", "lonely", "late"], NOW, NOW + timedelta(days=14))

    assert [window.start.day for window in found.windows["host"]] == [1, 8]
    assert list(found.never) == ["lonely"]
    assert found.never["lonely"].sentence == "not updated: no schedule applies"
    assert found.without["late"].verdict is Verdict.WAITS


def test_a_forecast_leaves_out_windows_in_which_the_update_does_not_fit() -> None:
    made = book(schedule(TUESDAYS))
    begin = datetime(2026, 12, 1, 1, 45, tzinfo=UTC)

    found = forecast(made, ["host"], begin, begin + timedelta(days=7), needed=timedelta(minutes=30))

    assert [window.start.day for window in found.windows["host"]] == [8]
    settled = {"host": evolve(INSTANCE, desired_os_id="a")}
    assert forecast(made, ["host"], begin, begin + timedelta(days=7), instances=settled).windows == {}


def test_unknown_hosts_and_naive_instants_are_errors() -> None:
    with pytest.raises(NotFound):
        explain(book(), "nobody", NOW)
    with pytest.raises(InvalidSchedule):
        explain(book(), "host", datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidSchedule):
        forecast(book(), ["host"], NOW, datetime(2026, 1, 1))  # noqa: DTZ001
