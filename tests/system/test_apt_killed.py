"""kill -9 of agent, apt-get and dpkg at random moments of a real update, until it is done all the same.

`EDGE_DAY2_KILLS` says how many kills there are at least.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apt_node import Node
from apt_repository import DebPackage, missing_tools
from apt_world import AptWorld, apt_world
from conftest import MEASURED

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "apt is here")

KILLS = int(os.environ.get("EDGE_DAY2_KILLS", "24"))
KILLS_IN_A_ROUND = 8
# Long enough that a moment in them can be hit.
SCRIPTS = {"preinst": "sleep 0.05", "postinst": "sleep 0.1"}
NAMES = ("agent", "helper", "one", "two", "three", "four")
OLD = tuple(DebPackage(name=name, scripts=SCRIPTS) for name in NAMES)
NEW = (
    *(DebPackage(name=name, version="2", scripts=SCRIPTS) for name in NAMES),
    DebPackage(name="new", depends="lib", scripts=SCRIPTS),
    DebPackage(name="lib", scripts=SCRIPTS),
)
WANTED = {package.name: package.version for package in NEW}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AptWorld]:
    with apt_world(tmp_path) as made:
        made.has(*OLD)
        made.repository.publish(*NEW)
        yield made


def test_an_update_that_is_killed_again_and_again_is_done_and_told(
    world: AptWorld, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(20_261)
    whole = tmp_path / "whole"
    shutil.copytree(world.root.path, whole, symlinks=True)
    killed: Counter[str] = Counter()
    rounds = 0
    began = time.monotonic()
    while killed.total() < KILLS:
        rounds += 1
        shutil.rmtree(world.root.path)
        shutil.copytree(whole, world.root.path, symlinks=True)
        node = Node(tmp_path / f"node{rounds}", world)
        killed.update(node.kill(chance) for _ in range(KILLS_IN_A_ROUND))
        node.finish()
        node.check(WANTED)
    victims = ", ".join(f"{name} {count}" for name, count in sorted(killed.items()))
    record_property(
        MEASURED,
        f"kill -9 during {rounds} updates with real apt, {killed.total()} times ({victims}): every database sound, "
        f"every report heard, {time.monotonic() - began:.0f} s",
    )


def test_an_agent_whose_own_package_kills_it_in_the_middle_comes_back_to_a_sound_database(
    world: AptWorld, tmp_path: Path
) -> None:
    node = Node(tmp_path / "node", world)
    deadly = {
        "preinst": f"kill -9 $(cat {node.folder}/pid); sleep 0.5; echo preinst >> {node.folder}/killed",
        "postinst": f"kill -9 $(cat {node.folder}/pid); sleep 0.5; echo postinst >> {node.folder}/killed",
    }
    world.repository.publish(*NEW[1:], DebPackage(name="agent", version="2", scripts=deadly))

    node.finish()

    node.check(WANTED)
    assert (node.folder / "killed").read_text() == "preinst\npostinst\n"
    assert [name for name, _ in node.heard() if name == "FAILED"] == []
