"""What a transaction that only reads says to whoever wants to change something."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TypeVar

from edge_day2.domain.resources import Link, Resource
from edge_day2.domain.rollout import Admission, Rollout
from edge_day2.errors import FailedPrecondition

R = TypeVar("R", bound=Resource)


class ReadingOnly:
    """The changing calls of `edge_day2.ports.inventory.UnitOfWork`, all refused."""

    def relink(self, tenant_id: str, links: Collection[Link], desired_os_id: str, *, at_most: int) -> int:
        """See `UnitOfWork.relink`."""
        raise _reading()

    def admit(self, rollout: Rollout, link: Link, admission: Admission, at: datetime, *, at_most: int) -> int:
        """See `UnitOfWork.admit`."""
        raise _reading()

    def forget_events(self, tenant_id: str, before: datetime) -> int:
        """See `UnitOfWork.forget_events`."""
        raise _reading()

    def add(self, resource: Resource) -> None:
        """See `UnitOfWork.add`."""
        raise _reading()

    def add_all(self, resources: Iterable[Resource]) -> None:
        """See `UnitOfWork.add_all`."""
        raise _reading()

    def replace(self, old: R, new: R) -> None:
        """See `UnitOfWork.replace`."""
        raise _reading()

    def replace_all(self, changes: Iterable[tuple[R, R]]) -> None:
        """See `UnitOfWork.replace_all`."""
        raise _reading()

    def delete(self, resource: Resource) -> None:
        """See `UnitOfWork.delete`."""
        raise _reading()

    def forget_runs(self, tenant_id: str, before: datetime, *, at_most: int) -> int:
        """See `InventoryLists.forget_runs`."""
        raise _reading()


def _reading() -> FailedPrecondition:
    return FailedPrecondition("a reading transaction changes nothing; use writing()")
