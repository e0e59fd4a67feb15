"""Documents that are generated are what would be generated now, and what documents point to is there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_day2.domain.flow import Flow
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.testing.flow_diagrams import flows_document

ROOT = Path(__file__).parents[2]
FLOWS_DOCUMENT = ROOT / "docs" / "flows.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def anchors(document: Path) -> set[str]:
    """What a link into the document may name: its headings, as GitHub writes them in addresses."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text(encoding="utf-8"))

    for name, anchor in links:
        target = document.parent / name if name else document
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_every_name_that_an_example_imports_is_there(document: Path) -> None:
    found = re.findall(
        r"^(?:>>> )?from (edge_day2[\w.]*) import ([\w, ]+)", document.read_text(encoding="utf-8"), re.MULTILINE
    )

    for module, names in found:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_the_document_of_the_flows_is_fresh() -> None:
    assert FLOWS_DOCUMENT.read_text(encoding="utf-8") == flows_document(), "stale: run `make docs`"


@pytest.mark.parametrize("flow", [IMMUTABLE_FLOW, MUTABLE_FLOW], ids=lambda flow: str(flow.name))
def test_the_document_tells_of_every_state_event_and_command(flow: Flow[Any]) -> None:
    document = flows_document()

    assert all(f"| {state} |" in document for state in flow.states)
    assert all(f"| `{event}` |" in document for event in flow.events)
    assert all(f"`{event}` → {target}" in document for (_, event), target in flow.table.items())


def test_the_document_is_written_to_the_path_that_is_named(tmp_path: Path) -> None:
    written = tmp_path / "flows.md"

    module = "edge_day2.testing.flow_diagrams"
    subprocess.run([sys.executable, "-m", module, str(written)], check=True)
    printed = subprocess.run([sys.executable, "-m", module], check=True, capture_output=True, encoding="utf-8")

    assert written.read_text(encoding="utf-8") == printed.stdout == flows_document()
