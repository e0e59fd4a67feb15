"""Pictures of windows, and the JSON file that they are read from."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge_day2.adapters.calendar_strip import StripRow, svg_strip, text_strip
from edge_day2.adapters.schedule_file import read_schedule_file, schedule_book_of
from edge_day2.domain.schedules import Window
from edge_day2.errors import InvalidResource, InvalidSchedule

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SVG = "{http://www.w3.org/2000/svg}"


def bars(svg: str, kind: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(svg)
    found = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == kind]
    return [(float(rect.get("x", "")), float(rect.get("width", ""))) for rect in found]


def test_bars_lie_where_their_windows_do_and_are_cut_at_the_edges() -> None:
    windows = (Window(START - HOUR, START + DAY), Window(START + 3 * DAY))

    svg = svg_strip([StripRow("host", windows)], START, START + 4 * DAY)

    (row,) = bars(svg, "row")
    first, second = bars(svg, "open")
    assert first == pytest.approx((row[0], row[1] / 4))
    assert second == pytest.approx((row[0] + row[1] * 3 / 4, row[1] / 4))


def test_a_window_of_a_second_is_still_seen() -> None:
    window = Window(START + HOUR, START + HOUR + timedelta(seconds=1))

    assert bars(svg_strip([StripRow("host", [window])], START, START + 365 * DAY), "open")[0][1] >= 1
    assert "█" in text_strip([StripRow("host", [window])], START, START + 365 * DAY)


def test_labels_are_escaped() -> None:
    svg = svg_strip([StripRow("<till> & co", [Window(START)], [Window(START)])], START, START + DAY)

    texts = [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "<till> & co" in texts


def test_days_begin_at_midnight_of_the_zone_also_where_a_day_has_25_hours() -> None:
    zone = ZoneInfo("Europe/Warsaw")
    start = datetime(2026, 10, 24, tzinfo=zone)
    svg = svg_strip([StripRow("host", [])], start, datetime(2026, 10, 27, tzinfo=zone), zone)

    lines = [float(line.get("x1", "")) for line in ElementTree.fromstring(svg).iter(f"{SVG}line")]
    first, second, third = lines
    assert (third - second) / (second - first) == pytest.approx(25 / 24, rel=0.01)


def test_an_open_window_in_the_terminal_covers_its_share_of_the_columns() -> None:
    row = StripRow("host", [Window(START + 6 * HOUR, START + 12 * HOUR)], [Window(START + 18 * HOUR)])

    head, line = text_strip([row], START, START + DAY, columns=45).splitlines()

    assert head == "     |Mon"
    assert line == "host " + "·" * 10 + "█" * 10 + "·" * 10 + "░" * 10


def test_a_picture_of_nothing_or_backwards() -> None:
    assert svg_strip([], START, START + DAY).startswith("<svg")
    assert text_strip([], START, START + DAY).strip() == "|Mon"
    with pytest.raises(InvalidSchedule, match="stop"):
        svg_strip([], START, START)
    with pytest.raises(InvalidSchedule, match="start"):
        text_strip([], datetime(2026, 1, 1), START)  # noqa: DTZ001


def content(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "regions": [{"id": "eu", "name": "EU"}],
        "sites": [{"id": "shop", "name": "Shop", "region": "eu"}],
        "hosts": [{"id": "till", "name": "till", "guid": "4c4c4544-0034-5310-8052-b4c04f4a4a31", "site": "shop"}],
        "schedules": [{"name": "nights", "target": {"region": "eu"}, "repeated": {"hours": "2", "day_week": "*"}}],
    }
    return whole | changes


def test_a_file_becomes_a_schedule_book(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    path.write_text(json.dumps(content()), encoding="utf-8")

    assert read_schedule_file(path).window_at("till", START + 2 * HOUR) == Window(START + 2 * HOUR, START + 3 * HOUR)


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        ({"name": "n", "target": {"region": "eu"}}, "schedules[0]"),
        ({"name": "n", "target": {}, "repeated": {}}, "schedules[0].target"),
        ({"name": "n", "target": {"planet": "x"}, "repeated": {}}, "schedules[0].target"),
        ({"name": "n", "target": {"region": 3}, "repeated": {}}, "schedules[0].target.region"),
        ({"name": "n", "target": {"region": "eu"}, "repeated": {"hour": "2"}}, "schedules[0].repeated"),
        ({"name": "n", "target": {"region": "eu"}, "repeated": {"hours": "25"}}, "hours"),
        ({"name": "n", "target": {"region": "eu"}, "kind": "PARTY", "repeated": {}}, "schedules[0].kind"),
        ({"name": "n", "target": {"region": "eu"}, "kind": [], "repeated": {}}, "schedules[0].kind"),
        ({"name": "n", "target": {"region": "eu"}, "single": {"start": "2026-12-01"}}, "schedules[0].single.start"),
        ({"name": "n", "target": {"region": "eu"}, "single": {"start": 5}}, "schedules[0].single.start"),
        ({"name": "n", "target": {"region": "eu"}, "single": {"start": "soon"}}, "schedules[0].single.start"),
        ("nights", "schedules[0]"),
    ],
)
def test_a_schedule_that_is_not_understood_is_refused_with_its_place(schedule: object, field: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        schedule_book_of(content(schedules=[schedule]))

    assert caught.value.field == field


def test_a_file_that_is_not_json_or_misses_a_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    path.write_text("{", encoding="utf-8")

    with pytest.raises(InvalidSchedule, match=r"schedules\.json"):
        read_schedule_file(path)
    wrongs: tuple[object, ...] = ([], {"regions": []}, content(more=1), content(hosts={}))
    for wrong in wrongs:
        with pytest.raises(InvalidSchedule):
            schedule_book_of(wrong)
    with pytest.raises(InvalidResource):
        schedule_book_of(content(hosts=[{"id": "a", "name": "a", "guid": "none"}]))
