"""Draws a fleet's history as one self-contained HTML file: a row per node, updates by phase, windows, misfortunes.

Positions in time are percentages of the drawing's width, so that zooming is a matter of that width alone and nothing is
distorted. Frame, style and script are in `fleet_timeline.html`, `.css` and `.js`; all end up in the one file.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2 import OSType
from edge_day2.testing.fault_plan import Misfortune
from fleet_history import Ending, Line, Milestone, NamedWindow, Phase, Row, Run, days_of, updated_over_time
from fleet_outcomes import Standing

_HERE: Final = Path(__file__).parent
_TENANT, _SITE, _GAP = 46, 19, 7
_CURVE: Final = 112
_LANES: Final = 3
_KINDS: Final = {OSType.IMMUTABLE: "immutable", OSType.MUTABLE: "mutable"}
# A label of this share of the width is kept clear of the next one; a letter takes about half a percent.
_LETTER: Final = 0.62
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_FAULTS: Final = {
    Misfortune.FAILED_DOWNLOAD: ("download", "M0-4V1M-3-1.5L0 2.5L3-1.5M-3.5 4.5H3.5"),
    Misfortune.BROKEN_PACKAGE: ("package", "M-3.5-3.5H3.5V3.5H-3.5ZM-3.5 3.5L3.5-3.5"),
    Misfortune.FAILED_COMMIT: ("commit", "M0-4.5L4.5 0L0 4.5L-4.5 0Z"),
    Misfortune.POWER_CUT: ("cut", "M2-6.5L-4.2 1.2H-.4L-2 6.5L4.2-1.2H.4Z"),
    Misfortune.POWER_CUT_IN_TRIAL: ("cut", "M2-6.5L-4.2 1.2H-.4L-2 6.5L4.2-1.2H.4Z"),
    Misfortune.BAD_IMAGE: ("bad", "M-3.5-3.5H3.5V3.5H-3.5ZM-1.7-1.7L1.7 1.7M1.7-1.7L-1.7 1.7"),
    Misfortune.UNHEALTHY_IMAGE: ("unhealthy", "M-3.5-3.5H3.5V3.5H-3.5ZM-2.6 0H-.9L.2-2L.9 1.8L1.4 0H2.6"),
    Misfortune.LOST_NODE: ("gone", "M-4-4L4 4M4-4L-4 4"),
    Misfortune.LOST_REPORT: ("report", "M-1.8 0A1.8 1.8 0 1 0 1.8 0A1.8 1.8 0 1 0-1.8 0Z"),
}
_LEGEND_OF_FAULTS: Final = {
    Misfortune.FAILED_DOWNLOAD: "failed download",
    Misfortune.BROKEN_PACKAGE: "broken package",
    Misfortune.BAD_IMAGE: "image doesn't boot",
    Misfortune.UNHEALTHY_IMAGE: "image isn't healthy",
    Misfortune.FAILED_COMMIT: "failed commit",
    Misfortune.POWER_CUT: "power cut",
    Misfortune.LOST_NODE: "neither slot boots",
    Misfortune.LOST_REPORT: "lost report",
}
_ENDS: Final = {Ending.UPDATED: "updated", Ending.ROLLED_BACK: "back", Ending.FAILED: "failed", Ending.LOST: "lost"}
_END_SHAPES: Final = {
    "updated": "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0-3 0Z",
    "back": "M3-4V4L-4 0Z",
    "failed": "M0-4L4 3.4H-4Z",
    "lost": "M-3.6-3.6H3.6V3.6H-3.6Z",
    "waiting": "M-2.6 0A2.6 2.6 0 1 0 2.6 0A2.6 2.6 0 1 0-2.6 0Z",
    "current": "M-2.6-.9H2.6V.9H-2.6Z",
}
_STANDING_SHAPES: Final = {
    Standing.UPDATED: "updated", Standing.CURRENT: "current", Standing.ROLLED_BACK: "back",
    Standing.FAILED: "failed", Standing.WAITING: "waiting", Standing.LOST: "lost",
}  # fmt: skip
_ENDINGS_SAID: Final = {
    Ending.UPDATED: "updated", Ending.UP_TO_DATE: "looked for updates, nothing to do", Ending.FAILED: "failed",
    Ending.ROLLED_BACK: "rolled back", Ending.LOST: "lost", Ending.FETCHED: "image downloaded ahead of the window",
    Ending.GIVEN_UP: "download ahead of the window failed", Ending.OPEN: "still under way at the end",
}  # fmt: skip


@frozen(kw_only=True)
class Picture:
    """What the picture shows.

    Attributes:
        title: what is said above it, and `subtitle` in a second line.
        tenants: the tenants in their order, with what is said of each.
    """

    title: str
    subtitle: str
    begin: datetime
    end: datetime
    rows: Sequence[Row]
    milestones: Sequence[Milestone]
    tenants: Sequence[tuple[str, str]]

    def x(self, at: datetime) -> str:
        """Return where an instant lies, in percent of the width."""
        share = min(max((at - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"


def write_timeline(path: Path, picture: Picture) -> None:
    """Write the picture to `path`; folders that are missing are made.

    Raises:
        OSError: the file can't be written.
    """
    body = _Body(picture)
    head = _head(picture)
    page = (
        (_HERE / "fleet_timeline.html")
        .read_text(encoding="utf-8")
        .format(
            title=html.escape(picture.title),
            subtitle=html.escape(picture.subtitle),
            style=(_HERE / "fleet_timeline.css").read_text(encoding="utf-8"),
            script=(_HERE / "fleet_timeline.js").read_text(encoding="utf-8"),
            symbols="".join(_symbols(body.row_height)),
            figures="".join(_figures(picture)),
            legend="".join(_legend()),
            days="".join(_day_buttons(picture)),
            curve_side="".join(_curve_side(picture)),
            curve=head,
            curve_height=_CURVE,
            height=body.height,
            bar=round(body.row_height * 0.7),
            side="".join(body.side),
            plot="".join(body.plot),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _tag(name: str, content: str = "", **attributes: object) -> str:
    """Return an element; `content` is markup, attribute values are escaped. `class_` and `data_t` as one expects."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}>{content}</{name}>" if content else f"<{name}{said}/>"


