"""What is remembered of the revision that was reconciled, and what counts as its change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve

from edge_day2.domain.linking import DiscoveredProfile, discovery_digest
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.reconciled import LinkingMode, ReconciledRevision, RevisionChange
from edge_day2.errors import InvalidResource
from orchestrator import EXAMPLES

BEFORE = ReconciledRevision(
    tenant_id="tenant",
    revision="~0.9.0",
    newest="0.9.8",
    digest="0" * 64,
    mode=LinkingMode.MANUAL,
    reconciled_at=datetime(2026, 3, 2, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("changes", "change"),
    [
        ({}, RevisionChange.NONE),
        ({"reconciled_at": datetime(2027, 1, 1, tzinfo=UTC)}, RevisionChange.NONE),
        ({"digest": "1" * 64}, RevisionChange.MANIFESTS),
        ({"newest": "0.9.9", "digest": "1" * 64}, RevisionChange.REVISION),
        ({"revision": "0.9.8"}, RevisionChange.REVISION),
        ({"mode": LinkingMode.AUTOMATIC}, RevisionChange.NONE),
    ],
)
def test_what_has_changed_is_told(changes: dict[str, Any], change: RevisionChange) -> None:
    assert evolve(BEFORE, **changes).change_since(BEFORE) is change
    assert BEFORE.change_since(None) is RevisionChange.FIRST


def test_a_record_says_the_same_while_nothing_but_its_instant_differs() -> None:
    assert BEFORE.says_the_same(evolve(BEFORE, reconciled_at=datetime(2027, 1, 1, tzinfo=UTC)))
    assert not BEFORE.says_the_same(None)
    assert not BEFORE.says_the_same(evolve(BEFORE, mode=LinkingMode.AUTOMATIC))
    assert not BEFORE.says_the_same(evolve(BEFORE, digest="1" * 64))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant_id", ""),
        ("resource_id", ""),
        ("revision", ""),
        ("digest", "abc"),
        ("digest", "F" * 64),
        ("reconciled_at", datetime(2026, 1, 1)),  # noqa: DTZ001
    ],
)
def test_a_record_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidResource, match=field):
        evolve(BEFORE, **{field: value})


def discovered(revision: str = "0.9.8") -> list[DiscoveredProfile]:
    return [
        DiscoveredProfile(revision=revision, profile=OSProfile.from_yaml(path.read_text(), file_name=path.name))
        for path in sorted((EXAMPLES / "0.9.8").iterdir())
    ]


def test_a_digest_stands_for_everything_that_is_published_and_for_no_order() -> None:
    found = discovered()
    digest = discovery_digest(found)

    assert discovery_digest(reversed(found)) == digest
    different = [
        discovered("0.9.9"),
        found[1:],
        [*found, found[0]],
        [evolve(found[0], lists=(("existing_cves", "[]"),)), *found[1:]],
        [evolve(found[0], profile=evolve(found[0].profile, description="news")), *found[1:]],
    ]
    assert len({digest, *map(discovery_digest, different)}) == 6
