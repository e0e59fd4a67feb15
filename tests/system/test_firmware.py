"""Updates of an immutable node in real firmware, whatever the image is like and whenever the power goes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from vm import disk
from vm.asked import FULL, in_the_full_bench, in_virtual_machines
from vm.boot_loaders import BootLoader, GrubSetup, SystemdBootSetup
from vm.guest_image import Fault, guest_image
from vm.guest_tree import GuestTree, guest_tree
from vm.node_bench import NEW, OLD, NodeBench, NodePolicy, node_bench

CACHE: Final = Path(__file__).parents[2] / ".vm"

pytestmark = in_virtual_machines

_POLICY: Final = NodePolicy()
_ONE_TRIAL: Final = NodePolicy(trial_boots=1)
Bench = Callable[..., AbstractContextManager[NodeBench]]


@pytest.fixture(scope="session")
def tree() -> GuestTree:
    return guest_tree(CACHE)


@pytest.fixture(params=["systemd-boot", "grub"])
def loader(request: pytest.FixtureRequest, tree: GuestTree) -> BootLoader:
    return GrubSetup(tree) if request.param == "grub" else SystemdBootSetup(tree)


@pytest.fixture
def bench(tree: GuestTree, tmp_path: Path) -> Bench:
    def make(
        loader: BootLoader,
        fault: Fault = Fault.NONE,
        policy: NodePolicy = _POLICY,
        lost_writes: random.Random | None = None,
    ) -> AbstractContextManager[NodeBench]:
        old, new = guest_image(CACHE, tree, OLD), guest_image(CACHE, tree, NEW, fault)
        return node_bench(tmp_path, loader, old, new, policy, lost_writes)

    return make


def test_an_update_is_committed_and_told(
    bench: Bench, loader: BootLoader, record_property: Callable[[str, object], None]
) -> None:
    with bench(loader) as node:
        node.machine.power_on()
        node.wait_until_settled()
        record_property("measured", node.measured(f"{loader.name}: update", node.check()))
        assert node.stands_on(NEW)


def test_an_image_that_panics_falls_back_and_is_told(
    bench: Bench, loader: BootLoader, record_property: Callable[[str, object], None]
) -> None:
    with bench(loader, Fault.PANICS, _POLICY if FULL else _ONE_TRIAL) as node:
        node.machine.power_on()
        node.wait_until_settled()
        record_property("measured", node.measured(f"{loader.name}: image that panics", node.check()))
        assert node.stands_on(OLD)
        assert "rolledback (bootloader)" in node.reasons()


@in_the_full_bench
def test_an_image_that_is_not_well_is_rolled_back_and_told(
    bench: Bench, loader: BootLoader, record_property: Callable[[str, object], None]
) -> None:
    with bench(loader, Fault.UNHEALTHY, NodePolicy(health_deadline_seconds=10)) as node:
        node.machine.power_on()
        node.wait_until_settled()
        record_property("measured", node.measured(f"{loader.name}: image that isn't well", node.check()))
        assert node.stands_on(OLD)
        assert "rolledback (criticalservices)" in node.reasons()


@in_the_full_bench
def test_an_image_that_hangs_costs_a_power_cycle_and_falls_back(
    bench: Bench, loader: BootLoader, record_property: Callable[[str, object], None]
) -> None:
    with bench(loader, Fault.SILENT, _ONE_TRIAL) as node:
        node.machine.power_on()
        node.wait_until_up(disk.SLOT_B)
        node.machine.cut_power()
        node.machine.power_on()
        node.wait_until_settled()
        record_property("measured", node.measured(f"{loader.name}: image that hangs, power cycle", node.check()))
        assert node.stands_on(OLD)


@in_the_full_bench
def test_a_garbage_kernel_is_refused_before_it_is_armed(
    bench: Bench, loader: BootLoader, record_property: Callable[[str, object], None]
) -> None:
    with bench(loader, Fault.BAD_KERNEL) as node:
        node.machine.power_on()
        node.wait_until_settled()
        assert node.boots() == 1
        record_property("measured", node.measured(f"{loader.name}: garbage kernel in the image", node.check()))
        assert node.stands_on(OLD)
        assert "failed (bootloader)" in node.reasons()


@in_the_full_bench
def test_a_kernel_that_is_damaged_after_arming_falls_back_and_is_replaced(
    bench: Bench, tree: GuestTree, record_property: Callable[[str, object], None]
) -> None:
    with bench(SystemdBootSetup(tree)) as node:
        node.machine.power_on()
        node.wait_for_state("rebooting")
        node.machine.cut_power()
        node.damage_kernel_of("edge_day2-b.conf")
        node.machine.power_on()
        # The loader gives up and returns to the firmware, which has a second entry for it.
        node.machine.wait_for("BdsDxe: starting", times=2)
        node.wait_until_settled()
        record_property("measured", node.measured("systemd-boot: kernel damaged on the ESP", node.check()))
        assert node.stands_on(NEW)


# Where the power goes: what is waited for, and how many seconds at most go by before the cut.
CUTS: Final = {
    "while the image is downloaded": 0.5,
    "at the end of the image": 1.0,
    "while slot and boot entry are made ready": 4.0,
    "while the trial is armed": 0.5,
    "while the node goes down": 1.0,
    "in the firmware of the trial boot": 1.0,
    "in the kernel of the trial boot": 1.0,
    "while the trial comes up": 3.0,
    "while the trial is verified": 0.5,
    "while the trial is committed": 0.5,
    "while the end is told": 2.0,
}
# GRUB keeps what it is told on the partition that the cut may tear; systemd-boot leaves that to the firmware.
GRUB_CUTS: Final = (
    "while slot and boot entry are made ready",
    "while the trial is armed",
    "in the kernel of the trial boot",
    "while the trial is committed",
)
# What becomes of writes that the disk was handed and not told to flush.
KEPT, LOST = "kept", "lost"
WHERE: Final = [("systemd-boot", where) for where in CUTS] + [("grub", where) for where in GRUB_CUTS]
CASES: Final = (
    [(*case, writes) for case in WHERE for writes in (KEPT, LOST)]
    if FULL
    else [("systemd-boot", "while the trial is committed", LOST)]
)


def cut_power(node: NodeBench, where: str, chance: random.Random) -> None:
    """Go on until the node is there, and cut its power at some moment soon after."""
    size = node.new.compressed.stat().st_size
    images, machine = node.plane.images, node.machine
    if where == "while the image is downloaded":
        images.hold(chance.randrange(size))
        machine.wait(lambda: images.holding, "the server stops")
    elif where == "at the end of the image":
        images.hold(size - chance.randrange(1, 1 << 20))
        machine.wait(lambda: images.holding, "the server stops")
        images.go_on()
    else:
        waits: dict[str, Callable[[], None]] = {
            "while slot and boot entry are made ready": lambda: node.wait_for_state("installing"),
            "while the trial is armed": lambda: node.wait_for_state("arming"),
            "while the node goes down": lambda: node.wait_for_state("rebooting"),
            "in the firmware of the trial boot": lambda: machine.wait_for("BdsDxe: loading", times=2),
            "in the kernel of the trial boot": lambda: machine.wait_for("BdsDxe: starting", times=2),
            "while the trial comes up": lambda: node.wait_until_up(disk.SLOT_B),
            "while the trial is verified": lambda: node.wait_for_state("verifying"),
            "while the trial is committed": lambda: node.wait_for_state("committing"),
            "while the end is told": lambda: node.wait_for_state("updated"),
        }
        waits[where]()
    # Not a wait for something: the moment is what is varied.
    time.sleep(chance.uniform(0.0, CUTS[where]))
    machine.cut_power()
    images.go_on()


@pytest.mark.parametrize(("loader", "where", "writes"), CASES, indirect=["loader"])
def test_power_cut(
    loader: BootLoader,
    where: str,
    writes: str,
    bench: Bench,
    record_property: Callable[[str, object], None],
) -> None:
    # Always the same moments and losses, as far as the machine's speed allows.
    chance = random.Random(f"{where} {writes} 0")
    with bench(loader, lost_writes=chance if writes == LOST else None) as node:
        node.machine.power_on()
        cut_power(node, where, chance)
        node.machine.power_on()
        node.wait_until_settled()
        name = f"{loader.name}: cut {where}, writes {writes}"
        record_property("measured", node.measured(name, node.check()))
        # One cut never costs more than another try.
        assert node.stands_on(NEW)


TWICE: Final = (
    ("while slot and boot entry are made ready", "while the trial is armed"),
    ("in the kernel of the trial boot", "in the firmware of the trial boot"),
    ("while the trial comes up", "while the trial is committed"),
)


@in_the_full_bench
@pytest.mark.parametrize(("first", "second"), TWICE)
def test_two_power_cuts(
    first: str, second: str, bench: Bench, tree: GuestTree, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(f"{first} {second}")
    with bench(SystemdBootSetup(tree), policy=NodePolicy(trial_boots=3), lost_writes=chance) as node:
        for where in (first, second):
            node.machine.power_on()
            cut_power(node, where, chance)
        node.machine.power_on()
        node.wait_until_settled()
        record_property("measured", node.measured(f"cut {first}, {second}", node.check()))
        assert node.stands_on(NEW)


@in_the_full_bench
@pytest.mark.parametrize("seed", range(2))
def test_power_cuts_at_random(
    seed: int, bench: Bench, loader: BootLoader, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(seed)
    with bench(loader, lost_writes=chance) as node:
        for _ in range(6):
            node.machine.power_on()
            # Not a wait for something: the moment of death is what is varied.
            time.sleep(chance.uniform(1.0, 60.0))
            node.machine.cut_power()
        node.machine.power_on()
        node.wait_until_settled()
        # Whichever it is: too many of them may have hit the trial boot. It is what the orchestrator believes.
        record_property("measured", node.measured(f"{loader.name}: 6 cuts at random ({seed})", node.check()))