def _text(content: str, **attributes: object) -> str:
    return _tag("text", html.escape(content), **attributes)


def _moment(at: datetime) -> str:
    return f"{_WEEKDAYS[at.weekday()]} {at:%H:%M}"


def _length(length: timedelta) -> str:
    minutes = length.total_seconds() / 60
    if minutes < 1:
        return f"{length.total_seconds():.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


class _Body:
    """Lays the rows out, and draws the side column and the plot."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self.row_height = 14 if len(picture.rows) <= 60 else 9 if len(picture.rows) <= 320 else 4
        self.side: list[str] = []
        self.plot: list[str] = []
        self.height = 0
        self._grid: list[str] = []
        by_tenant = {name: list(rows) for name, rows in groupby(picture.rows, key=lambda row: row.node.tenant)}
        for name, said in picture.tenants:
            if name in by_tenant:
                self._draw_tenant(name, said, by_tenant[name])
        self.height += _GAP
        self.plot[:0] = _grid(picture)

    def _draw_tenant(self, name: str, said: str, rows: Sequence[Row]) -> None:
        top = self.height
        self.side.append(_text(name, class_="tenant", x=0, y=top + 16))
        self.side.append(_text(said, class_="dim", x=0, y=top + 29))
        self.side.append(_text("updated", class_="dim end", x="100%", y=top + 29))
        self.height += _TENANT
        for (region, site), found in groupby(rows, key=lambda row: (row.node.region, row.node.site)):
            self._draw_site(region, site, list(found))
        self.plot += _milestones(self._picture, name, top, self.height)

    def _draw_site(self, region: str, site: str, rows: Sequence[Row]) -> None:
        label = self.height + _SITE - 5
        updated = sum(row.node.outcome.standing is Standing.UPDATED for row in rows)
        self.side.append(_text(f"{region} · {site}", class_="site", x=0, y=label))
        self.side.append(_text(f"{updated} of {len(rows)}", class_="dim end", x="100%", y=label))
        self.height += _SITE
        top = self.height
        self.plot += _bands(self._picture, rows, top, self.row_height)
        for row in rows:
            middle = self.height + self.row_height / 2
            standing = _STANDING_SHAPES[row.node.outcome.standing]
            self.side.append(_tag("use", href=f"#e-{standing}", class_=f"e-{standing}", x=219, y=middle))
            if self.row_height >= 14:
                self.side.append(_text(row.node.name, class_="name", x=8, y=middle + 3.5))
            self.plot.append(_row(self._picture, row, middle, self.row_height))
            self.height += self.row_height
        self.height += _GAP


def _grid(picture: Picture) -> Iterator[str]:
    hour = timedelta(hours=1)
    at = picture.begin.replace(minute=0, second=0, microsecond=0)
    while at < picture.end:
        level = "day" if at.hour == 0 else "six" if at.hour % 6 == 0 else "hour"
        if at > picture.begin:
            yield _tag("line", class_=level, x1=picture.x(at), x2=picture.x(at), y2="100%")
        at += hour


def _bands(picture: Picture, rows: Sequence[Row], top: int, row_height: int) -> Iterator[str]:
    """Rows side by side that have the same windows share one band for each."""
    for (windows, blackouts), found in groupby(rows, key=lambda row: (row.node.windows, row.node.blackouts)):
        height = row_height * len(list(found))
        for window in windows:
            yield _band(picture, window, "w", "Maintenance window", top, height)
        for blackout in blackouts:
            yield _band(picture, blackout, "b", "Blackout", top, height)
        top += height


def _band(picture: Picture, window: NamedWindow, class_: str, name: str, top: int, height: int) -> str:
    start, end = max(window.start, picture.begin), min(window.end, picture.end)
    width = (end - start) / (picture.end - picture.begin) * 100
    said = f"{name}\n{_moment(window.start)} to {_moment(window.end)} UTC\n{window.source}"
    return _tag("rect", class_=class_, x=picture.x(start), y=top, width=f"{width:.3f}%", height=height, data_t=said)


def _row(picture: Picture, row: Row, middle: float, row_height: int) -> str:
    node, outcome = row.node, row.node.outcome
    parts = [
        _tag("rect", class_="hit", y=-row_height / 2, width="100%", height=row_height),
        _tag("line", class_="base", x2="100%"),
    ]
    for stretch in row.stretches:
        class_ = f"s-{stretch.line.name.lower()}"
        parts.append(_tag("line", class_=class_, x1=picture.x(stretch.start), x2=picture.x(stretch.end)))
    parts += (_run(picture, run) for run in row.runs)
    for mark in row.marks:
        kind, _ = _FAULTS[Misfortune(mark.kind)]
        said = f"{_moment(mark.at)}  {mark.kind}\n{mark.text}"
        parts.append(_tag("use", href=f"#f-{kind}", class_=f"f f-{kind}", x=picture.x(mark.at), data_t=said))
    stands = f"{outcome.standing.value}{f': {outcome.reason}' if outcome.reason else ''}"
    name = f"{node.name}\n{outcome.system.profile_name} {outcome.system.image_id}\nat the end: {stands}"
    return _tag("g", "".join(parts), class_="r", transform=f"translate(0 {middle:g})", data_n=name)


def _run(picture: Picture, run: Run) -> str:
    lines = [
        _tag("line", class_=f"p-{step.phase.name.lower()}", x1=picture.x(step.start), x2=picture.x(step.end))
        for step in run.steps
    ]
    said = [f"{_moment(run.start)} to {_moment(run.end)}  {_ENDINGS_SAID[run.ending]}"]
    if run.why:
        said.append(run.why)
    said += [f"{step.start:%H:%M}  {step.phase.value}, {_length(step.end - step.start)}" for step in run.steps]
    if run.ending in _ENDS:
        end = _ENDS[run.ending]
        lines.append(_tag("use", href=f"#e-{end}", class_=f"e-{end}", x=picture.x(run.end)))
    return _tag("g", "".join(lines), class_="u", data_t="\n".join(said))


def _milestones(picture: Picture, tenant: str, top: int, bottom: int) -> Iterator[str]:
    """Draw a line for each, and its label in the first lane where it doesn't cover another one."""
    lanes = [-100.0] * _LANES
    for milestone in picture.milestones:
        if milestone.tenant not in ("", tenant):
            continue
        x = picture.x(milestone.at)
        place, length = float(x.rstrip("%")), len(milestone.text) * _LETTER
        right = place + length > 100
        start = place - length if right else place
        lane = next((number for number, taken in enumerate(lanes) if taken < start), len(lanes) - 1)
        lanes[lane] = start + length
        y = top + 13 + 14 * lane
        yield _tag("line", class_="m", x1=x, x2=x, y1=y - 9, y2=bottom - _GAP)
        label = _text(milestone.text, class_="m end" if right else "m", x=x, y=y, dx=-5 if right else 5)
        yield _tag("g", label, data_t=f"{_moment(milestone.at)}  {tenant}\n{milestone.text}")


