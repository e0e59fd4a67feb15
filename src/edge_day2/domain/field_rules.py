"""Rules that fields of several resources share, as attrs validators; each raises InvalidResource."""

from __future__ import annotations

from typing import Any

import attrs

from edge_day2.errors import InvalidResource


def field_name(instance: object, attribute: attrs.Attribute[Any]) -> str:
    """Return what an error calls the field."""
    return f"{type(instance).__name__}.{attribute.name}"


def not_empty(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """Refuse an empty text."""
    if not isinstance(value, str) or not value:
        raise InvalidResource(field_name(instance, attribute), value, "a text that isn't empty")


def aware(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse a naive datetime; None passes."""
    if value is not None and value.tzinfo is None:
        raise InvalidResource(field_name(instance, attribute), value, "an aware datetime")
