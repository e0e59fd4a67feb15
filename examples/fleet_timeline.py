"""Draws a fleet's history as one self-contained HTML file: windows, updates by phase, faults, and how many are done.

One row is one node. `write_timeline` is given plain data and knows nothing of inventories.
"""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2 import Window
from edge_day2.testing.simulated_node import HistoryEvent, HistoryKind

LEFT, WIDTH, TOP, CURVE, GAP = 170, 1130, 64, 120, 16

# Phase → the flow states that it shows, and its colour (Okabe and Ito's palette, safe for colour-blind eyes).
_INSTALLING: Final = """checking clearing installing clearing_entry staging_entry arming recording updating_sources
    updating_agent restarting updating_helper updating_kernel_command_line installing_packages installing_upgrade
    comparing"""
_ROLLING_BACK: Final = "disarming restoring_default rolling_back settling recording_failure"
PHASES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "download": ("#56b4e9", frozenset({"prefetching", "downloading", "downloading_packages", "downloading_upgrade"})),
    "install": ("#0072b2", frozenset(_INSTALLING.split())),
    "reboot": ("#111111", frozenset({"off", "rebooting"})),
    "verify and commit": ("#009e73", frozenset({"verifying", "committing"})),
    "roll back": ("#d55e00", frozenset(_ROLLING_BACK.split())),
    "wait for the window": ("#b0b0b0", frozenset({"paused", "fetched", "standing_down"})),
}
MARKS: Final[Mapping[str, str]] = {"updated": "#009e73", "failed": "#d55e00", "fault": "#cc79a7", "lost": "#000000"}
_SHORTEST: Final = 1.4  # pixels: a reboot of three minutes must still be seen


@frozen(kw_only=True)
class Row:
    """A node of the picture: its name, its group of rows, and when it may be disturbed."""

    guid: str
    name: str
    group: str
    windows: tuple[Window, ...]


class _Picture:
    def __init__(self, rows: Sequence[Row], begin: datetime, end: datetime) -> None:
        self.rows = rows
        self.height = 5.0 if len(rows) <= 250 else 2.0
        self._begin, self._length = begin, end - begin
        self.tops: dict[str, float] = {}
        self.groups: list[tuple[str, float, float]] = []
        y = float(TOP + CURVE + GAP)
        group = None
        for row in rows:
            if row.group != group:
                y += GAP
                self.groups.append((row.group, y, y))
                group = row.group
            self.tops[row.guid] = y
            y += self.height
            self.groups[-1] = (*self.groups[-1][:2], y)
        self.bottom = y + 28

    def x(self, at: datetime) -> float:
        share = (at - self._begin) / self._length
        return LEFT + WIDTH * min(max(share, 0.0), 1.0)

    def bar(self, guid: str, start: datetime, stop: datetime) -> str:
        left = self.x(start)
        width = max(self.x(stop) - left, _SHORTEST)
        tall = self.height - 1
        return f"M{left:.1f} {self.tops[guid]:.1f}h{width:.1f}v{tall:.1f}h-{width:.1f}z"

    def dot(self, guid: str, at: datetime) -> str:
        size = max(self.height - 1, 2.0)
        return f"M{self.x(at) - size / 2:.1f} {self.tops[guid]:.1f}h{size:.1f}v{size:.1f}h-{size:.1f}z"


def _phase_of(state: str) -> str | None:
    return next((phase for phase, (_, states) in PHASES.items() if state in states), None)


def _bars(picture: _Picture, history: Iterable[HistoryEvent], end: datetime) -> Mapping[str, list[str]]:
    """Return the bars of each phase, from every node's states one after the other."""
    since: dict[str, tuple[str, datetime]] = {}
    bars: dict[str, list[str]] = defaultdict(list)

    def close(guid: str, until: datetime) -> None:
        state, start = since.get(guid, ("", until))
        if (phase := _phase_of(state)) is not None:
            bars[phase].append(picture.bar(guid, start, until))

    for event in history:
        if event.kind is HistoryKind.STATE and event.guid in picture.tops:
            close(event.guid, event.at)
            since[event.guid] = event.text, event.at
    for guid in since:
        close(guid, end)
    return bars