def _head(picture: Picture) -> str:
    """Draw the curves and the axis of time."""
    parts = [*_grid(picture)]
    for milestone in picture.milestones:
        x = picture.x(milestone.at)
        parts.append(_tag("line", class_="m", x1=x, x2=x, y1=0, y2=_CURVE - 18))
    most = max(Counter(row.node.os_type for row in picture.rows).values())
    for os_type, name in _KINDS.items():
        instants = updated_over_time(picture.rows, os_type)
        path = ["M0 100"]
        for number, at in enumerate(instants, start=1):
            path.append(f"H{float(picture.x(at).rstrip('%')) * 100:.0f}V{100 - number / most * 100:.1f}")
        path.append("H10000")
        curve = _tag("path", d="".join(path))
        area = _tag("path", class_="area", d="".join([*path, "V100H0Z"]))
        parts.append(
            _tag(
                "svg", area + curve, class_=f"curve {name}", viewBox="0 0 10000 100", preserveAspectRatio="none",
                x=0, y=8, width="100%", height=_CURVE - 26,
            )
        )  # fmt: skip
    for day in days_of(picture.begin - timedelta(days=1), picture.end):
        if day + timedelta(days=1) > picture.begin:
            at = max(day, picture.begin)
            label = f"{_WEEKDAYS[day.weekday()]} {day:%d %b}".replace(" 0", " ")
            if min(day + timedelta(days=1), picture.end) - at > timedelta(hours=8):
                parts.append(_text(label, class_="axis", x=picture.x(at), dx=4, y=_CURVE - 5))
    at = picture.begin + timedelta(hours=1)
    while at < picture.end:
        if at.hour:
            level = "six" if at.hour % 6 == 0 else "hour"
            parts.append(_text(f"{at:%H:%M}", class_=f"axis mid {level}", x=picture.x(at), y=_CURVE - 5))
        at += timedelta(hours=1)
    return "".join(parts)


