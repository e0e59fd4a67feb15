"""The contract of AptSourcesPort as tests: subclass it, say in fixtures what to test, and let pytest run it.

Needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from edge_day2.ports.apt_sources import AptSourcesPort
from edge_day2.ports.failures import NodeFailure


class AptSourcesContract:
    """What every adapter of AptSourcesPort keeps. A subclass gives the fixtures; each test begins with no source."""

    until: datetime | None = None

    @pytest.fixture
    def apt_sources(self) -> AptSourcesPort:
        """The port under test."""
        raise NotImplementedError("a subclass says which adapter is tested")

    @pytest.fixture
    def two_sources(self) -> tuple[str, str]:
        """Two sources that can be read."""
        raise NotImplementedError("a subclass says which sources there are")

    @pytest.fixture
    def in_effect(self) -> Callable[[], int]:
        """Return how many sources of ours the node has now."""
        raise NotImplementedError("a subclass says how sources are counted")

    @pytest.fixture
    def break_next(self) -> Callable[[], None]:
        """Let the next call fail, whatever it is given."""
        raise NotImplementedError("a subclass says how sources fail")

    def test_what_is_given_is_the_whole_set(
        self, apt_sources: AptSourcesPort, two_sources: tuple[str, str], in_effect: Callable[[], int]
    ) -> None:
        apt_sources.replace(two_sources, self.until)
        assert in_effect() == 2

        apt_sources.replace(two_sources[1:], self.until)
        assert in_effect() == 1

    def test_the_same_set_may_be_given_again(
        self, apt_sources: AptSourcesPort, two_sources: tuple[str, str], in_effect: Callable[[], int]
    ) -> None:
        for _ in range(2):
            apt_sources.replace(two_sources, self.until)

        assert in_effect() == 2

    def test_no_sources_are_an_empty_set(
        self, apt_sources: AptSourcesPort, two_sources: tuple[str, str], in_effect: Callable[[], int]
    ) -> None:
        apt_sources.replace((), self.until)
        assert in_effect() == 0
        apt_sources.replace(two_sources, self.until)

        apt_sources.replace((), self.until)

        assert in_effect() == 0

    def test_a_failure_leaves_the_old_set(
        self,
        apt_sources: AptSourcesPort,
        two_sources: tuple[str, str],
        in_effect: Callable[[], int],
        break_next: Callable[[], None],
    ) -> None:
        apt_sources.replace(two_sources[:1], self.until)
        break_next()

        with pytest.raises(NodeFailure):
            apt_sources.replace(two_sources, self.until)

        assert in_effect() == 1
