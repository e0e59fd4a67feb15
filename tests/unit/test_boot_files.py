"""Boot files out of slots: found inside them, never outside, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from edge_day2.adapters.boot_files import EspImageBootFiles, FileSystemBootFiles
from edge_day2.domain.observation import Slot
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import NodeFailure

KERNEL = b"MZ kernel" * 70_000
INITRD = b"initrd" * 50_000

needs_e2fsprogs = pytest.mark.skipif(
    not (shutil.which("mkfs.ext4") and shutil.which("debugfs")), reason="mkfs.ext4 and debugfs (e2fsprogs) are missing"
)
needs_mtools = pytest.mark.skipif(
    not (shutil.which("mcopy") and shutil.which("mkfs.vfat")), reason="mcopy (mtools) or mkfs.vfat is missing"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What an image's root looks like: kernels by version, links by name."""
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot" / "vmlinuz-6.1").write_bytes(KERNEL)
    (tree / "boot" / "initrd.img-6.1").write_bytes(INITRD)
    (tree / "boot" / "vmlinuz").symlink_to("vmlinuz-6.1")
    (tree / "boot" / "initrd.img").symlink_to("/boot/initrd.img-6.1")
    (tree / "usr" / "lib").mkdir(parents=True)
    (tree / "usr" / "lib" / "linux").symlink_to("../../../../boot")
    (tree / "boot" / "outside").symlink_to("../../../../../../../../etc/passwd")
    (tree / "boot" / "round").symlink_to("round")
    os.mkfifo(tree / "boot" / "pipe")
    long = "/" + "/".join(["boot/.."] * 20) + "/boot/vmlinuz-6.1"
    (tree / "boot" / "slow").symlink_to(long)
    return tree


@pytest.fixture
def slot(tree: Path, tmp_path: Path) -> Path:
    """The same as an ext4 file system in a file."""
    path = tmp_path / "slot.ext4"
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, path, "16M"], check=True, capture_output=True)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "new"
    folder.mkdir()
    return folder


def mounts_below(path: Path) -> str:
    return "\n".join(line for line in Path("/proc/mounts").read_text().splitlines() if f" {path}" in line)


@needs_e2fsprogs
class TestExt:
    def test_kernel_and_initrd_come_with_their_digests(self, slot: Path, folder: Path) -> None:
        files = FileSystemBootFiles({Slot.B: slot}).copy(Slot.B, folder)
        assert files.kernel.path.read_bytes() == KERNEL
        assert (files.kernel.size, files.kernel.sha256) == (len(KERNEL), hashlib.sha256(KERNEL).hexdigest())
        assert [initrd.path.read_bytes() for initrd in files.initrds] == [INITRD]

    @pytest.mark.parametrize("path", ["/boot/slow", "/usr/lib/linux/vmlinuz", "/boot/../boot/vmlinuz"])
    def test_a_link_leads_to_where_it_leads_inside_the_slot(self, slot: Path, folder: Path, path: str) -> None:
        files = FileSystemBootFiles({Slot.B: slot}, kernel=path, initrds=()).copy(Slot.B, folder)
        assert files.kernel.path.read_bytes() == KERNEL
        assert files.initrds == ()

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("/boot/outside", "has no"),
            ("/boot/round", "40 symbolic links"),
            ("/boot/none", "has no"),
            ("/boot", "is a directory"),
            ("/boot/pipe", "is a FIFO"),
        ],
    )
    def test_what_isnt_a_file_of_the_slot_is_refused(self, slot: Path, folder: Path, path: str, said: str) -> None:
        with pytest.raises(NodeFailure, match=said):
            FileSystemBootFiles({Slot.B: slot}, kernel=path).copy(Slot.B, folder)

    def test_a_file_above_the_limit_is_refused_before_it_is_read(self, slot: Path, folder: Path) -> None:
        with pytest.raises(NodeFailure, match=f"{len(KERNEL)} bytes, expected at most 1000"):
            FileSystemBootFiles({Slot.B: slot}, limit_bytes=1000).copy(Slot.B, folder)
        assert list(folder.iterdir()) == []

    def test_a_file_system_that_is_cut_off_is_a_failure(self, slot: Path, folder: Path) -> None:
        os.truncate(slot, 2 * 1024 * 1024)
        with pytest.raises(NodeFailure):
            FileSystemBootFiles({Slot.B: slot}).copy(Slot.B, folder)

    def test_a_tool_that_takes_too_long_is_stopped(self, slot: Path, folder: Path) -> None:
        with pytest.raises(NodeFailure, match="took more than 0 s"):
            FileSystemBootFiles({Slot.B: slot}, timeout_seconds=0).copy(Slot.B, folder)


