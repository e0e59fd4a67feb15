"""The apt flow from end to end in a Debian of its own: real dpkg, real maintainer scripts, a simulated reboot."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_chroot import DebianRoot, debian_tarball
from apt_node import Node
from apt_repository import DebPackage, apt_repository, missing_tools
from apt_world import AptWorld

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "apt is here")

KERNEL = "linux-image-6.1.0-{}-amd64"
OLD = (
    DebPackage(name="agent"),
    DebPackage(name="helper"),
    DebPackage(name="tool", conffiles={"/etc/tool.conf": "first\n"}),
    DebPackage(name=KERNEL.format(1), files={"/boot/vmlinuz-6.1.0-1-amd64": "kernel"}),
    DebPackage(name="kernel-meta", depends=KERNEL.format(1)),
)
NEW = (
    DebPackage(name="agent", version="2"),
    DebPackage(name="helper", version="2"),
    DebPackage(
        name="tool",
        version="2",
        conffiles={"/etc/tool.conf": "second\n"},
        # A user of its own, as services have: needs the node's files, not the machine's.
        scripts={"postinst": "getent passwd tool || useradd --system tool; id tool; sleep 0.2"},
    ),
    DebPackage(name=KERNEL.format(2), files={"/boot/vmlinuz-6.1.0-2-amd64": "kernel"}),
    DebPackage(name="kernel-meta", version="2", depends=KERNEL.format(2)),
    DebPackage(name="new", depends="lib"),
    DebPackage(name="lib"),
)
WANTED = {package.name: package.version for package in NEW}
COMMAND_LINE = "quiet console=ttyS0,115200"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AptWorld]:
    tarball, reason = debian_tarball()
    if tarball is None:
        pytest.skip(reason)
    with apt_repository(tmp_path / "repository") as repository:
        made = AptWorld(repository, DebianRoot(tmp_path / "debian", tarball))
        made.has(*OLD)
        made.file("/etc/tool.conf").write_text("mine\n")
        # As the original agent's package sets it, against what the helper wants.
        made.file("/etc/dpkg/dpkg.cfg.d/agent").write_text("force-confnew\n")
        repository.publish(*NEW)
        yield made


def test_an_update_goes_through_all_its_steps_and_a_reboot(world: AptWorld, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", world, COMMAND_LINE)

    node.finish()

    node.check(WANTED)
    assert world.root.run("id", "tool")
    assert world.file("/etc/tool.conf").read_text() == "mine\n"
    assert (node.folder / "boot").read_text() == "boot+"
    assert (node.folder / "kernel").read_text() == "6.1.0-2-amd64"
    assert (node.folder / "cmdline").read_text() == COMMAND_LINE
    assert world.root.run("apt-mark", "showauto", *WANTED).split() == ["lib", KERNEL.format(2)]


def test_an_update_that_is_killed_again_and_again_is_done_and_told(world: AptWorld, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", world, COMMAND_LINE)
    chance = random.Random(7)

    for _ in range(6):
        node.kill(chance)
    node.finish()

    node.check(WANTED)
    assert world.file("/etc/tool.conf").read_text() == "mine\n"