def _marks(picture: _Picture, history: Iterable[HistoryEvent]) -> Mapping[str, list[str]]:
    marks: dict[str, list[str]] = defaultdict(list)
    for event in history:
        if event.guid not in picture.tops:
            continue
        if event.kind is HistoryKind.REPORT and event.text in ("UPDATED", "FAILED"):
            marks[event.text.lower()].append(picture.dot(event.guid, event.at))
        elif event.kind is HistoryKind.FAULT:
            marks["fault"].append(picture.dot(event.guid, event.at))
        elif event.kind is HistoryKind.BOOT and "neither slot" in event.text:
            marks["lost"].append(picture.dot(event.guid, event.at))
    return marks


def _curve(picture: _Picture, history: Iterable[HistoryEvent], text: str) -> str:
    """Return the path of how many nodes have reported `text` at least once, over time."""
    first: dict[str, datetime] = {}
    for event in history:
        if event.kind is HistoryKind.REPORT and event.text == text and event.guid in picture.tops:
            first.setdefault(event.guid, event.at)
    base, scale = TOP + CURVE, CURVE / max(len(picture.rows), 1)
    path = [f"M{LEFT} {base}"]
    for number, at in enumerate(sorted(first.values()), start=1):
        path.append(f"H{picture.x(at):.1f}V{base - number * scale:.1f}")
    return "".join([*path, f"H{LEFT + WIDTH}"])


def _axis(picture: _Picture, begin: datetime, end: datetime) -> Iterable[str]:
    day = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    while day < end:
        if day >= begin:
            x = picture.x(day)
            yield f'<path class="day" d="M{x:.1f} {TOP}V{picture.bottom - 24:.1f}"/>'
            yield f'<text class="axis" x="{x + 4:.1f}" y="{picture.bottom - 8:.1f}">{day:%a %d %b}</text>'
        day += timedelta(days=1)


def _orchestrator(picture: _Picture, history: Iterable[HistoryEvent]) -> Iterable[str]:
    texts: dict[datetime, list[str]] = defaultdict(list)
    for event in history:
        if event.kind is HistoryKind.ORCHESTRATOR:
            texts[event.at].append(event.text)
    for number, (at, said) in enumerate(sorted(texts.items())):
        x, y = picture.x(at), 14 + 12 * (number % 4)
        # Tenants do the same thing at the same moment: once is enough.
        label = html.escape(" / ".join(dict.fromkeys(text.partition(": ")[2] or text for text in said)))
        yield f'<path class="event" d="M{x:.1f} {y + 3}V{picture.bottom - 24:.1f}"/>'
        yield f'<text class="event" x="{x + 3:.1f}" y="{y}">{label}</text>'


def _stories(picture: _Picture, history: Iterable[HistoryEvent]) -> str:
    """Return, as JSON, what the tooltip tells of each node: its name and its lines, oldest first."""
    lines: dict[str, list[str]] = defaultdict(list)
    for event in history:
        if event.guid in picture.tops and event.kind is not HistoryKind.STATE:
            lines[event.guid].append(f"{event.at:%a %H:%M} {event.kind.value}: {event.text}")
    told = [[row.name, round(picture.tops[row.guid], 1), lines[row.guid][-14:]] for row in picture.rows]
    # Inside a script element only a closing tag could end the text.
    return json.dumps(told, separators=(",", ":")).replace("</", "<\\/")


