"""The statements of rollouts: how the instances stand, and who is admitted, whatever their number.

The order of hosts in a rollout is the circle of their buckets, turned by its offset (`domain.rollout`). Whom it covers
is said once, in `_COVERED`, and means the same as `domain.rollout_progress`.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from sqlalchemy import (
    FromClause,
    Select,
    Update,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from edge_day2.adapters.storage.report_context import Among
from edge_day2.adapters.storage.rows import Plain, to_microseconds
from edge_day2.adapters.storage.schema import HOST, INSTANCE, OS_RESOURCE, OS_UPDATE_POLICY, SITE
from edge_day2.domain.resources import Link, OSType, Provisioning, Trust, UpdatePolicyKind
from edge_day2.domain.rollout import BUCKETS, Admission, Rollout
from edge_day2.domain.rollout_progress import FAILURES

_TENANT: Final[BindParameter[str]] = bindparam("tenant")
_OF_TENANT: Final = INSTANCE.c.tenant_id == _TENANT
_HOST: Final = and_(HOST.c.tenant_id == INSTANCE.c.tenant_id, HOST.c.resource_id == INSTANCE.c.host_id)
_PICKS_AN_OS: Final = (
    select(literal_column("1"))
    .where(
        OS_UPDATE_POLICY.c.tenant_id == INSTANCE.c.tenant_id,
        OS_UPDATE_POLICY.c.resource_id == INSTANCE.c.os_update_policy_id,
        or_(OS_UPDATE_POLICY.c.target_os_id.is_not(None), OS_UPDATE_POLICY.c.kind == UpdatePolicyKind.LATEST.name),
    )
    .exists()
)
_COVERED: Final = (
    _OF_TENANT,
    INSTANCE.c.provisioning == Provisioning.PROVISIONED.name,
    HOST.c.trust == Trust.TRUSTED.name,
    ~_PICKS_AN_OS,
)
_SINCE: Final[BindParameter[int]] = bindparam("since")
_FAILED: Final = func.coalesce(
    and_(
        INSTANCE.c.update_status.in_(sorted(status.name for status in FAILURES)),
        INSTANCE.c.update_timestamp >= func.coalesce(INSTANCE.c.admitted_at, _SINCE),
    ),
    literal_column("FALSE"),
)


@functools.lru_cache(maxsize=64)
def wave_links(waves: tuple[int, ...]) -> Select[Any]:
    """Count the instances that a rollout with these waves covers, by wave, link, and whether they failed.

    By :tenant, :profile, :architecture, :offset and :since.
    """
    place = (HOST.c.bucket + bindparam("offset")) % literal_column(str(BUCKETS))
    wave: ColumnElement[Any] = case(
        *((place < literal_column(str(end)), literal_column(str(number))) for number, end in enumerate(waves))
    )
    group = select(OS_RESOURCE.c.resource_id).where(
        OS_RESOURCE.c.tenant_id == _TENANT,
        OS_RESOURCE.c.os_type == OSType.IMMUTABLE.name,
        OS_RESOURCE.c.profile_name == bindparam("profile"),
        OS_RESOURCE.c.architecture == bindparam("architecture"),
    )
    # Grouped by the columns of a subquery: PostgreSQL doesn't see that two expressions with parameters are the same.
    each = (
        select(
            wave.label("wave"),
            INSTANCE.c.current_os_id,
            INSTANCE.c.desired_os_id,
            case((_FAILED, literal_column("1")), else_=literal_column("0")).label("failed"),
        )
        .select_from(INSTANCE.join(HOST, _HOST))
        .where(*_COVERED, INSTANCE.c.current_os_id.in_(group))
        .subquery()
    )
    columns = (each.c.wave, each.c.current_os_id, each.c.desired_os_id, each.c.failed)
    return select(*columns, func.count()).group_by(*columns)


_WAITING: Final = (
    *_COVERED,
    INSTANCE.c.os_type == OSType.IMMUTABLE.name,
    INSTANCE.c.current_os_id == bindparam("current"),
    INSTANCE.c.desired_os_id == bindparam("desired"),
    # The places below the frontier are one or two stretches of the circle.
    or_(
        and_(HOST.c.bucket >= bindparam("from_1"), HOST.c.bucket < bindparam("to_1")),
        and_(HOST.c.bucket >= bindparam("from_2"), HOST.c.bucket < bindparam("to_2")),
    ),
)
_AT_MOST: Final[BindParameter[int]] = bindparam("at_most")
_TARGET: Final[BindParameter[str]] = bindparam("target")


def _admit(chosen: Select[Any]) -> Update:
    # Locked rows are left out, and Among is used, for the reasons that `statements.RELINK` gives.
    locked = chosen.limit(_AT_MOST).with_for_update(skip_locked=True, of=INSTANCE)
    return (
        update(INSTANCE)
        .where(_OF_TENANT, Among(INSTANCE.c.resource_id, locked.scalar_subquery()))
        .values(desired_os_id=bindparam("new_desired"), admitted_at=bindparam("now"))
    )


ADMIT: Final = _admit(select(INSTANCE.c.resource_id).select_from(INSTANCE.join(HOST, _HOST)).where(*_WAITING))


_SITE: Final = and_(SITE.c.tenant_id == HOST.c.tenant_id, SITE.c.resource_id == HOST.c.site_id)
_HERE: Final = INSTANCE.join(HOST, _HOST).outerjoin(SITE, _SITE)
_IN_FLIGHT: Final = (
    *_COVERED,
    INSTANCE.c.desired_os_id == _TARGET,
    INSTANCE.c.current_os_id != _TARGET,
    ~_FAILED,
)


def _in_flight(place: ColumnElement[Any]) -> Select[Any]:
    """Count the instances that are in flight, by where their hosts are."""
    return select(place, func.count()).select_from(_HERE).where(*_IN_FLIGHT).group_by(place)


SITES_IN_FLIGHT: Final = _in_flight(HOST.c.site_id)
REGIONS_IN_FLIGHT: Final = _in_flight(SITE.c.region_id)


def _nth(where: ColumnElement[Any], rows: FromClause) -> ColumnElement[int]:
    """Number the rows of each place: first who is in flight, so that the number of one who waits counts them."""
    order = (rows.c.waits, rows.c.place, rows.c.resource_id)
    return func.row_number().over(partition_by=where, order_by=order)


def _admit_by_place() -> Update:
    columns = (
        INSTANCE.c.resource_id,
        HOST.c.site_id,
        SITE.c.region_id,
        ((HOST.c.bucket + bindparam("offset")) % literal_column(str(BUCKETS))).label("place"),
    )
    flying: Select[Any] = select(*columns, literal_column("0").label("waits")).select_from(_HERE).where(*_IN_FLIGHT)
    waiting: Select[Any] = select(*columns, literal_column("1").label("waits")).select_from(_HERE).where(*_WAITING)
    # No join with the counts of places: PostgreSQL would count again for every row where it expects few of them.
    both = union_all(flying, waiting).subquery()
    at_sites = select(both, _nth(both.c.site_id, both).label("nth")).subquery()
    fit = or_(at_sites.c.waits == 0, at_sites.c.site_id.is_(None), at_sites.c.nth <= bindparam("per_site"))
    in_regions = select(at_sites, _nth(at_sites.c.region_id, at_sites).label("regional")).where(fit).subquery()
    chosen = (
        select(in_regions.c.resource_id)
        .where(
            in_regions.c.waits == 1,
            or_(in_regions.c.region_id.is_(None), in_regions.c.regional <= bindparam("per_region")),
        )
        .order_by(in_regions.c.place, in_regions.c.resource_id)
        .limit(_AT_MOST)
        .subquery()
    )
    return _admit(
        select(INSTANCE.c.resource_id)
        .select_from(INSTANCE.join(chosen, chosen.c.resource_id == INSTANCE.c.resource_id))
        .where(_OF_TENANT)
    )


ADMIT_BY_PLACE: Final = _admit_by_place()
# The largest number that a parameter holds.
_UNLIMITED: Final = 2**31 - 1


def since(rollout: Rollout) -> dict[str, Plain]:
    """Return the parameters that every statement about the rollout takes."""
    return {"tenant": rollout.tenant_id, "since": to_microseconds(rollout.started_at)}


def group_of(rollout: Rollout) -> dict[str, Plain]:
    """Return the parameters of `wave_links`."""
    named: dict[str, Plain] = {"profile": rollout.profile_name, "architecture": rollout.architecture}
    return {**since(rollout), **named, "offset": rollout.offset}


def admitting(rollout: Rollout, link: Link, admission: Admission, now: int, at_most: int) -> dict[str, Plain]:
    """Return the parameters of `ADMIT`."""
    first = -rollout.offset % BUCKETS
    behind = first + admission.below
    return {
        "tenant": rollout.tenant_id,
        "current": link.current_os_id,
        "desired": link.desired_os_id,
        "new_desired": rollout.target_os_id,
        "now": now,
        "at_most": min(at_most, admission.at_most),
        "from_1": first,
        "to_1": min(behind, BUCKETS),
        "from_2": 0,
        "to_2": max(behind - BUCKETS, 0),
    }


def admitting_by_place(rollout: Rollout, link: Link, admission: Admission, now: int, at_most: int) -> dict[str, Plain]:
    """Return the parameters of `ADMIT_BY_PLACE`."""
    return {
        **admitting(rollout, link, admission, now, at_most),
        **since(rollout),
        "offset": rollout.offset,
        "target": rollout.target_os_id,
        "per_site": _UNLIMITED if admission.per_site is None else admission.per_site,
        "per_region": _UNLIMITED if admission.per_region is None else admission.per_region,
    }
