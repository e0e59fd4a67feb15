"""kill -9 of the whole agent of an A/B node, at any moment of real updates: nothing is lost, doubled or half done.

EDGE_DAY2_KILLS says how often; from 100 on the images have 200 MB.
"""

from __future__ import annotations

import filecmp
import itertools
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from conftest import MEASURED
from edge_day2.adapters.journal import FileJournal
from edge_day2.domain.agent import in_progress
from edge_day2.domain.statuses import InventoryStatus, UpdateStatusType
from killable_node import MISSING_TOOLS, KillableNode, change_count, killable_node
from wire_server import TENANT

pytestmark = pytest.mark.skipif(bool(MISSING_TOOLS), reason=f"not installed: {' '.join(MISSING_TOOLS)}")

KILLS = int(os.environ.get("EDGE_DAY2_KILLS", "40"))
SIZE = (200 if KILLS >= 100 else 24) << 20
SEED = 11
LONGEST_LIFE_SECONDS = 600

LETTERS = {
    UpdateStatusType.UP_TO_DATE: "U",
    UpdateStatusType.STARTED: "S",
    UpdateStatusType.UPDATED: "P",
    UpdateStatusType.FAILED: "F",
    UpdateStatusType.DOWNLOADING: "D",
    UpdateStatusType.DOWNLOADED: "W",
}
# What the reports of any number of updates form, neighbours that are equal taken together.
GRAMMAR = re.compile(r"U+([DW]*S+(U+|F+|PU+))*")


class Fate:
    """Decides when the agent dies: a moment after something that can be seen from outside has happened so often."""

    def __init__(self, node: KillableNode, chance: random.Random) -> None:
        heard, asked, begun = len(node.manager.told), len(node.files.asked), time.monotonic()
        journal, slots = change_count(node.journal), [change_count(node.slot(slot)) for slot in node.slots]
        variables = change_count(node.machine.variables)
        entries = change_count(node.machine.entries)
        seconds, often = chance.uniform(0.0, 0.5), chance.randint(1, 12)
        signs: list[tuple[Callable[[], bool], float]] = [
            (lambda: time.monotonic() > begun + seconds, 0.0),
            (lambda: journal() >= often, 0.05),
            (lambda: journal() >= often, 0.002),
            (lambda: len(node.manager.told) >= heard + often, 0.02),
            (lambda: len(node.files.asked) > asked, 0.5 * SIZE / (24 << 20)),
            (lambda: any(slot() for slot in slots), 0.5 * SIZE / (24 << 20)),
            (lambda: variables() > 0 or entries() > 0, 0.02),
            (node.reboot_requested, 0.02),
        ]
        self.has_come, longest = chance.choice(signs)
        # Most of what can go wrong lies close behind the sign.
        self.delay = longest * chance.random() ** 3


class Killer:
    """Lets an agent live and die, again and again."""

    def __init__(self, node: KillableNode, kills: int) -> None:
        self.node = node
        self.chance = random.Random(SEED)
        self.kills_left = kills
        self.died_in: Counter[str] = Counter()
        self.power_cuts = 0

    def update_to(self, number: int) -> None:
        """Let the node be updated to this image, through as many lives as it takes."""
        opens = timedelta(seconds=self.chance.choice([0, 2]))
        self.node.want(number, opens)
        while not self._live(lambda: self._is_done(number)):
            pass

    def _is_done(self, number: int) -> bool:
        last = self.node.manager.told[-1:]
        version = self.node.images[number].version
        if [(one.status_type, one.os_image_id) for one in last] != [(UpdateStatusType.UP_TO_DATE, version)]:
            return False
        record = FileJournal(self.node.journal).load()
        return record is not None and not record.outbox and not in_progress(record)

    def _live(self, is_done: Callable[[], bool]) -> bool:
        """Let the agent live until it is done (True), the machine reboots, or its time has come."""
        node, fate = self.node, Fate(self.node, self.chance)
        hangs = time.monotonic() + LONGEST_LIFE_SECONDS
        with node.start() as agent:
            while True:
                agent.check_alive()
                assert time.monotonic() < hangs, f"nothing happens: {node.said}"
                if self.kills_left and fate.has_come():
                    # Not a wait for something: the moment of death is what is varied.
                    time.sleep(fate.delay)
                    agent.kill()
                    self._note_death()
                    return False
                if node.reboot_requested():
                    agent.kill()
                    node.boot()
                    return False
                if is_done():
                    return True
                # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
                time.sleep(0.0002)

    def _note_death(self) -> None:
        self.kills_left -= 1
        record = FileJournal(self.node.journal).load()
        state = record.flow.name if record is not None and record.flow is not None else "idle"
        self.died_in[state] += 1
        # Now and then the machine goes down with it; a reboot that was asked for may still come, or be lost.
        if self.chance.random() < 0.2:
            self.power_cuts += 1
            self.node.boot()
        elif self.chance.random() < 0.5:
            (self.node.folder / "reboot").unlink(missing_ok=True)


def check(node: KillableNode, number: int) -> None:
    """Check that the node runs this image, whole, for good, and is known to."""
    assert filecmp.cmp(node.slot(node.active), node.images[number].raw, shallow=False)
    assert node.machine.variable("LoaderEntryOneShot") is None
    assert node.machine.variable("LoaderEntryDefault") == f"edge_day2-{node.active.value.lower()}.conf"
    assert node.instance.current_os_id == node.images[number].os_resource().resource_id
    node.boot()
    assert (node.folder / "os-release").read_text() == f'IMAGE_VERSION="{node.images[number].version}"\n'


def test_an_agent_that_is_killed_again_and_again_does_every_update(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with killable_node(tmp_path, SIZE) as node:
        killer, updates, begun = Killer(node, KILLS), 0, time.monotonic()
        while killer.kills_left or not updates:
            updates += 1
            number = 2 + updates % 2
            killer.update_to(number)
            check(node, number)
        seconds = time.monotonic() - begun
        history = node.admin.history(TENANT, node.instance.resource_id)
        told = [status for status, _ in itertools.groupby(node.manager.told)]
        said = "".join(LETTERS[status.status_type] for status in told)

    assert GRAMMAR.fullmatch(said), said
    assert said.count("P") == updates
    outcomes = Counter(run.update.status for run in history)
    assert outcomes[InventoryStatus.DONE] == updates
    assert set(outcomes) <= {InventoryStatus.DONE, InventoryStatus.FAILED}
    where = ", ".join(f"{state} {count}" for state, count in killer.died_in.most_common())
    record_property(
        MEASURED,
        f"{KILLS} kills of the agent in {updates} updates of {SIZE >> 20} MB, {killer.power_cuts} of them with the "
        f"machine, {node.boots} boots, {len(node.manager.told)} reports, {seconds:.0f} s; it died in: {where}",
    )
