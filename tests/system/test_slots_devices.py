"""Slots that are real block devices and file systems: in use, full, read-only, failing. Needs root and loop devices."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.images import BlockDevices, PrefetchFolder
from edge_day2.domain.observation import Slot
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import ImageTooLarge, NodeFailure
from slots_bench import PACKERS, SlotsBench, content, folder_bench, image_of

SIZE = 4 << 20
RAW = content(3_000_000)
FILE = PACKERS["gz"](RAW)
IMAGE = image_of(FILE, "edge.raw.gz")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and /dev/loop-control"
)


def run(*command: str | Path) -> str:
    return subprocess.run([str(one) for one in command], check=True, capture_output=True, text=True).stdout.strip()


def undo(*command: str | Path) -> None:
    """Run a command that takes something back; what was in use a moment ago may be busy for another one."""
    for attempt in range(50):
        try:
            run(*command)
            return
        except subprocess.CalledProcessError as error:
            if attempt == 49:
                raise AssertionError(f"{command}: {error.stderr}") from error
            time.sleep(0.1)


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return what makes a loop device of a file."""
    made: list[str] = []

    def make(file: Path, *options: str) -> Path:
        # Somebody else may take the same free one.
        for attempt in range(5):
            try:
                made.append(run("losetup", "--show", "--find", *options, file))
                break
            except subprocess.CalledProcessError:
                if attempt == 4:
                    raise
        return Path(made[-1])

    yield make
    for device in made:
        undo("losetup", "--detach", device)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return what mounts something on a new folder."""
    mounted: list[Path] = []

    def make(*options: str | Path) -> Path:
        folder = tmp_path / f"mounted-{len(mounted)}"
        folder.mkdir()
        run("mount", *options, folder)
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        undo("umount", folder)


@pytest.fixture
def bench(tmp_path: Path) -> SlotsBench:
    bench = folder_bench(tmp_path, size=SIZE)
    (tmp_path / "source" / IMAGE.url).write_bytes(FILE)
    return bench


@pytest.fixture
def device(bench: SlotsBench, loop: Callable[..., Path]) -> Path:
    """Return a loop device that has the place of slot B."""
    backing = bench.folder / "backing"
    bench.path(Slot.B).rename(backing)
    device = loop(backing)
    bench.path(Slot.B).symlink_to(device)
    return device


def linked(bench: SlotsBench) -> BlockDevices:
    """Return the devices of this machine, where a slot's path may be a link as udev makes them."""
    return BlockDevices(links=bench.folder)


def test_a_block_device_is_written_and_read_back_by_its_link(bench: SlotsBench, device: Path) -> None:
    slots = bench.slots(devices=linked(bench))

    slots.write(IMAGE, Slot.B, None)
    slots.verify(IMAGE, Slot.B)

    assert device.read_bytes()[: len(RAW)] == RAW
    assert (bench.folder / "backing").read_bytes()[: len(RAW)] == RAW


def test_it_is_the_medium_that_is_read_back_and_not_the_page_cache(bench: SlotsBench, device: Path) -> None:
    slots = bench.slots(devices=linked(bench))
    slots.write(IMAGE, Slot.B, None)
    slots.verify(IMAGE, Slot.B)
    # Open all the time: the kernel forgets the page cache of a device that nobody has open.
    with device.open("rb") as cached:
        assert cached.read()[: len(RAW)] == RAW
        with (bench.folder / "backing").open("r+b") as medium:
            medium.seek(1_000_000)
            medium.write(b"rot")
        cached.seek(0)
        assert cached.read()[: len(RAW)] == RAW, "the device's page cache knows of it"

        with pytest.raises(NodeFailure, match="any more"):
            slots.verify(IMAGE, Slot.B)


def test_a_link_outside_of_udevs_folder_is_refused(bench: SlotsBench, device: Path) -> None:
    with pytest.raises(NodeFailure, match="symbolic link"):
        bench.slots().write(IMAGE, Slot.B, None)


def test_a_device_that_is_too_small_is_too_small(bench: SlotsBench, device: Path) -> None:
    image = image_of(file := PACKERS["gz"](content(SIZE + 1)), "large.raw.gz")
    (bench.folder / "source" / image.url).write_bytes(file)

    with pytest.raises(ImageTooLarge, match=str(SIZE)):
        bench.slots(devices=linked(bench)).write(image, Slot.B, None)


def refused(bench: SlotsBench, device: Path, words: str) -> None:
    """See to it that the slot is refused and stays as it is."""
    before = device.read_bytes()

    with pytest.raises(NodeFailure, match=words) as error:
        bench.slots(devices=linked(bench)).write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE
    assert not error.value.conclusive
    assert device.read_bytes() == before


