"""From JSON to attrs classes and back, without guessing: what isn't exactly of its type is an error.

cattrs by itself makes 5 of "5", True of "no" and "None" of nothing.
"""

from __future__ import annotations

from datetime import datetime

from cattrs import Converter


def strict_converter() -> Converter:
    """Return a converter that refuses unknown fields and wrong types. Instants are ISO 8601 texts with an offset."""
    converter = Converter(forbid_extra_keys=True, detailed_validation=False)

    def strictly(kind: type) -> None:
        def check(value: object, _: object) -> object:
            if type(value) is not kind:
                raise TypeError(f"found {value!r}, expected {kind.__name__}")
            return value

        converter.register_structure_hook(kind, check)

    for kind in (str, int, bool):
        strictly(kind)

    def instant(value: object, _: object) -> datetime:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or moment.tzinfo is None:
            raise TypeError(f"found {value!r}, expected an aware instant")
        return moment

    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(datetime, instant)
    return converter
