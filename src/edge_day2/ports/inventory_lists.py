"""Port: lists of the Inventory, a page at a time. Part of `edge_day2.ports.inventory.UnitOfWork`.

Every method may raise StorageError, and looks at one tenant alone. How much a page costs is up to the fields of its
filter: for each there is an index, so that the cost grows with what matches it best, not with the Inventory.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from edge_day2.domain.inventory_filters import InstanceFilter, R, ResourceFilter
from edge_day2.domain.inventory_pages import Page
from edge_day2.domain.inventory_views import InstanceView
from edge_day2.domain.statuses import InventoryStatus

__all__ = ["InventoryLists"]


class InventoryLists(Protocol):
    """The lists of one transaction."""

    def page(self, wanted: ResourceFilter[R], *, tenant_id: str, after: str = "", at_most: int) -> Page[R]:
        """Return the resources that `wanted` matches, `at_most` of them, from where the cursor `after` left off.

        Pages may come from different transactions: what exists, and matches, all the time is on exactly one of them.
        Items come without their lists of CVEs and packages (`for_list`), so they can't be the old one of a `replace`.

        Raises:
            InvalidValue: `after` isn't the cursor of a page of this list, or `at_most` not between 1 and 10,000.
        """
        ...

    def count(self, wanted: ResourceFilter[R], *, tenant_id: str) -> int:
        """Return how many resources `wanted` matches. The cost grows with their number, the answer doesn't."""
        ...

    def status_counts(self, tenant_id: str) -> Mapping[InventoryStatus, int]:
        """Return how many instances have each update status, 0 too. The cost grows with the instances."""
        ...

    def instance_views(
        self, wanted: InstanceFilter, *, tenant_id: str, after: str = "", at_most: int
    ) -> Page[InstanceView]:
        """Return a page of instances as `page` does, each with its host and the names of what it refers to.

        It takes as many statements as `page`. Cursors are those of `page`.

        Raises:
            InvalidValue: as `page`.
        """
        ...

    def forget_runs(self, tenant_id: str, before: datetime, *, at_most: int) -> int:
        """Remove update runs that began and ended before `before`, `at_most` of them; return how many it was.

        An open run stays. Those that another transaction is changing may be left out.

        Raises:
            FailedPrecondition: the transaction only reads.
        """
        ...
