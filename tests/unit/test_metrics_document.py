"""docs/metrics_and_logs.md tells of every metric, field and event, as they are declared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from edge_day2.application.notice_log import NOTICE_LEVELS
from edge_day2.domain.log_fields import LOG_FIELDS
from edge_day2.ports.metrics import METRICS

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics_and_logs.md"

EVENTS = {
    "update_began": "an update's first report; `os_resource_id` is the wanted OS",
    "update_done": "it is done",
    "update_failed": "it failed; the text has the node's reason",
    "update_rolled_back": "it failed, and the node runs what it ran before",
    "update_not_needed": "it ended with nothing to do",
    "update_lost": "the node began it and went silent",
    "came_back": "a lost node was heard again",
    "current_os_recorded": "an update brought another current OS",
    "current_os_corrected": "the node runs another image of its profile, and no update was heard of",
    "os_conflict": "the node runs what can't be its current OS; said when it begins",
    "late_report": "a report that was said before what is recorded; nothing is recorded of it",
}


def metrics() -> Iterable[str]:
    yield "| name | kind | unit | labels | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for one in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in one.labels)
        yield f"| `{one.name}` | {one.kind.value} | {one.unit} | {labels} | {one.meaning} |"


def fields() -> Iterable[str]:
    yield "| field | meaning |"
    yield "| --- | --- |"
    for name, meaning in LOG_FIELDS.items():
        yield f"| `{name}` | {meaning} |"


def events() -> Iterable[str]:
    yield "| event | level | meaning |"
    yield "| --- | --- | --- |"
    for kind, level in NOTICE_LEVELS.items():
        yield f"| `{kind.value}` | {logging.getLevelName(level)} | {EVENTS[kind.value]} |"


@pytest.mark.parametrize(("name", "table"), [("metrics", metrics), ("fields", fields), ("events", events)])
def test_the_table_is_what_is_declared(name: str, table: Callable[[], Iterable[str]]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]

    assert found.split("\n") == ["", *table(), "", ""]
