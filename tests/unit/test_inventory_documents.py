"""The example of docs/operations.md that looks at lists runs as it stands, on a fleet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import evolve

from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.testing.inventory_contents import plain_fleet, store

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_example_of_a_dashboard_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fleet = plain_fleet("11111111-1111-1111-1111-111111111111")
    failed = UpdateRecord(status=InventoryStatus.FAILED)
    with open_inventory("sqlite:///inventory.db") as inventory:
        store(inventory, *fleet.resources)
        with inventory.writing() as unit:
            unit.replace(fleet.instance, evolve(fleet.instance, update=failed))
    example = re.search(r"### Lists and dashboards\n\n```python\n(.*?)```", OPERATIONS, re.DOTALL)
    assert example is not None

    exec(compile(example[1], "docs/operations.md", "exec"), {"europe": "region-country"})

    assert capsys.readouterr().out == "{'Update failed': 1}\nline 4 plant 3.0.20251104.0140 to 3.1\n"
