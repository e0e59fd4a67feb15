"""Lists of the SQL Inventory: what each call executes. The statements are made in `list_statements`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Executable

from edge_day2.adapters.storage import list_statements
from edge_day2.adapters.storage.list_statements import Conditions
from edge_day2.adapters.storage.rows import Plain, shape_of
from edge_day2.adapters.storage.storable import is_text
from edge_day2.domain.inventory_filters import InstanceFilter, ResourceFilter
from edge_day2.domain.inventory_pages import Page, check_size, page_from, read_cursor
from edge_day2.domain.inventory_views import InstanceView, OSName
from edge_day2.domain.resources import Instance, Resource
from edge_day2.domain.statuses import InventoryStatus

R = TypeVar("R", bound=Resource)
_Rows = Sequence[Sequence[Any]]


class SqlLists(ABC):
    """See `edge_day2.ports.inventory_lists.InventoryLists`; `forget_runs` is for who writes."""

    @abstractmethod
    def _rows(self, statement: Executable, parameters: Mapping[str, Plain]) -> _Rows: ...

    def page(self, wanted: ResourceFilter[R], *, tenant_id: str, after: str = "", at_most: int) -> Page[R]:
        """See `InventoryLists.page`."""
        check_size(at_most)
        conditions = self._conditions(wanted, tenant_id, after)
        rows: _Rows = ()
        if conditions is not None:
            rows = self._rows(list_statements.page(conditions), conditions.parameters | {"at_most": at_most + 1})
        found = list(map(shape_of(wanted.kind).decode, rows))
        return page_from(found, wanted, tenant_id, at_most=at_most)

    def count(self, wanted: ResourceFilter[R], *, tenant_id: str) -> int:
        """See `InventoryLists.count`."""
        conditions = self._conditions(wanted, tenant_id, "")
        if conditions is None:
            return 0
        ((number,),) = self._rows(list_statements.count(conditions), conditions.parameters)
        return int(number)

    def status_counts(self, tenant_id: str) -> Mapping[InventoryStatus, int]:
        """See `InventoryLists.status_counts`."""
        rows = self._rows(list_statements.STATUS_COUNTS, {"tenant_id": tenant_id}) if is_text(tenant_id) else ()
        found = {InventoryStatus[name]: number for name, number in rows}
        return {status: found.get(status, 0) for status in InventoryStatus}

    def instance_views(
        self, wanted: InstanceFilter, *, tenant_id: str, after: str = "", at_most: int
    ) -> Page[InstanceView]:
        """See `InventoryLists.instance_views`."""
        check_size(at_most)
        conditions = self._conditions(wanted, tenant_id, after)
        rows: _Rows = ()
        if conditions is not None:
            rows = self._rows(list_statements.views(conditions), conditions.parameters | {"at_most": at_most + 1})
        views = tuple(map(_view, rows))
        page = page_from([view.instance for view in views], wanted, tenant_id, at_most=at_most)
        return Page(views[:at_most], page.cursor)

    def _conditions(self, wanted: ResourceFilter[R], tenant_id: str, after: str) -> Conditions | None:
        """Return what the rows must fulfil; None where nothing can."""
        conditions = Conditions(wanted, tenant_id, read_cursor(wanted, tenant_id, after))
        texts = [value for value in conditions.parameters.values() if isinstance(value, str)]
        if not all(map(is_text, texts)):
            return None
        probe = conditions.probe()
        if probe is not None:
            conditions.walk = len(self._rows(probe, conditions.parameters)) > 0
        return conditions


def _view(row: Sequence[Any]) -> InstanceView:
    shape = shape_of(Instance)
    width = len(shape.names)
    name, guid, site_id, site_name, *systems, policy_name = row[width:]
    current, desired = (
        OSName(name=name, profile_name=profile_name, image_id=image_id)
        for name, profile_name, image_id in (systems[:3], systems[3:])
    )
    return InstanceView(
        instance=shape.decode(row[:width]),
        host_name=name,
        host_guid=guid,
        site_id=site_id,
        site_name=site_name,
        current_os=current,
        desired_os=desired,
        policy_name=policy_name,
    )