def write_timeline(
    path: Path, history: Sequence[HistoryEvent], rows: Sequence[Row], begin: datetime, end: datetime, title: str
) -> None:
    """Write the picture of `history` to `path`; folders that are missing are made.

    Raises:
        OSError: the file can't be written.
    """
    picture = _Picture(rows, begin, end)
    layers = [*_axis(picture, begin, end)]
    windows = "".join(
        picture.bar(row.guid, max(window.start, begin), min(window.end or end, end))
        for row in rows
        for window in row.windows
    )
    layers.append(f'<path class="window" d="{windows}"/>')
    for phase, bars in _bars(picture, history, end).items():
        layers.append(f'<path class="{phase.replace(" ", "-")}" d="{"".join(bars)}"/>')
    for mark, dots in _marks(picture, history).items():
        layers.append(f'<path class="mark-{mark}" d="{"".join(dots)}"/>')
    for name, top, bottom in picture.groups:
        layers.append(f'<text class="group" x="8" y="{(top + bottom) / 2 + 4:.1f}">{html.escape(name)}</text>')
    layers += _orchestrator(picture, history)
    for text, name in (("UPDATED", "updated"), ("FAILED", "failed")):
        layers.append(f'<path class="curve {name}" d="{_curve(picture, history, text)}"/>')
    layers.append(f'<text class="axis" x="8" y="{TOP + 12}">nodes that have</text>')
    layers.append(f'<text class="axis" x="8" y="{TOP + 26}">updated / failed once</text>')
    layers.append(f'<text class="axis" x="8" y="{TOP + 40}">(of {len(rows)})</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(picture, layers, _stories(picture, history), title))


def _page(picture: _Picture, layers: Sequence[str], stories: str, title: str) -> str:
    colours = {phase.replace(" ", "-"): colour for phase, (colour, _) in PHASES.items()}
    colours |= {f"mark-{mark}": colour for mark, colour in MARKS.items()}
    styles = "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items())
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(name)}</span>'
        for name, colour in [("window", "#f3d98b"), *((phase, colour) for phase, (colour, _) in PHASES.items())]
    ) + "".join(f'<span><b style="background:{colour}"></b>{mark}</span>' for mark, colour in MARKS.items())
    return _TEMPLATE.format(
        title=html.escape(title),
        styles=styles,
        legend=legend,
        width=LEFT + WIDTH + 20,
        height=f"{picture.bottom:.0f}",
        layers="\n".join(layers),
        stories=stories,
        row=picture.height,
    )


_TEMPLATE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
:root{{color-scheme:light dark;--paper:#fff;--ink:#222;--faint:#8886;--off:#111}}
@media (prefers-color-scheme:dark){{:root{{--paper:#16181c;--ink:#ddd;--off:#eee}}}}
body{{background:var(--paper);color:var(--ink);font:13px/1.4 system-ui,sans-serif;margin:20px}}
h1{{font-size:18px;margin:0 0 6px}} .legend span{{margin-right:14px;white-space:nowrap}}
.legend i,.legend b{{display:inline-block;width:14px;height:9px;margin-right:5px}} .legend b{{width:7px;height:7px}}
svg{{display:block;margin-top:10px}} text{{fill:var(--ink);font:11px system-ui,sans-serif}}
.day{{stroke:var(--faint);fill:none}} .event{{stroke:#cc79a7;fill:none;stroke-dasharray:3 3}}
text.event{{stroke:none;fill:#cc79a7}} text.group{{font-weight:600}}
{styles}
.window{{fill:#f3d98b;opacity:.45}} .reboot,.mark-lost{{fill:var(--off)}}
.curve{{fill:none;stroke-width:2}} .curve.updated{{stroke:#009e73}} .curve.failed{{stroke:#d55e00}}
#tip{{position:fixed;display:none;background:var(--paper);border:1px solid var(--faint);padding:6px 9px;
max-width:520px;white-space:pre-wrap;pointer-events:none;box-shadow:0 2px 10px #0004}}
</style></head><body>
<h1>{title}</h1><div class="legend">{legend}</div>
<svg id="fleet" width="{width}" height="{height}" role="img" aria-label="{title}">
{layers}
</svg><div id="tip"></div>
<script>
const nodes = {stories};
const fleet = document.getElementById("fleet"), tip = document.getElementById("tip");
fleet.addEventListener("mousemove", event => {{
  const y = event.clientY - fleet.getBoundingClientRect().top;
  const node = nodes.find(entry => y >= entry[1] && y < entry[1] + {row});
  tip.style.display = node ? "block" : "none";
  if (!node) return;
  tip.textContent = [node[0], ...node[2]].join("\\n");
  tip.style.left = Math.min(event.clientX + 14, innerWidth - 540) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 10) + "px";
}});
fleet.addEventListener("mouseleave", () => tip.style.display = "none");
</script></body></html>
"""
