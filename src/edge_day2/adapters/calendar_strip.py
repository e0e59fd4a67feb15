"""A picture of windows: one strip of time for each host or site, as SVG or for a terminal.

Time runs evenly from left to right; days begin at midnight of the picture's time zone, so that a day of 23 or 25 hours
is a bit narrower or wider than the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final
from xml.sax.saxutils import escape

from attrs import field, frozen

from edge_day2.domain.schedules import Window, utc
from edge_day2.errors import InvalidSchedule

_LABEL_WIDTH: Final = 160
_DAY_WIDTH: Final = 84
_MOST_WIDTH: Final = 1600
_ROW: Final = 26
_HEAD: Final = 34
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.day{stroke:#ccc}.row{fill:#f4f4f4}"
    ".open{fill:#2f855a}.blackout{fill:#9aa0a6;fill-opacity:.55}"
)


def _in_order(windows: Iterable[Window]) -> tuple[Window, ...]:
    return tuple(windows)


@frozen
class StripRow:
    """One line of the picture: a label, the windows, and the blackouts that cut them."""

    label: str
    windows: tuple[Window, ...] = field(converter=_in_order)
    blackouts: tuple[Window, ...] = field(default=(), converter=_in_order)


def svg_strip(rows: Sequence[StripRow], start: datetime, stop: datetime, zone: tzinfo = UTC) -> str:
    """Return an SVG document that shows `rows` from `start` to `stop`, with days of `zone`.

    Raises:
        InvalidSchedule: a naive datetime, or `stop` isn't after `start`.
    """
    start, stop = _bounds(start, stop)
    width = min(_MOST_WIDTH, max(_DAY_WIDTH, int(_DAY_WIDTH * ((stop - start) / timedelta(days=1)))))
    height = _HEAD + _ROW * len(rows) + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABEL_WIDTH + width + 10}" height="{height}" role="img">',
        f"<title>Update windows from {_said(start, zone)} to {_said(stop, zone)}</title><style>{_STYLE}</style>",
    ]
    for place, row in enumerate(rows):
        top = _HEAD + place * _ROW
        parts.append(f'<rect class="row" x="{_LABEL_WIDTH}" y="{top}" width="{width}" height="{_ROW - 6}"/>')
        parts.append(f'<text x="4" y="{top + 15}">{escape(row.label)}</text>')
        for kind, windows in (("open", row.windows), ("blackout", row.blackouts)):
            for window, first, last in _within(windows, start, stop):
                left = _LABEL_WIDTH + width * ((first - start) / (stop - start))
                long = max(1.0, width * ((last - first) / (stop - start)))
                parts.append(
                    f'<rect class="{kind}" x="{left:.2f}" y="{top}" width="{long:.2f}" height="{_ROW - 6}">'
                    f"<title>{escape(row.label)}: {kind} {_window_said(window, zone)}</title></rect>"
                )
    shown = max(1, -(-_DAY_WIDTH * _days(start, stop) // width))
    for number, midnight in enumerate(_midnights(start, stop, zone)):
        x = _LABEL_WIDTH + width * ((midnight - start) / (stop - start))
        parts.append(f'<line class="day" x1="{x:.2f}" x2="{x:.2f}" y1="{_HEAD - 6}" y2="{height - 6}"/>')
        if number % shown == 0:
            local = midnight.astimezone(zone)
            parts.append(f'<text x="{x + 3:.2f}" y="18">{_WEEKDAYS[local.weekday()]} {local:%m-%d}</text>')
    return "\n".join([*parts, "</svg>", ""])


def text_strip(
    rows: Sequence[StripRow], start: datetime, stop: datetime, zone: tzinfo = UTC, columns: int = 100
) -> str:
    """Return lines for a terminal: `█` where a window is open, `░` in a blackout, `·` elsewhere, `|` for a midnight.

    A column shows what is open at any moment of it, so that no window is too short to be seen.

    Raises:
        InvalidSchedule: a naive datetime, or `stop` isn't after `start`.
    """
    start, stop = _bounds(start, stop)
    labels = max([len(row.label) for row in rows], default=0)
    columns = max(10, columns - labels - 1)
    column = (stop - start) / columns
    head = [" "] * columns
    for midnight in _midnights(start, stop, zone):
        place = min(columns - 1, int((midnight - start) / column))
        day = f"|{_WEEKDAYS[midnight.astimezone(zone).weekday()]}"
        if place + len(day) <= columns and not "".join(head[place : place + len(day)]).strip():
            head[place : place + len(day)] = day
    lines = [" " * (labels + 1) + "".join(head).rstrip()]
    for row in rows:
        cells = ["·"] * columns
        for mark, windows in (("░", row.blackouts), ("█", row.windows)):
            for _, first, last in _within(windows, start, stop):
                begin = int((first - start) / column)
                end = max(begin + 1, -int((start - last) // column))
                cells[begin : min(end, columns)] = mark * (min(end, columns) - begin)
        lines.append(f"{row.label:{labels}} {''.join(cells)}")
    return "\n".join(lines) + "\n"


def _bounds(start: datetime, stop: datetime) -> tuple[datetime, datetime]:
    start, stop = utc("start", start), utc("stop", stop)
    if stop <= start:
        raise InvalidSchedule("stop", stop, f"an instant after the start, {start.isoformat()}")
    return start, stop


def _within(windows: Iterable[Window], start: datetime, stop: datetime) -> Iterator[tuple[Window, datetime, datetime]]:
    """Yield what overlaps [start, stop), with the ends of the part that does."""
    for window in windows:
        first = max(window.start, start)
        last = stop if window.end is None else min(window.end, stop)
        if first < last:
            yield window, first, last


def _midnights(start: datetime, stop: datetime, zone: tzinfo) -> Iterator[datetime]:
    day = start.astimezone(zone).date()
    while True:
        midnight = datetime.combine(day, time(), zone).astimezone(UTC)
        if midnight >= stop:
            return
        if midnight >= start:
            yield midnight
        day += timedelta(days=1)


def _days(start: datetime, stop: datetime) -> int:
    return -(-(stop - start) // timedelta(days=1))


def _said(instant: datetime, zone: tzinfo) -> str:
    return f"{instant.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def _window_said(window: Window, zone: tzinfo) -> str:
    begins = "for ever" if window.start.year == 1 else _said(window.start, zone)
    return f"from {begins} on" if window.end is None else f"{begins} to {_said(window.end, zone)}"
