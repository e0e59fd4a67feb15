"""What text every Inventory can store, whichever database is behind it.

The limits are those of the strictest database, PostgreSQL, and hold for all of them, so that what works in a test with
`memory://` works in production. Nothing here knows a database.
"""

from __future__ import annotations

from typing import Final

import attrs

from edge_day2.domain.resources import Region, Resource, check_region
from edge_day2.errors import InvalidResource

# An index entry of PostgreSQL holds 2704 bytes; the widest one is that of an instance's links: tenant and two ids.
MAX_ID_CHARACTERS: Final = 300
MAX_ID_BYTES: Final = 800
# Ids, and the names by which lists are filtered.
_INDEXED: Final = ("_id", ".profile_name", "Region.name", "Site.name", "Host.name")


def is_text(value: str) -> bool:
    """Return whether `value` can be stored: it has no NUL character and no lone surrogate."""
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_storable(resource: Resource, old: Resource | None = None) -> None:
    """Refuse a resource that not every database can hold. What it shares with `old`, which is stored, needs no look.

    Raises:
        InvalidResource: a text has a NUL character or a lone surrogate, or an id is longer than it may be.
    """
    kind = type(resource)
    for attribute in attrs.fields(kind):
        content = getattr(resource, attribute.name)
        if old is None or content is not getattr(old, attribute.name):
            _check(f"{kind.__name__}.{attribute.name}", content)


def check_new(resource: Resource) -> None:
    """Refuse a new resource that no Inventory may hold, whatever else it holds.

    Raises:
        InvalidResource: as `check_storable`, or it is a region inside itself.
    """
    check_storable(resource)
    if isinstance(resource, Region):
        check_region(resource, (resource.parent_id,))


def is_id(value: str) -> bool:
    """Return whether `value` can be stored as an id."""
    return is_text(value) and not _is_too_long(value)


def _is_too_long(value: str) -> bool:
    # No character has more than 4 bytes.
    length = len(value)
    return length > MAX_ID_CHARACTERS or (4 * length > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES)


def _check(name: str, value: object) -> None:
    if isinstance(value, str):
        if not is_text(value):
            raise InvalidResource(name, value, "a text without NUL characters and lone surrogates")
        if name.endswith(_INDEXED) and _is_too_long(value):
            expected = f"at most {MAX_ID_CHARACTERS} characters, and {MAX_ID_BYTES} bytes in UTF-8"
            raise InvalidResource(name, value, expected)
    elif isinstance(value, tuple):
        for item in value:
            _check(name, item)
    elif attrs.has(kind := type(value)):
        for attribute in attrs.fields(kind):
            _check(f"{name}.{attribute.name}", getattr(value, attribute.name))
