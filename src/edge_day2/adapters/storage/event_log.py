"""The change feed of the Inventory in memory: a log that each snapshot sees up to its own end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import field, frozen

from edge_day2.adapters.storage.event_places import check_kept, to_cursor, to_place
from edge_day2.domain.inventory_events import EventPage, InventoryEvent


@frozen
class EventLog:
    """A tenant's events, numbered from 1.

    Logs share their list: what lies beyond a log's `end` is that of a newer one, or was undone. Only the newest log may
    be extended, by one writer at a time.
    """

    end: int = 0
    forgotten: int = 0
    _kept: list[InventoryEvent] = field(factory=list, repr=False, eq=False)

    def extended(self, events: Sequence[InventoryEvent]) -> EventLog:
        """Return this log with more events at its end."""
        del self._kept[self.end - self.forgotten :]
        self._kept.extend(events)
        return EventLog(self.end + len(events), self.forgotten, self._kept)

    def without(self, before: datetime) -> EventLog:
        """Return this log without the events up to the first one that was recorded at `before` or later."""
        kept = self._kept[: self.end - self.forgotten]
        gone = next((place for place, event in enumerate(kept) if event.at >= before), len(kept))
        return EventLog(self.end, self.forgotten + gone, kept[gone:])

    def page(self, after: str, at_most: int) -> EventPage:
        """See `UnitOfWork.events`."""
        check_kept(after, (self.forgotten, 0), (self.end, 0))
        first = max(to_place(after)[0], self.forgotten)
        last = min(first + at_most, self.end)
        events = tuple(self._kept[first - self.forgotten : last - self.forgotten])
        return EventPage(events=events, cursor=to_cursor((last, 0)) if events else after)

    @property
    def cursor(self) -> str:
        """The cursor of a reader who knows everything."""
        return to_cursor((self.end, 0))
