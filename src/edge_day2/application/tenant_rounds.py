"""The same work for every tenant, by any number of processes at once without a leader: each tenant under its turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from attrs import frozen

from edge_day2.domain.log_fields import log_fields
from edge_day2.errors import Conflict, EdgeDay2Error, Unavailable
from edge_day2.ports.inventory import Inventory

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)


@frozen(kw_only=True)
class TenantRound(Generic[T]):
    """What came of one round: each tenant is in one of the three.

    Attributes:
        done: what came of each tenant's work.
        failed: why a tenant's work ended early. What it had done by then stays done.
        busy: the tenants that somebody else was working on, which were left to them.
    """

    done: Mapping[str, T]
    failed: Mapping[str, EdgeDay2Error]
    busy: tuple[str, ...]

    def problems(self) -> Iterator[str]:
        """Yield a line for each tenant that nothing was, or not everything may have been, done for."""
        for tenant_id, error in self.failed.items():
            yield f"tenant {tenant_id}: {type(error).__name__}: {error}"
        for tenant_id in self.busy:
            yield f"tenant {tenant_id}: somebody else is working on it"


def each_tenant(
    inventory: Inventory, work: str, tenants: Iterable[str] | None, step: Callable[[str], T]
) -> TenantRound[T]:
    """Take one step for each tenant that nobody else is taking this one for.

    Args:
        inventory: gives the turns.
        work: the name of the work; different works don't exclude each other.
        tenants: which ones; None: all that the Inventory holds.
        step: is given the tenant's id. What it raises is that tenant's failure and stops no other.

    Raises:
        StorageError: the tenants can't be read.
    """
    if tenants is None:
        with inventory.reading() as unit:
            tenants = unit.tenants()
    done: dict[str, T] = {}
    failed: dict[str, EdgeDay2Error] = {}
    busy: list[str] = []
    for tenant_id in dict.fromkeys(tenants):
        try:
            with inventory.turn(f"{work} {tenant_id}") as mine:
                if mine:
                    done[tenant_id] = step(tenant_id)
                else:
                    busy.append(tenant_id)
        except EdgeDay2Error as error:
            failed[tenant_id] = error
            fields = log_fields(event="tenant_failed", tenant_id=tenant_id)
            _log.error("tenant %s: %s: %s: %s", tenant_id, work, type(error).__name__, error, extra=fields)
    return TenantRound(done=done, failed=failed, busy=tuple(busy))


def is_temporary(error: EdgeDay2Error) -> bool:
    """Return whether the same may succeed when it is tried again soon, though nobody has done anything about it."""
    return isinstance(error, Unavailable | Conflict)
