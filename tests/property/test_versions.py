"""Image versions: laws of a total order, and what has no place in it."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_day2.domain.versions import ImageVersion
from edge_day2.errors import InvalidVersion

NUMBERS = st.lists(st.integers(0, 3) | st.integers(0, 10**12), min_size=1, max_size=6)
IDENTIFIER = st.text("012ab-", min_size=1, max_size=3)
SUFFIX = st.just("") | st.lists(IDENTIFIER, min_size=1, max_size=3).map(lambda parts: "-" + ".".join(parts))
TEXTS = st.builds(lambda numbers, suffix: ".".join(map(str, numbers)) + suffix, NUMBERS, SUFFIX)
VERSIONS = TEXTS.map(ImageVersion.parse)


@given(VERSIONS, VERSIONS)
def test_exactly_one_of_less_equal_and_greater_holds(a: ImageVersion, b: ImageVersion) -> None:
    assert [a < b, a == b, a > b].count(True) == 1
    assert (a <= b) == (not a > b)
    assert (a >= b) == (not a < b)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_transitive(a: ImageVersion, b: ImageVersion, c: ImageVersion) -> None:
    low, middle, high = sorted((a, b, c))

    assert low <= middle <= high
    assert low <= high


@given(VERSIONS, VERSIONS)
@example(ImageVersion.parse("3.0"), ImageVersion.parse("3.0.0"))
def test_equal_versions_have_one_hash(a: ImageVersion, b: ImageVersion) -> None:
    assert a != b or hash(a) == hash(b)


@given(st.lists(VERSIONS, min_size=1))
def test_the_latest_does_not_depend_on_the_order_of_the_list(versions: list[ImageVersion]) -> None:
    assert max(versions) == max(reversed(versions)) == reduce(lambda a, b: a if a > b else b, versions)


@given(NUMBERS, NUMBERS)
def test_numbers_compare_as_numbers_part_by_part(a: list[int], b: list[int]) -> None:
    length = max(len(a), len(b))
    padded_a, padded_b = a + [0] * (length - len(a)), b + [0] * (length - len(b))

    version_a, version_b = (ImageVersion.parse(".".join(map(str, numbers))) for numbers in (a, b))

    assert (version_a < version_b) == (padded_a < padded_b)
    assert (version_a == version_b) == (padded_a == padded_b)


@given(NUMBERS, st.lists(IDENTIFIER, min_size=1, max_size=3))
def test_a_pre_release_comes_before_its_release(numbers: list[int], identifiers: list[str]) -> None:
    release = ".".join(map(str, numbers))

    assert ImageVersion.parse(f"{release}-{'.'.join(identifiers)}") < ImageVersion.parse(release)


def test_pre_releases_are_ordered_as_in_semantic_versioning() -> None:
    ordered = [f"1.0.0-{name}" for name in ("alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1")]

    assert all(earlier < later for earlier, later in pairwise(map(ImageVersion.parse, ordered)))


def test_published_versions_are_ordered_by_date_and_build() -> None:
    ordered = ["3.0.20250813.1430", "3.0.20250826.2156", "3.0.20251204.0140", "3.0.20251204.0217", "3.1", "22.04.5"]

    assert all(earlier < later for earlier, later in pairwise(map(ImageVersion.parse, ordered)))


@given(TEXTS)
def test_the_text_is_kept_to_the_letter(text: str) -> None:
    assert str(ImageVersion.parse(text)) == ImageVersion.parse(text).text == text


@given(st.text(st.characters(exclude_characters="-"), max_size=20) | st.text("0123456789.", max_size=8))
@example("")
@example("latest")
@example("1..2")
@example(".1")
@example("1.")
@example("v1.0")
@example("1.0 ")
@example("1.0\n")
@example("1.0+build")
@example("\u0661.\u0662")
@example("1" * 129)
def test_what_is_no_version_is_an_error_and_never_equal(text: str) -> None:
    parts = text.split(".")
    if len(text) <= 128 and all(part.isascii() and part.isdecimal() for part in parts):
        assert ImageVersion.parse(text).text == text
    else:
        with pytest.raises(InvalidVersion) as caught:
            ImageVersion.parse(text)
        assert (caught.value.field, caught.value.value) == ("image version", text)


@pytest.mark.parametrize(
    "text", ["latest", "1..2", "1.", "1-", "1-a..b", "1-ä", "1.0 ", "1.0\n", "\u0661.\u0662", "1" * 129, None, 3.0]
)
def test_examples_of_what_is_no_version(text: object) -> None:
    with pytest.raises(InvalidVersion):
        ImageVersion.parse(text)


def test_the_longest_version_is_a_version() -> None:
    assert ImageVersion.parse("1" * 128) > ImageVersion.parse("1" * 127)


def test_a_version_compares_with_versions_only() -> None:
    version = ImageVersion.parse("3.0")

    assert version != "3.0"
    with pytest.raises(TypeError):
        version < "3.1"  # type: ignore[operator]  # noqa: B015  # the comparison itself is what fails
