"""The simulated apt keeps the contract that the real one keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attrs import define, field

from edge_day2.testing.apt_contract import AptContract, RepositoryBench
from edge_day2.testing.model_apt_node import ModelAptNode, newer


@define
class ModelBench:
    """A simulated node and its repository."""

    apt: ModelAptNode = field(factory=ModelAptNode)
    agent_package: str = "agent"
    helper_package: str = "helper"

    def publish(
        self, name: str, version: str, *, depends: tuple[str, ...] = (), conflicts: tuple[str, ...] = ()
    ) -> None:
        if name not in self.apt.available or newer(version, self.apt.available[name]):
            self.apt.available[name] = version
            self.apt.depends = {**self.apt.depends, name: depends}
            self.apt.conflicts = {**self.apt.conflicts, name: conflicts}

    def publish_broken(self, name: str, version: str) -> None:
        self.publish(name, version)
        self.apt.broken |= {name}

    def mend(self, name: str) -> None:
        self.apt.broken -= {name}

    def install_by_hand(self, name: str, version: str) -> None:
        self.apt.packages[name] = version

    def interrupt(self, name: str, version: str) -> None:
        self.apt.half = ((name, version),)

    def hold(self, name: str) -> None:
        self.apt.held |= {name}

    def take_down(self) -> None:
        self.apt.online = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.apt.locked = True
        yield
        self.apt.locked = False


class TestModelApt(AptContract):
    @pytest.fixture
    def bench(self) -> RepositoryBench:
        return ModelBench()