class TestConfiguration:
    @pytest.mark.parametrize("path", ["boot/vmlinuz", '/boot/"', "/boot/\n", "/boot/$(reboot)"])
    def test_a_path_that_a_tool_could_misread_is_refused(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(InvalidValue, match="absolute path of plain characters"):
            FileSystemBootFiles({Slot.B: tmp_path}, kernel=path)

    def test_a_slot_without_a_partition_is_named(self, tmp_path: Path, folder: Path) -> None:
        with pytest.raises(NodeFailure, match="no partition is configured for slot A"):
            FileSystemBootFiles({Slot.B: tmp_path}).copy(Slot.A, folder)

    def test_a_partition_that_isnt_there_is_named(self, tmp_path: Path, folder: Path) -> None:
        with pytest.raises(NodeFailure, match=r"nowhere, isn't there"):
            FileSystemBootFiles({Slot.B: tmp_path / "nowhere"}).copy(Slot.B, folder)


@needs_mtools
class TestEspImage:
    @pytest.fixture
    def partitions(self, tmp_path: Path) -> Path:
        """An EFI system partition in a file, for slot B, with one UKI."""
        folder = tmp_path / "partitions"
        folder.mkdir()
        image = folder / "b.esp"
        uki = tmp_path / "uki"
        uki.write_bytes(KERNEL)
        subprocess.run(["mkfs.vfat", "-C", image, "8192"], check=True, capture_output=True)
        subprocess.run(["mmd", "-i", image, "::EFI", "::EFI/Linux", "::EFI/Linux/x.efi.d"], check=True)
        subprocess.run(["mcopy", "-i", image, uki, "::EFI/Linux/Linux-3.0.efi"], check=True)
        subprocess.run(["mcopy", "-i", image, uki, "::EFI/Linux/readme.txt"], check=True)
        return folder

    @pytest.mark.parametrize("kernel", ["EFI/Linux/*.efi", "/EFI/Linux/linux-3.0.efi"])
    def test_the_one_kernel_that_fits_comes_with_its_digest(self, partitions: Path, folder: Path, kernel: str) -> None:
        files = EspImageBootFiles(partitions, kernel=kernel).copy(Slot.B, folder)
        assert files.kernel.path.read_bytes() == KERNEL
        assert files.kernel.sha256 == hashlib.sha256(KERNEL).hexdigest()
        assert files.initrds == ()

    @pytest.mark.parametrize("kernel", ["EFI/Linux/*", "EFI/Linux/none.efi"])
    def test_several_that_fit_or_none_are_refused(self, partitions: Path, folder: Path, kernel: str) -> None:
        with pytest.raises(NodeFailure, match="expected one file that fits"):
            EspImageBootFiles(partitions, kernel=kernel).copy(Slot.B, folder)

    def test_a_folder_that_isnt_there_is_a_failure_in_the_tools_words(self, partitions: Path, folder: Path) -> None:
        with pytest.raises(NodeFailure, match="not found"):
            EspImageBootFiles(partitions, kernel="boot/x.efi").copy(Slot.B, folder)

    def test_a_kernel_above_the_limit_is_refused(self, partitions: Path, folder: Path) -> None:
        with pytest.raises(NodeFailure, match="more than 1000 bytes"):
            EspImageBootFiles(partitions, limit_bytes=1000).copy(Slot.B, folder)

    def test_an_image_that_brought_none_is_named(self, partitions: Path, folder: Path) -> None:
        with pytest.raises(NodeFailure, match="brought no EFI system partition"):
            EspImageBootFiles(partitions).copy(Slot.A, folder)

    def test_garbage_is_a_failure_in_the_tools_words(self, partitions: Path, folder: Path) -> None:
        (partitions / "a.esp").write_bytes(os.urandom(4096))
        with pytest.raises(NodeFailure, match="mdir"):
            EspImageBootFiles(partitions).copy(Slot.A, folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
class TestMounted:
    @pytest.fixture(autouse=True)
    def mount_below(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @pytest.fixture
    def other(self, tree: Path, tmp_path: Path) -> Path:
        """A file system that debugfs doesn't read."""
        if shutil.which("mkfs.btrfs") is None:
            pytest.skip("mkfs.btrfs (btrfs-progs) is missing")
        path = tmp_path / "slot.btrfs"
        path.touch()
        os.truncate(path, 64 * 1024 * 1024)
        subprocess.run(["mkfs.btrfs", "-q", "-M", "--rootdir", tree, path], check=True, capture_output=True)
        probe = tmp_path / "probe"
        probe.mkdir()
        if subprocess.run(["mount", "-o", "ro,loop", path, probe], check=False, capture_output=True).returncode:
            pytest.skip("loop mounts of btrfs aren't possible here")
        subprocess.run(["umount", probe], check=True)
        return path

    def test_another_file_system_is_mounted_read_only_and_unmounted(self, other: Path, folder: Path) -> None:
        files = FileSystemBootFiles({Slot.B: other}).copy(Slot.B, folder)
        assert files.kernel.path.read_bytes() == KERNEL
        assert [initrd.path.read_bytes() for initrd in files.initrds] == [INITRD]
        assert "edge_day2-slot-" not in mounts_below(folder.parent)

    @pytest.mark.parametrize("path", ["/boot/slow", "/usr/lib/linux/vmlinuz"])
    def test_a_link_leads_to_where_it_leads_inside_the_slot(self, other: Path, folder: Path, path: str) -> None:
        files = FileSystemBootFiles({Slot.B: other}, kernel=path, initrds=()).copy(Slot.B, folder)
        assert files.kernel.path.read_bytes() == KERNEL

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("/boot/outside", "can't be read"),
            ("/boot/round", "40 symbolic links"),
            ("/boot/none", "can't be read"),
            ("/boot/pipe", "isn't a file"),
        ],
    )
    def test_what_isnt_a_file_of_the_slot_is_refused(self, other: Path, folder: Path, path: str, said: str) -> None:
        with pytest.raises(NodeFailure, match=said):
            FileSystemBootFiles({Slot.B: other}, kernel=path).copy(Slot.B, folder)
        assert "edge_day2-slot-" not in mounts_below(folder.parent)
