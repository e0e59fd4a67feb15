"""The example in docs/change_feed.md runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from edge_day2.domain.inventory_events import EventKind

DOCUMENT = (Path(__file__).parents[2] / "docs" / "change_feed.md").read_text(encoding="utf-8")


def test_the_example_of_the_change_feed_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)

    subprocess.run([sys.executable, "-W", "error", "-c", example], check=True, cwd=tmp_path)


def test_the_document_tells_of_every_kind_of_event_and_its_details() -> None:
    rows = [line.split("|") for line in DOCUMENT.splitlines() if line.startswith("| ") and "_" in line]
    told = {name: row[3] for row in rows for name in re.findall("[A-Z_]{6,}", row[1])}

    assert set(told) == {kind.name for kind in EventKind}
    for kind in EventKind:
        for name in re.findall(r"\b[a-z]+(?:_[a-z]+)*\b", kind.value.partition(": ")[2].replace("(", " ")):
            if "_" in name or name in {"from", "to", "count", "fields", "text", "reason"}:
                assert name in told[kind.name]