@pytest.mark.parametrize("exclusive", [True, False], ids=["exclusive open", "mount table"])
def test_a_device_that_is_mounted_is_refused(
    bench: SlotsBench, device: Path, mount: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    needs("mkfs.ext4")
    run("mkfs.ext4", "-q", device)
    folder = mount("-o", "ro", device)
    if not exclusive:
        # The second look has to see it too: some file systems don't claim their device.
        monkeypatch.setattr(os, "O_EXCL", 0)

    refused(bench, device, "busy" if exclusive else str(folder))


@pytest.fixture
def partition(bench: SlotsBench, loop: Callable[..., Path]) -> Iterator[Path]:
    """Return the node of a partition of a loop device that has the place of slot B."""
    needs("addpart")
    backing = bench.folder / "backing"
    with backing.open("wb") as file:
        file.truncate(16 << 20)
    device = loop(backing)
    bench.places[Slot.B] = device
    known = Path("/sys/class/block", f"{device.name}p1", "dev")
    if known.exists():
        # A test that was killed left it there: it outlives the loop device.
        undo("delpart", device, "1")
    # As the kernel itself does where it understands the table.
    run("addpart", device, "1", "2048", "16384")
    # A node of our own: not every machine makes one.
    number = known.read_text().strip()
    node = bench.folder / "partition"
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(*map(int, number.split(":"))))
    yield node
    undo("delpart", device, "1")


def test_a_disk_with_a_partition_that_is_mounted_is_refused(
    bench: SlotsBench, partition: Path, mount: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mkfs.ext4")
    run("mkfs.ext4", "-q", partition)
    folder = mount("-o", "ro", partition)
    monkeypatch.setattr(os, "O_EXCL", 0)

    refused(bench, bench.path(Slot.B), str(folder))


def test_a_device_that_is_swap_is_refused(
    bench: SlotsBench, device: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    needs("mkswap")
    run("mkswap", device)
    try:
        run("swapon", device)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs a kernel that takes swap: {error.stderr.strip()}")
    request.addfinalizer(lambda: undo("swapoff", device))
    refused(bench, device, "busy")

    monkeypatch.setattr(os, "O_EXCL", 0)

    refused(bench, device, "swap")


def test_a_device_that_another_loop_device_stands_on_is_refused(
    bench: SlotsBench, device: Path, loop: Callable[..., Path]
) -> None:
    loop(device)

    refused(bench, device, "loop")


def test_a_file_behind_a_real_loop_device_is_refused(bench: SlotsBench, loop: Callable[..., Path]) -> None:
    loop(bench.path(Slot.B))

    refused(bench, bench.path(Slot.B), "loop")


def test_a_device_that_somebody_else_claims_is_refused(bench: SlotsBench, device: Path) -> None:
    descriptor = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        refused(bench, device, "busy")
    finally:
        os.close(descriptor)


def test_a_read_only_device_is_refused(bench: SlotsBench, loop: Callable[..., Path]) -> None:
    backing = bench.folder / "backing"
    bench.path(Slot.B).rename(backing)
    device = loop(backing, "--read-only")
    bench.path(Slot.B).symlink_to(device)

    refused(bench, device, r"Permission denied|Read-only|not permitted")


def test_a_file_on_a_read_only_file_system_is_refused(bench: SlotsBench, mount: Callable[..., Path]) -> None:
    folder = mount("-t", "tmpfs", "-o", "size=16M", "none")
    moved = folder / "slot"
    moved.write_bytes(bytes(SIZE))
    run("mount", "-o", "remount,ro", folder)
    bench.places[Slot.B] = moved

    with pytest.raises(NodeFailure, match="Read-only file system") as error:
        bench.slots().write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE


def sparse(folder: Path) -> Path:
    """Return a file of a slot's size that takes no room."""
    path = folder / "slot"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def test_a_full_file_system_is_told_in_its_own_words(bench: SlotsBench, mount: Callable[..., Path]) -> None:
    bench.places[Slot.B] = sparse(mount("-t", "tmpfs", "-o", "size=1M", "none"))
    slots = bench.slots()

    with pytest.raises(NodeFailure, match="No space left on device") as error:
        slots.write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE
    assert not error.value.conclusive
    with pytest.raises(NodeFailure, match="nothing that is known"):
        slots.verify(IMAGE, Slot.B)


def test_a_device_that_loses_writes_is_found_out_when_it_is_flushed(
    bench: SlotsBench, mount: Callable[..., Path], loop: Callable[..., Path]
) -> None:
    device = loop(sparse(mount("-t", "tmpfs", "-o", "size=1M", "none")))
    bench.path(Slot.B).unlink()
    bench.path(Slot.B).symlink_to(device)
    slots = bench.slots(devices=linked(bench))

    with pytest.raises(NodeFailure, match=r"Input/output error|No space left") as error:
        slots.write(IMAGE, Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE
    with pytest.raises(NodeFailure, match="nothing that is known"):
        slots.verify(IMAGE, Slot.B)


def test_an_image_that_is_downloaded_ahead_never_fills_the_file_system(
    bench: SlotsBench, mount: Callable[..., Path]
) -> None:
    folder = mount("-t", "tmpfs", "-o", "size=1M", "none")

    with pytest.raises(ImageTooLarge, match="no room") as error:
        bench.slots(prefetched=PrefetchFolder(folder, reserve_bytes=0)).prefetch(IMAGE)

    assert error.value.reason is FailureReason.INSUFFICIENT_STORAGE
    assert list(folder.iterdir()) == []
