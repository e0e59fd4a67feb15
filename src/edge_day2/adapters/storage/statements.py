"""The statements of the SQL Inventory, each built once. What they are for is in `sql`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    Delete,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    func,
    literal,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from edge_day2.adapters.storage.references import KINDS, Kind
from edge_day2.adapters.storage.report_context import Among
from edge_day2.adapters.storage.report_contexts import listed
from edge_day2.adapters.storage.rows import shape_of
from edge_day2.adapters.storage.schema import HOST, INSTANCE, OS_RESOURCE, OS_UPDATE_RUN, REGION, ROLLOUT
from edge_day2.domain.resources import LISTS, Host, Instance, OSResource, OSUpdateRun
from edge_day2.domain.rollout import Rollout, RolloutState
from edge_day2.domain.statuses import InventoryStatus, StatusIndicator

PAGE_ROWS: Final = 1000

_IN_PROGRESS: Final = [status.name for status in InventoryStatus if status.indicator is StatusIndicator.IN_PROGRESS]


# Beside the id: what only one resource of a kind may have, with the parameters in the order of `unique_key`.
_UNIQUE: Final[dict[Kind, tuple[ColumnElement[bool], ...]]] = {
    OSResource: (OS_RESOURCE.c.profile_name == bindparam("key_1"), OS_RESOURCE.c.image_id == bindparam("key_2")),
    Host: (func.lower(HOST.c.guid) == bindparam("key_1"),),
    Instance: (INSTANCE.c.host_id == bindparam("key_1"),),
    OSUpdateRun: (OS_UPDATE_RUN.c.instance_id == bindparam("key_1"), OS_UPDATE_RUN.c.end_time.is_(None)),
    Rollout: (
        ROLLOUT.c.profile_name == bindparam("key_1"),
        ROLLOUT.c.architecture == bindparam("key_2"),
        ROLLOUT.c.state.in_([state.name for state in RolloutState if state.is_open]),
    ),
}


def _of_tenant(table: Table) -> ColumnElement[bool]:
    return table.c.tenant_id == bindparam("tenant_id")


class Statements:
    """The statements for one kind of resource."""

    def __init__(self, kind: Kind) -> None:
        self._table = table = shape_of(kind).table
        key = (_of_tenant(table), table.c.resource_id == bindparam("resource_id"))
        self._changes: dict[tuple[str, ...], Update] = {}

        # By :tenant_id and :resource_id.
        self.get: Select[Any] = select(table).where(*key)
        self.exists: Select[Any] = select(table.c.resource_id).where(*key)
        self.remove: Delete = delete(table).where(*key)
        # The next rows of :tenant_id, with ids beyond :after.
        beyond = table.c.resource_id > bindparam("after")
        self.page: Select[Any] = (
            select(table).where(_of_tenant(table), beyond).order_by(table.c.resource_id).limit(PAGE_ROWS)
        )
        # The row of :tenant_id that has the unique key :key_1, :key_2.
        self.holder: Select[Any] = select(table).where(_of_tenant(table), *_UNIQUE.get(kind, ()))
        # (kind, id) of some rows that refer to the row; None: nothing can.
        self.users: Select[Any] | None = _users(table)

    def change(self, changed: tuple[str, ...]) -> Update:
        """Set the columns `changed` to :new_… in the row that is :old_… throughout."""
        statement = self._changes.get(changed)
        if statement is None:
            as_it_was = [
                # "=" for the key: PostgreSQL doesn't use an index for "IS NOT DISTINCT FROM".
                column == old if column.primary_key else column.is_not_distinct_from(old)
                for column in self._table.columns
                for old in [bindparam(f"old_{column.name}", type_=column.type)]
            ]
            values = {name: bindparam(f"new_{name}", type_=self._table.c[name].type) for name in changed}
            statement = update(self._table).where(*as_it_was).values(values)
            self._changes[changed] = statement
        return statement


def _users(target: Table) -> Select[Any] | None:
    found: list[Select[Any]] = []
    for kind in KINDS:
        table = shape_of(kind).table
        for reference in table.foreign_key_constraints:
            if reference.referred_table is target:
                column = next(column for column in reference.columns if column.name != "tenant_id")
                refers = column == bindparam("resource_id")
                ids = select(literal(kind.__name__).label("kind"), table.c.resource_id).where(_of_tenant(table), refers)
                found.append(select(ids.order_by(table.c.resource_id).limit(3).subquery()))
    return select(union_all(*found).subquery()) if found else None


_OF: Final = {kind: Statements(kind) for kind in KINDS}


def of(kind: Kind) -> Statements:
    """Return the statements for one kind of resource."""
    return _OF[kind]


RUNS_OF_INSTANCE: Final = (
    select(OS_UPDATE_RUN)
    .where(_of_tenant(OS_UPDATE_RUN), OS_UPDATE_RUN.c.instance_id == bindparam("instance_id"))
    .order_by(OS_UPDATE_RUN.c.start_time.desc(), OS_UPDATE_RUN.c.resource_id.desc())
)

LINKS: Final = (
    select(INSTANCE.c.os_type, INSTANCE.c.current_os_id, INSTANCE.c.desired_os_id, func.count())
    .where(_of_tenant(INSTANCE))
    .group_by(INSTANCE.c.os_type, INSTANCE.c.current_os_id, INSTANCE.c.desired_os_id)
)

# Names of parameters that aren't those of columns, which an UPDATE keeps for itself. Locked rows are left out: their
# writer would make this transaction fail.
_OF_TENANT: Final = INSTANCE.c.tenant_id == bindparam("tenant")
_ALIKE: Final = (
    select(INSTANCE.c.resource_id)
    .where(
        _OF_TENANT,
        INSTANCE.c.desired_os_id == bindparam("desired"),
        # An expression, and in the order of ids, so that rows come by the index of the desired OS: there neighbours in
        # the table follow each other, and a page with rows of several links is written once.
        Among(INSTANCE.c.current_os_id.concat(""), listed("current")),
        INSTANCE.c.os_type == bindparam("kind"),
    )
    .order_by(INSTANCE.c.resource_id)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
# Among: PostgreSQL may run the subquery of IN several times, each time for other rows.
RELINK: Final = (
    update(INSTANCE)
    .where(_OF_TENANT, Among(INSTANCE.c.resource_id, _ALIKE.scalar_subquery()))
    .values(desired_os_id=bindparam("new_desired"))
)

# For the rest of a transaction on PostgreSQL. Of a large table it would read all, or all entries of the index, for each
# batch: it can't know how many rows run one of the listed OS Resources.
ONE_BY_ONE_BY_INDEX: Final = select(
    func.set_config("enable_seqscan", "off", True), func.set_config("enable_bitmapscan", "off", True)
)

UNHEARD: Final = (
    select(INSTANCE)
    .where(
        _of_tenant(INSTANCE),
        INSTANCE.c.last_seen < bindparam("deadline"),
        INSTANCE.c.update_status.in_(_IN_PROGRESS),
        tuple_(INSTANCE.c.last_seen, INSTANCE.c.resource_id) > tuple_(bindparam("last_seen"), bindparam("after")),
    )
    .order_by(INSTANCE.c.last_seen, INSTANCE.c.resource_id)
    .limit(PAGE_ROWS)
)

# Shared with others that look, and with none that moves it: two that move each other's would each see the old tree.
REGION_AROUND: Final = (
    select(REGION.c.parent_id)
    .where(_of_tenant(REGION), REGION.c.resource_id == bindparam("resource_id"))
    .with_for_update(read=True)
)

# Every other kind refers to one of these, so a tenant that holds anything holds one of them.
_ROOTS: Final = tuple(kind for kind in KINDS if kind not in (Instance, OSUpdateRun, Rollout))
_FIRST_TENANTS: Final = union_all(
    *(
        select(func.min(shape_of(kind).table.c.tenant_id).label("tenant_id")).where(
            shape_of(kind).table.c.tenant_id > bindparam("after")
        )
        for kind in _ROOTS
    )
).subquery()
NEXT_TENANT: Final = select(func.min(_FIRST_TENANTS.c.tenant_id))

# As `page`, with the lists blank, which may be half a million characters each.
OS_WITHOUT_LISTS: Final = (
    select(*(literal("").label(column.name) if column.name in LISTS else column for column in OS_RESOURCE.columns))
    .where(_of_tenant(OS_RESOURCE), OS_RESOURCE.c.resource_id > bindparam("after"))
    .order_by(OS_RESOURCE.c.resource_id)
    .limit(PAGE_ROWS)
)
