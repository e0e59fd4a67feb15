"""Several workers (`inventory_worker`) on one Inventory, any of which may be killed, and what they said was stored."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from attrs import define, field

import inventory_worker
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import Instance, Region
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import store
from inventory_invariants import check_invariants, everything
from inventory_worker import IMPORTED, SHARED_NODES, TENANT, WORKERS

# Generous: it ends with the condition.
_PATIENCE_SECONDS = 120


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        # A look now and then at what can't be waited for.
        time.sleep(0.005)


@define
class Life:
    """One worker's process from start to end."""

    number: int
    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> list[tuple[str, str]]:
        """Return the lines that it has printed whole."""
        lines = self.output.read_text().split("\n")[:-1]
        return [(word, value) for word, _, value in (line.partition(" ") for line in lines)]

    def end(self) -> list[tuple[str, str]]:
        """Kill -9 it where it still lives; return all that it said."""
        self.process.kill()
        self.process.wait()
        return self.said()


@define
class Crowd:
    """The workers, and everything that they have said."""

    url: str
    folder: Path
    seed: int = 0
    lives: dict[int, Life] = field(factory=dict)
    said: set[tuple[str, str]] = field(factory=set)
    reported: dict[int, int] = field(factory=dict)
    errors: Counter[str] = field(factory=Counter)
    _files: list[IO[bytes]] = field(factory=list)

    @classmethod
    @contextmanager
    def on(cls, url: str, folder: Path) -> Iterator[Self]:
        """Store what is there first; end every process at the end."""
        with open_inventory(url) as inventory:
            store(inventory, *inventory_worker.first_content())
        crowd = cls(url, folder)
        try:
            yield crowd
        finally:
            for number in list(crowd.lives):
                crowd.end(number)

    def start(self, number: int, rounds: int = 0) -> None:
        """Start a worker."""
        self.seed += 1
        output = self.folder / f"life-{self.seed}"
        arguments = [self.url, str(number), str(self.seed), str(rounds)]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", inventory_worker.__file__, *arguments], stdout=file
            )
        self.lives[number] = Life(number, process, output)

    def start_all(self, rounds: int = 0) -> None:
        """Start every worker, and wait until each has opened the Inventory."""
        for number in range(WORKERS):
            self.start(number, rounds)
        for number in range(WORKERS):
            self.wait_for(number)

    def wait_for(self, number: int) -> None:
        """Wait until a worker has opened the Inventory."""
        life = self.lives[number]
        until(lambda: life.said() or life.process.poll() is not None, "a worker opens the Inventory")
        assert life.said()[:1] == [("opened", "")]

    def end(self, number: int) -> None:
        """Kill -9 a worker and remember what it said."""
        self._remember(number, self.lives.pop(number).end())

    def finish(self) -> None:
        """Wait until every worker has done its rounds."""
        for number, life in list(self.lives.items()):
            assert life.process.wait(timeout=_PATIENCE_SECONDS) == 0
            self.end(number)

    def _remember(self, number: int, lines: list[tuple[str, str]]) -> None:
        for word, value in lines:
            if word == "reported":
                self.reported[number] = max(self.reported.get(number, 0), int(value))
            elif word == "refused":
                self.errors[value] += 1
            else:
                self.said.add((word, value))

    def check(self, inventory: Inventory) -> None:
        """Refuse an Inventory in which anything is half done, or isn't there although it was said to be."""
        stored = everything(inventory)
        check_invariants(stored)
        regions = {key[2]: found for key, found in stored.items() if isinstance(found, Region)}
        imported = Counter(name.split("-")[1] for name in regions if name.startswith("fleet-"))
        assert set(imported.values()) <= {IMPORTED}
        for word, value in self.said:
            if word == "imported":
                assert imported[value] == IMPORTED
            if word == "added":
                assert f"region-{value}" in regions
        assert [region for region in regions.values() if region.name == "added"] == []
        for number, announced in self.reported.items():
            instance = stored[Instance, TENANT, f"instance-{SHARED_NODES + number}"]
            assert isinstance(instance, Instance)
            assert int(json.loads(instance.update.detail)["message"]) >= announced
