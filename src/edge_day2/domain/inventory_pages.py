"""Pages of a list, and the cursors between them.

A cursor says behind which place the next page begins, so that what others add or remove meanwhile moves nothing: what
exists, and matches, all the time is on exactly one page. It is a text for a list's caller to keep and hand back; it
carries a digest of the list that it belongs to, so that it isn't taken for another's.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, Generic, TypeVar, cast

import attrs
from attrs import frozen

from edge_day2.domain.inventory_filters import Places, R, ResourceFilter
from edge_day2.domain.resources import Instance, OSResource, Resource, without_lists
from edge_day2.errors import InvalidValue

T = TypeVar("T")
S = TypeVar("S", bound=Resource)

# Far more than anybody looks at, few enough to be kept in memory.
MOST_ITEMS: Final = 10_000

_MOST_CHARACTERS: Final = 4096
_DIGEST_BYTES: Final = 12

Place = tuple[str | int, ...]


@frozen
class Page(Generic[T]):
    """A part of a list. `cursor` leads to the next page; it is "" on the last one."""

    items: tuple[T, ...]
    cursor: str


def check_size(at_most: int) -> None:
    """Refuse pages that hold nothing, or too much.

    Raises:
        InvalidValue: `at_most` isn't between 1 and 10,000.
    """
    if not 1 <= at_most <= MOST_ITEMS:
        raise InvalidValue("at_most", at_most, f"1 to {MOST_ITEMS} items a page")


def _digest(wanted: ResourceFilter[R], tenant_id: str, place: bytes) -> bytes:
    # ASCII, so that a lone surrogate is a text like any other.
    named = json.dumps([type(wanted).__name__, wanted.fields(), tenant_id])
    return hashlib.sha256(named.encode() + b"\n" + place).digest()[:_DIGEST_BYTES]


def write_cursor(wanted: ResourceFilter[R], tenant_id: str, place: Place) -> str:
    """Return the cursor behind `place` in the tenant's list of what is `wanted`."""
    content = json.dumps(place, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(wanted, tenant_id, content) + content).decode()


def read_cursor(wanted: ResourceFilter[R], tenant_id: str, cursor: str) -> Place | None:
    """Return the place behind which a page begins; None for "", where a list begins.

    Raises:
        InvalidValue: it isn't a cursor, or that of another list: tenant, kind and every field must be the same.
    """
    if cursor == "":
        return None
    expected = "the cursor of a page of this very list"
    if not isinstance(cursor, str) or len(cursor) > _MOST_CHARACTERS:
        raise InvalidValue("cursor", cursor, expected)
    try:
        decoded = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError as error:
        raise InvalidValue("cursor", cursor, expected) from error
    digest, content = decoded[:_DIGEST_BYTES], decoded[_DIGEST_BYTES:]
    if digest != _digest(wanted, tenant_id, content):
        raise InvalidValue("cursor", cursor, expected)
    return tuple(json.loads(content))


def page_from(found: Sequence[R], wanted: ResourceFilter[R], tenant_id: str, *, at_most: int) -> Page[R]:
    """Return the page that begins with `found`, which is in order and goes on beyond the page where the list does."""
    items = tuple(found[:at_most])
    more = len(found) > at_most
    return Page(items, write_cursor(wanted, tenant_id, wanted.place(items[-1])) if more else "")


def page_of(
    resources: Iterable[R], wanted: ResourceFilter[R], places: Places, *, tenant_id: str, after: str, at_most: int
) -> Page[R]:
    """Return a page of those among all the tenant's `resources` of the kind that the filter matches.

    This is what a page is; a storage gives the same at less cost.

    Raises:
        InvalidValue: as `check_size` and `read_cursor`.
    """
    check_size(at_most)
    behind = read_cursor(wanted, tenant_id, after)
    found = (resource for resource in resources if wanted.matches(resource, places))
    placed = sorted(
        ((wanted.place(resource), resource) for resource in found), key=itemgetter(0), reverse=wanted.descending
    )
    if behind is not None:
        placed = [item for item in placed if (item[0] < behind if wanted.descending else item[0] > behind)]
    rest = [for_list(resource) for _, resource in placed[: at_most + 1]]
    return page_from(rest, wanted, tenant_id, at_most=at_most)


def for_list(resource: S) -> S:
    """Return `resource` as lists have it: without lists of CVEs and packages, half a million characters each."""
    if isinstance(resource, OSResource):
        return cast(S, without_lists(resource))
    if isinstance(resource, Instance) and resource.existing_cves:
        return attrs.evolve(resource, existing_cves="")
    return resource
