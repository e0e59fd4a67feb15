"""Real snapper on a real btrfs in a file, as the root of a system that boots its default subvolume."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from attrs import define

from edge_day2.adapters.snapper import Snapper
from edge_day2.ports.failures import NodeFailure

TOOLS = ("snapper", "btrfs", "mkfs.btrfs", "losetup", "unshare")

# Runs one command with the image as its root; what runs is the subvolume that was the default when the node booted.
IN_ROOT = """#!/bin/sh
image={image} root={root} active={active}
export image root active
exec unshare --mount --propagation private sh -ec '
    mount -o loop,subvolid=$(cat $active) $image $root
    trap "umount -R $root" EXIT
    if [ -s $active.snapshots ]; then
        mount -o subvolid=$(cat $active.snapshots) $(findmnt -no SOURCE $root | sed "s/\\[.*//") $root/.snapshots
    fi
    for folder in /usr /dev /proc; do mount --rbind $folder $root$folder; done
    chroot $root "$@"
' sh "$@"
"""


def _missing() -> str:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)} (snapper, btrfs-progs, util-linux)"
    if os.geteuid() != 0:
        return "needs root, for loop devices and a mount namespace"
    if not Path("/dev/loop-control").exists() or "btrfs" not in Path("/proc/filesystems").read_text():
        return "needs loop devices and a kernel with btrfs"
    return ""


needs_btrfs = pytest.mark.skipif(bool(_missing()), reason=_missing())


@define
class BtrfsNode:
    """A system in an image."""

    folder: Path
    script: Path

    def run(self, *command: str) -> str:
        """Run a command in the system."""
        done = subprocess.run([self.script, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def boot(self) -> None:
        """Boot the default subvolume."""
        default = re.search(r"ID (\d+)", self.run("btrfs", "subvolume", "get-default", "/"))
        assert default is not None
        listed = re.search(r"ID (\d+) .* path (?:\S+/)?\.snapshots$", self.run("btrfs", "subvolume", "list", "/"), re.M)
        if listed is not None:
            (self.folder / "active.snapshots").write_text(listed[1])
        (self.folder / "active").write_text(default[1])

    def subvolumes(self) -> list[str]:
        """Return their paths."""
        return re.findall(r"path (.*)", self.run("btrfs", "subvolume", "list", "/"))

    def snapper(self) -> Snapper:
        """Return the adapter."""
        return Snapper(
            command=(str(self.script), "snapper", "--no-dbus"),
            btrfs=(str(self.script), "btrfs"),
            apart=(Path("/proc"),),
            root=Path("/"),
            proc=self.folder / "proc",
        )


@pytest.fixture
def node(tmp_path: Path) -> BtrfsNode:
    content, root = tmp_path / "content", tmp_path / "root"
    for folder in ("usr", "dev", "proc", "tmp", "run", "root", "var/log", "etc/snapper/configs", "etc/default"):
        (content / folder).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (content / link).symlink_to(f"usr/{link}")
    (content / "etc/mtab").symlink_to("../proc/self/mounts")
    (content / "etc/default/snapper").write_text('SNAPPER_CONFIGS=""\n')
    for name in ("passwd", "group"):
        shutil.copyfile(f"/etc/{name}", content / "etc" / name)
    (content / "state").write_text("old")
    root.mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_text("root=/dev/vda ro quiet\n")
    image, script = tmp_path / "image", tmp_path / "in-root"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", "--rootdir", content, image], check=True, capture_output=True)
    (tmp_path / "active").write_text("5")
    script.write_text(IN_ROOT.format(image=image, root=root, active=tmp_path / "active"))
    script.chmod(0o755)
    node = BtrfsNode(tmp_path, script)
    node.run("sh", "-c", "btrfs subvolume snapshot / /@ >/dev/null && btrfs subvolume set-default /@")
    node.boot()
    node.run("snapper", "--no-dbus", "create-config", "/")
    node.boot()
    return node


@needs_btrfs
def test_a_node_comes_back_to_the_snapshot_with_the_next_boot_and_not_before(node: BtrfsNode) -> None:
    snapper = node.snapper()
    taken = snapper.take("update 1")
    node.run("sh", "-c", "echo new > /state")

    snapper.roll_back(taken)
    assert node.run("cat", "/state").strip() == "new"
    node.boot()

    assert node.run("cat", "/state").strip() == "old"


@needs_btrfs
def test_one_label_has_one_snapshot_however_often_it_is_taken(node: BtrfsNode) -> None:
    taken = node.snapper().take("update 1, of 2")
    node.run("sh", "-c", "echo new > /state")
    before = node.subvolumes()

    assert node.snapper().take("update 1, of 2") == taken
    assert node.subvolumes() == before
    assert node.snapper().take("update 2") != taken
    node.snapper().roll_back(taken)
    node.boot()
    assert node.run("cat", "/state").strip() == "old"


@needs_btrfs
def test_rolling_back_again_before_the_boot_changes_nothing(node: BtrfsNode) -> None:
    taken = node.snapper().take("update 1")
    node.snapper().roll_back(taken)
    before = node.subvolumes()

    node.snapper().roll_back(taken)

    assert node.subvolumes() == before


@needs_btrfs
def test_a_rollback_that_was_not_booted_is_called_off_by_the_next_snapshot(node: BtrfsNode) -> None:
    node.snapper().roll_back(node.snapper().take("update 1"))
    node.run("sh", "-c", "echo new > /state")

    taken = node.snapper().take("update 2")
    node.boot()

    assert node.run("cat", "/state").strip() == "new"
    node.run("sh", "-c", "echo newer > /state")
    node.snapper().roll_back(taken)
    node.boot()
    assert node.run("cat", "/state").strip() == "new"


@needs_btrfs
def test_a_node_that_changed_after_it_was_rolled_back_is_rolled_back_again(node: BtrfsNode) -> None:
    taken = node.snapper().take("update 1")
    for _ in range(2):
        node.run("sh", "-c", "echo new > /state")
        node.snapper().roll_back(taken)
        node.boot()
        assert node.run("cat", "/state").strip() == "old"


@needs_btrfs
def test_a_snapshot_that_was_discarded_is_gone_and_what_was_rolled_back_to_it_stays(node: BtrfsNode) -> None:
    snapper = node.snapper()
    taken = snapper.take("update 1")
    node.run("sh", "-c", "echo new > /state")
    snapper.roll_back(taken)
    node.boot()

    for _ in range(2):
        snapper.discard(taken)

    assert node.run("cat", "/state").strip() == "old"
    with pytest.raises(NodeFailure, match="isn't there"):
        snapper.roll_back(taken)


@needs_btrfs
def test_the_number_of_a_discarded_snapshot_does_not_lead_to_another_one(node: BtrfsNode) -> None:
    taken = node.snapper().take("update 1")
    node.snapper().discard(taken)
    again = node.snapper().take("update 2")
    assert again.partition("-")[0] == taken.partition("-")[0]
    before = node.subvolumes()

    node.snapper().discard(taken)
    assert node.subvolumes() == before
    with pytest.raises(NodeFailure, match="isn't there"):
        node.snapper().roll_back(taken)

    assert node.snapper().take("update 2") == again


def stand_in(folder: Path, script: str) -> Snapper:
    """Return the adapter on a program that does what `script` says."""
    (folder / "cmdline").write_text("root=/dev/vda\n")
    program = folder / "snapper"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Snapper(command=(str(program),), apart=(Path("/proc"),), proc=folder, timeout_seconds=30)


def test_what_snapper_says_when_it_fails_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(NodeFailure, match="status 1: Config 'root' not found"):
        stand_in(tmp_path, "echo \"Config 'root' not found.\" >&2; exit 1").take("x")


@pytest.mark.parametrize("said", ["", "nothing", "{", "{}", '{"root": [5]}', '{"root": [{"number": "1"}]}'])
def test_a_list_that_can_not_be_read_is_a_failure(tmp_path: Path, said: str) -> None:
    with pytest.raises(NodeFailure, match="list can't be read"):
        stand_in(tmp_path, f"echo '{said}'").take("x")


def test_a_node_that_does_not_boot_its_default_subvolume_has_no_snapshots(tmp_path: Path) -> None:
    snapper = stand_in(tmp_path, "exit 9")
    (tmp_path / "cmdline").write_text("root=/dev/vda rootflags=subvol=@ ro\n")

    with pytest.raises(NodeFailure, match="expected the default subvolume"):
        snapper.take("x")


def test_a_journal_that_would_be_rolled_back_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text("root=/dev/vda\n")

    with pytest.raises(NodeFailure, match="expected a subvolume of its own"):
        Snapper(apart=(tmp_path,), root=tmp_path, proc=tmp_path).take("x")
