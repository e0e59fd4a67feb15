"""The example of docs/rollouts.md is true, and what it says of defaults is."""

from __future__ import annotations

import doctest
from datetime import timedelta
from pathlib import Path

import attrs

from edge_day2.domain.rollout import RolloutPolicy

DOCUMENT = Path(__file__).parents[2] / "docs" / "rollouts.md"


def test_every_example_in_the_document_is_true() -> None:
    found = doctest.testfile(str(DOCUMENT), module_relative=False, optionflags=doctest.REPORT_NDIFF, encoding="utf-8")

    assert found.attempted > 20
    assert found.failed == 0


def test_the_defaults_are_those_that_the_document_names() -> None:
    policy, text = RolloutPolicy(), DOCUMENT.read_text(encoding="utf-8")

    assert policy.waves == (100, 1_000, 5_000, 10_000)
    assert "| `waves` | `(100, 1_000, 5_000, 10_000)` |" in text
    assert (policy.soak, policy.settled_share, policy.max_failed_share) == (timedelta(hours=24), 9_500, 200)
    assert all(f"`{attribute.name}`" in text for attribute in attrs.fields(RolloutPolicy))
