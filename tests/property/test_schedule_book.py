"""A schedule book after any series of changes, against a model that looks everything up anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.resources import Host, Region, ScheduleResource, ScheduleTarget, Site, TargetLevel
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind, SingleSchedule
from edge_day2.errors import InvalidResource, NotFound

_Resource = Host | Region | ScheduleResource | Site
_NOW = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
_SCHEDULES: tuple[Schedule, ...] = (
    RepeatedSchedule(day_week="*"),
    RepeatedSchedule(day_week="2"),
    RepeatedSchedule("15", "2", day_week="*", duration_seconds=1800),
    RepeatedSchedule("30", "3", time_zone="Europe/Warsaw"),
    SingleSchedule(_NOW - timedelta(hours=1), _NOW + timedelta(hours=1)),
    SingleSchedule(_NOW + timedelta(days=2)),
)
_KINDS = (ScheduleKind.OS_UPDATE, ScheduleKind.OS_UPDATE, ScheduleKind.BLACKOUT, ScheduleKind.SHIPPING)
_ids = st.integers(0, 3).map(str)
_maybe_id = st.none() | _ids
_named = {"tenant_id": st.just("t"), "name": st.just("n")}

TREE: tuple[_Resource, ...] = (
    *(Region(resource_id=str(n), tenant_id="t", name="n", parent_id=str(n - 1) if n else None) for n in range(4)),
    *(Site(resource_id=str(n), tenant_id="t", name="n", region_id=str(n)) for n in range(4)),
    *(
        Host(resource_id=str(n), tenant_id="t", name="n", guid="00000000-0000-0000-0000-000000000000", site_id=str(n))
        for n in range(4)
    ),
)

regions = st.builds(Region, resource_id=_ids, parent_id=_maybe_id, **_named)
sites = st.builds(Site, resource_id=_ids, region_id=_maybe_id, **_named)
hosts = st.builds(
    Host, resource_id=_ids, site_id=_maybe_id, guid=st.just("00000000-0000-0000-0000-000000000000"), **_named
)
schedules = st.builds(
    ScheduleResource,
    resource_id=st.integers(0, 7).map(str),
    schedule=st.sampled_from(_SCHEDULES),
    kind=st.sampled_from(_KINDS),
    target=st.none() | st.builds(ScheduleTarget, level=st.sampled_from(TargetLevel), resource_id=_ids),
    **_named,
)
change = st.tuples(
    st.sampled_from(("put", "put", "put", "remove")), st.one_of(regions, sites, hosts, schedules, schedules, schedules)
)
# Most series begin with four regions within each other, with a site and a host in each.
changes = st.tuples(st.sampled_from(([("put", found) for found in TREE], [])), st.lists(change, max_size=12)).map(
    lambda both: [*both[0], *both[1]]
)


class Model:
    """Everything that was put and not removed; a question walks from the host upwards."""

    def __init__(self) -> None:
        self.held: dict[tuple[type, str], _Resource] = {}

    def hosts(self) -> list[Host]:
        return [resource for resource in self.held.values() if isinstance(resource, Host)]

    def lies_within_itself(self, region: Region) -> bool:
        above = region.parent_id
        while above is not None:
            if above == region.resource_id:
                return True
            found = self.held.get((Region, above))
            above = found.parent_id if isinstance(found, Region) else None
        return False

    def places(self, host: Host) -> list[tuple[TargetLevel, str]]:
        places = [(TargetLevel.HOST, host.resource_id)]
        if host.site_id is not None:
            places.append((TargetLevel.SITE, host.site_id))
            site = self.held.get((Site, host.site_id))
            region_id = site.region_id if isinstance(site, Site) else None
            while region_id is not None:
                places.append((TargetLevel.REGION, region_id))
                region = self.held.get((Region, region_id))
                region_id = region.parent_id if isinstance(region, Region) else None
        return places

    def applying(self, host: Host) -> list[ScheduleResource]:
        found = [resource for resource in self.held.values() if isinstance(resource, ScheduleResource)]
        places = self.places(host)
        return [
            schedule
            for place in places
            for schedule in sorted(found, key=lambda schedule: schedule.resource_id)
            if schedule.target is not None and (schedule.target.level, schedule.target.resource_id) == place
        ]


def _changed(book: ScheduleBook, model: Model, change: str, resource: _Resource) -> None:
    key = type(resource), resource.resource_id
    if change == "put":
        try:
            book.put(resource)
        except InvalidResource:
            assert isinstance(resource, Region)
            assert model.lies_within_itself(resource)
        else:
            assert not (isinstance(resource, Region) and model.lies_within_itself(resource))
            model.held[key] = resource
        return
    try:
        book.remove(resource)
    except NotFound:
        assert key not in model.held
    else:
        del model.held[key]


@settings(max_examples=400, deadline=None)
@given(changes)
def test_after_any_changes_every_host_has_what_a_walk_up_the_tree_finds(changes: list[tuple[str, _Resource]]) -> None:
    book, model = ScheduleBook("t"), Model()
    for change, resource in changes:
        _changed(book, model, change, resource)
        # Asking in between must not matter for what comes later.
        open_hosts = set(book.open_hosts(_NOW))
        assert open_hosts <= {host.resource_id for host in model.hosts()}
    for host in model.hosts():
        applying = model.applying(host)
        joint = JointSchedule(
            [found.schedule for found in applying if found.kind is ScheduleKind.OS_UPDATE],
            [found.schedule for found in applying if found.kind is ScheduleKind.BLACKOUT],
        )
        assert [found.resource for found in book.applying(host.resource_id)] == applying
        assert book.schedule_of(host.resource_id) == joint
        assert book.window_at(host.resource_id, _NOW) == joint.window_at(_NOW)
        assert (host.resource_id in set(book.open_hosts(_NOW))) == joint.is_open(_NOW)


@settings(max_examples=150, deadline=None)
@given(changes)
def test_openings_come_in_order_of_time_and_hold_the_next_window_of_every_host(
    changes: list[tuple[str, _Resource]],
) -> None:
    book, model = ScheduleBook("t"), Model()
    for change, resource in changes:
        _changed(book, model, change, resource)

    ids = {host.resource_id for host in model.hosts()}
    assert sorted(found for _, host_ids in book.fleet() for found in host_ids) == sorted(ids)
    openings = list(islice(book.openings(_NOW), 40))
    starts = [opening.window.start for opening in openings]
    assert starts == sorted(starts)
    for host_id in ids:
        expected = []
        window = book.next_window(host_id, _NOW)
        # Where the iterator was cut off, other hosts may open at the last instant as well.
        last = starts[-1] if len(openings) == 40 else datetime.max.replace(tzinfo=UTC)
        while window is not None and window.start < last:
            expected.append(window)
            window = None if window.end is None else book.next_window(host_id, window.end)
        found = [opening.window for opening in openings if host_id in opening.host_ids]
        assert [window for window in found if window.start < last] == expected
