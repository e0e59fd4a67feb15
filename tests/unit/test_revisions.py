"""Which revisions a setting selects."""

from __future__ import annotations

import pytest

from edge_day2.domain.revisions import check_revision, revision_order, select_revisions
from edge_day2.errors import InvalidValue

AVAILABLE = ("main", "0.9.10", "0.9.9", "0.10.0", "1.9.9", "0.9.8", "0.9.11-dev", "0.9.08", "0.9", "0.9.9.1")


def test_an_exact_setting_selects_the_revision_of_that_name() -> None:
    assert select_revisions("0.9.9", AVAILABLE) == ("0.9.9",)
    assert select_revisions("main", AVAILABLE) == ("main",)
    assert select_revisions("0.9.11-dev", AVAILABLE) == ("0.9.11-dev",)


def test_a_setting_that_makes_sense_is_handed_back() -> None:
    assert [check_revision(setting) for setting in ("0.9.8", "~0.9.0", "main")] == ["0.9.8", "~0.9.0", "main"]


def test_an_exact_setting_that_is_not_there_selects_nothing() -> None:
    assert select_revisions("0.9.1", AVAILABLE) == ()


def test_a_selector_picks_the_same_minor_release_from_the_patch_on_in_order() -> None:
    assert select_revisions("~0.9.9", AVAILABLE) == ("0.9.9", "0.9.10")
    assert select_revisions("~0.9.0", AVAILABLE) == ("0.9.8", "0.9.9", "0.9.10")
    assert select_revisions("~0.10.0", AVAILABLE) == ("0.10.0",)


def test_a_selector_never_picks_what_is_not_three_plain_numbers() -> None:
    assert select_revisions("~0.0.0", ("main", "0.0.0-dev", "0.0.1rc", "0.0")) == ()
    assert select_revisions("~0.9.11", AVAILABLE) == ()


def test_revisions_are_ordered_by_their_numbers_and_other_names_come_last() -> None:
    assert sorted(AVAILABLE, key=revision_order)[:5] == ["0.9.8", "0.9.9", "0.9.10", "0.10.0", "1.9.9"]
    assert sorted(["main", "0.1.0", "dev"], key=revision_order) == ["0.1.0", "dev", "main"]


@pytest.mark.parametrize(
    "setting", ["", "~", "~main", "~0.9", "~0.9.x", "~0.9.0-dev", "~~0.9.0", "..", ".hidden", "a/b", "a b", "a" * 129]
)
def test_a_setting_that_is_neither_name_nor_selector_is_refused(setting: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_revision(setting)

    assert (caught.value.field, caught.value.value) == ("osProfileRevision", setting)
    with pytest.raises(InvalidValue):
        select_revisions(setting, AVAILABLE)
