"""Where a reader of the change feed stands: the place of an event, and the cursor that callers see of it."""

from __future__ import annotations

import re
from typing import Final

from edge_day2.errors import EventsForgotten, InvalidValue

# (transaction, position in it); every Inventory numbers transactions in the order in which their events are told.
Place = tuple[int, int]

START: Final[Place] = (0, 0)
# More than any transaction has.
LAST_POSITION: Final = 2**31 - 1

_CURSOR: Final = re.compile(r"([0-9]{1,18})\.([0-9]{1,10})", re.ASCII)


def to_cursor(place: Place) -> str:
    """Return the cursor of a reader to whom everything up to `place` was told."""
    return f"{place[0]}.{place[1]}"


def to_place(cursor: str) -> Place:
    """Return the place that a cursor stands for; "" is the beginning.

    Raises:
        InvalidValue: no Inventory gave this cursor.
    """
    if cursor == "":
        return START
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidValue("cursor", cursor, "a cursor that an Inventory gave, or an empty text for the beginning")
    return int(found[1]), int(found[2])


def check_kept(cursor: str, forgotten: Place | None, end: Place | None = None) -> None:
    """Refuse a cursor of a reader to whom something wasn't told that is gone.

    `forgotten` is the last place that was forgotten, `end` the last one there can be; None: not looked at.

    Raises:
        EventsForgotten: events after the cursor were forgotten, or the cursor is one of another database.
    """
    place = to_place(cursor)
    if not cursor:
        return
    if forgotten is not None and place < forgotten:
        raise EventsForgotten(f"events after cursor {cursor!r} were forgotten; read the Inventory, then its end")
    if end is not None and place[0] > end[0]:
        raise EventsForgotten(f"cursor {cursor!r} lies ahead of this Inventory; read the Inventory, then its end")