def _curve_side(picture: Picture) -> Iterator[str]:
    yield _text("Nodes updated at least once", class_="site", x=0, y=18)
    totals = Counter(row.node.os_type for row in picture.rows)
    for number, (os_type, name) in enumerate(_KINDS.items()):
        y = 38 + 18 * number
        done = len(updated_over_time(picture.rows, os_type))
        yield _tag("line", class_=f"key {name}", x1=0, x2=18, y1=y - 4, y2=y - 4)
        yield _text(f"{name}: {done} of {totals[os_type]}", x=25, y=y)


def _symbols(row_height: int) -> Iterator[str]:
    scale = {14: 1.05, 9: 0.8, 4: 0.5}[row_height]
    for kind, shape in dict(_FAULTS.values()).items():
        yield _tag("path", id=f"f-{kind}", d=shape, transform=f"scale({scale})")
    for kind, shape in _END_SHAPES.items():
        yield _tag("path", id=f"e-{kind}", d=shape, transform=f"scale({scale})")


def _figures(picture: Picture) -> Iterator[str]:
    found = Counter(row.node.outcome.standing for row in picture.rows)
    for standing in Standing:
        shape = _STANDING_SHAPES[standing]
        key = _tag("svg", _shape(shape, f"e-{shape}", _END_SHAPES), viewBox="-6 -6 12 12", aria_hidden="true")
        number = _tag("b", str(found[standing]))
        yield _tag("div", f"{key}{number}<span>{standing.value}</span>", class_="figure")


def _shape(kind: str, class_: str, shapes: dict[str, str]) -> str:
    return _tag("path", class_=class_, d=shapes[kind])


def _legend() -> Iterator[str]:
    def entry(drawing: str, text: str) -> str:
        return f'<span><svg viewBox="0 0 22 12" aria-hidden="true">{drawing}</svg>{html.escape(text)}</span>'

    def line(class_: str) -> str:
        return _tag("line", class_=class_, x1=1, x2=21, y1=6, y2=6)

    phases = (entry(line(f"p-{phase.name.lower()}"), phase.value) for phase in Phase)
    yield _tag("p", "<i>A node</i>" + "".join(phases), class_="keys")
    lines = [entry(_tag("rect", class_="w", x=1, width=20, height=12), "maintenance window")]
    lines.append(entry(_tag("rect", class_="b", x=1, width=20, height=12), "blackout"))
    lines += [entry(line(f"s-{kind.name.lower()}"), kind.value) for kind in Line if kind is not Line.LOST]
    lines.append(entry(_tag("line", class_="m", x1=11, x2=11, y1=0, y2=12), "orchestrator or admin acts"))
    yield _tag("p", "<i>Meanwhile</i>" + "".join(lines), class_="keys")
    shapes = dict(_FAULTS.values())
    faults = (
        entry(_tag("g", _shape(_FAULTS[kind][0], f"f f-{_FAULTS[kind][0]}", shapes), transform="translate(11 6)"), text)
        for kind, text in _LEGEND_OF_FAULTS.items()
    )
    yield _tag("p", "<i>Bad luck</i>" + "".join(faults), class_="keys")


def _day_buttons(picture: Picture) -> Iterator[str]:
    whole = picture.end - picture.begin
    day = timedelta(days=1)
    midnights = days_of(picture.begin, picture.end)
    for start in [picture.begin.replace(hour=0, minute=0, second=0, microsecond=0), *midnights]:
        if start in midnights or start < picture.begin:
            offset = (start - picture.begin) / whole
            yield _tag("button", _WEEKDAYS[start.weekday()], type="button", data_zoom=f"{whole / day:.4f},{offset:.5f}")
