"""What both databases are asked for lists, and which index is to answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from edge_day2.domain.inventory_filters import (
    HostFilter,
    InstanceFilter,
    PolicyFilter,
    RegionFilter,
    ResourceFilter,
    RunFilter,
    RunState,
    ScheduleFilter,
    SiteFilter,
)
from edge_day2.domain.inventory_pages import write_cursor
from edge_day2.domain.resources import OSType, ScheduleTarget, TargetLevel, Trust, UpdatePolicyKind
from edge_day2.domain.schedules import ScheduleKind
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.ports.inventory import UnitOfWork
from edge_day2.testing.inventory_contents import START, TENANT


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect the SELECTs that are executed meanwhile, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


# Each field alone, and the index that finds its rows in the order of the list.
BY_INDEX: list[tuple[ResourceFilter[Any], str]] = [
    (InstanceFilter(status=InventoryStatus.FAILED), "instance_status"),
    (InstanceFilter(os_type=OSType.MUTABLE), "instance_type"),
    (InstanceFilter(current_os_id="os-old"), "instance_current_os"),
    (InstanceFilter(desired_os_id="os-new"), "instance_desired_os"),
    (InstanceFilter(policy_id="policy-1"), "instance_policy"),
    (InstanceFilter(host_id="host-1"), "instance_host"),
    (InstanceFilter(update_due=True), "instance_due"),
    (HostFilter(name="line 4"), "host_name"),
    (HostFilter(trust=Trust.UNTRUSTED), "host_trust"),
    (HostFilter(site_id="site-1"), "host_site"),
    (SiteFilter(name="plant"), "site_name"),
    (RegionFilter(name="town"), "region_name"),
    (PolicyFilter(policy_kind=UpdatePolicyKind.TARGET), "os_update_policy_kind"),
    (PolicyFilter(target_os_id="os-new"), "os_update_policy_target_os"),
    (ScheduleFilter(schedule_kind=ScheduleKind.BLACKOUT), "schedule_kind"),
    *(
        (ScheduleFilter(target=ScheduleTarget(level=level, resource_id="x")), f"schedule_target_{level.value}")
        for level in TargetLevel
    ),
    (RunFilter(), "os_update_run_start"),
    (RunFilter(since=START), "os_update_run_start"),
    (RunFilter(until=START), "os_update_run_start"),
    (RunFilter(instance_id="instance-1"), "os_update_run_instance"),
    (RunFilter(status=InventoryStatus.FAILED), "os_update_run_status"),
    (RunFilter(state=RunState.OPEN), "os_update_run_open_start"),
    (RunFilter(state=RunState.ENDED), "os_update_run_start"),
]


def first_and_next(unit: UnitOfWork, wanted: ResourceFilter[Any]) -> None:
    """Ask for a first page and for one behind a cursor, of the list and of its views."""
    place: tuple[str | int, ...] = (10**16, "x") if isinstance(wanted, RunFilter) else ("a",)
    for after in ("", write_cursor(wanted, TENANT, place)):
        unit.page(wanted, tenant_id=TENANT, after=after, at_most=10)
        if isinstance(wanted, InstanceFilter):
            unit.instance_views(wanted, tenant_id=TENANT, after=after, at_most=10)
    unit.count(wanted, tenant_id=TENANT)
