"""The simulated node keeps the contract of AptSourcesPort; tests/system/test_apt_sources.py says it of the real one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_day2.ports.apt_sources import AptSourcesPort
from edge_day2.testing.apt_sources_contract import AptSourcesContract
from edge_day2.testing.faults import Calls, Fault, PlannedFault
from edge_day2.testing.model_apt_node import ModelAptNode


class TestModelAptNode(AptSourcesContract):
    """The simulated node."""

    @pytest.fixture
    def apt_sources(self) -> AptSourcesPort:
        return ModelAptNode()

    @pytest.fixture
    def two_sources(self) -> tuple[str, str]:
        return "Types: deb", "Types: deb-src"

    @pytest.fixture
    def in_effect(self, apt_sources: ModelAptNode) -> Callable[[], int]:
        return lambda: len(apt_sources.sources)

    @pytest.fixture
    def break_next(self, apt_sources: ModelAptNode) -> Callable[[], None]:
        def plan() -> None:
            apt_sources.calls = Calls(PlannedFault(1, Fault.FAILS))

        return plan
