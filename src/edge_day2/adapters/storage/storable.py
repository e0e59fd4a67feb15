"""What text every Inventory can store, whichever database is behind it.

The limits are those of the strictest database, PostgreSQL, and hold for all of them, so that what works in a test with
`memory://` works in production. Nothing here knows a database.
"""

from __future__ import annotations

from typing import Final

import attrs

from edge_day2.domain.resources import Resource
from edge_day2.errors import InvalidResource

# An index entry of PostgreSQL holds 2704 bytes; the widest ones are (tenant, id) and (tenant, profile name, image id).
MAX_ID_CHARACTERS: Final = 300


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
        InvalidResource: a text has a NUL character or a lone surrogate, or an id has more than 300 characters.
    """
    kind = type(resource)
    for attribute in attrs.fields(kind):
        content = getattr(resource, attribute.name)
        if old is None or content is not getattr(old, attribute.name):
            _check(f"{kind.__name__}.{attribute.name}", content)


def _check(name: str, value: object) -> None:
    if isinstance(value, str):
        if not is_text(value):
            raise InvalidResource(name, value, "a text without NUL characters and lone surrogates")
        if len(value) > MAX_ID_CHARACTERS and name.endswith(("_id", ".profile_name")):
            raise InvalidResource(name, value, f"at most {MAX_ID_CHARACTERS} characters")
    elif isinstance(value, tuple):
        for item in value:
            _check(name, item)
    elif attrs.has(kind := type(value)):
        for attribute in attrs.fields(kind):
            _check(f"{name}.{attribute.name}", getattr(value, attribute.name))
