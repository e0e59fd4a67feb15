"""Slots that are files: what is refused, what is remembered, what is told."""

from __future__ import annotations

import errno
import gzip
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import define, evolve

from disk_images import disk_image
from edge_day2.adapters.images import BlockDevices, ImageLimits, PartitionChoice, Phase
from edge_day2.adapters.slots import DiskImage, PartitionSlots
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import (
    ImageCorrupt,
    ImageTooLarge,
    ImageUnusable,
    Interrupted,
    NodeFailure,
    OutOfTime,
    UntrustedSource,
)
from slots_bench import OLD, PACKERS, SlotsBench, content, folder_bench, image_of

RAW = content(2_000_000)


@pytest.fixture
def bench(tmp_path: Path) -> SlotsBench:
    return folder_bench(tmp_path)


def published(bench: SlotsBench, file: bytes, name: str = "edge.raw.gz", **changes: str) -> Image:
    (bench.folder / "source" / name).write_bytes(file)
    return image_of(file, name, **changes)


def edge(bench: SlotsBench, raw: bytes = RAW, **changes: str) -> Image:
    return published(bench, PACKERS["gz"](raw), **changes)


@define
class At:
    """A clock that stands, or moves on by `step` seconds each time it is asked."""

    time: datetime
    step: float = 0.0

    def now(self) -> datetime:
        self.time += timedelta(seconds=self.step)
        return self.time


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("packer", PACKERS)
def test_the_image_is_the_beginning_of_the_slot_and_the_rest_stays(bench: SlotsBench, packer: str) -> None:
    image = published(bench, PACKERS[packer](RAW), f"edge.{packer}")

    bench.slots().write(image, Slot.B, None)

    assert bench.holds(RAW)
    assert bench.path(Slot.A).read_bytes() == OLD.ljust(bench.size, b".")


def test_an_image_that_fills_the_slot_to_its_last_byte_fits(bench: SlotsBench) -> None:
    raw = content(bench.size)

    bench.slots().write(edge(bench, raw), Slot.B, None)

    assert bench.holds(raw)


@pytest.mark.parametrize("packer", PACKERS)
def test_an_image_that_is_one_byte_too_large_is_proven_too_large(bench: SlotsBench, packer: str) -> None:
    image = published(bench, PACKERS[packer](content(bench.size + 1)), f"edge.{packer}")

    with pytest.raises(ImageTooLarge, match=f"{bench.size} of slot B") as error:
        bench.slots().write(image, Slot.B, None)

    assert error.value.reason is FailureReason.INSUFFICIENT_STORAGE
    assert error.value.conclusive
    assert bench.path(Slot.B).stat().st_size == bench.size


def test_a_bomb_stops_at_the_slots_end(bench: SlotsBench) -> None:
    with pytest.raises(ImageTooLarge) as error:
        bench.slots().write(edge(bench, bytes(200 << 20)), Slot.B, None)

    assert error.value.conclusive
    assert bench.path(Slot.B).stat().st_size == bench.size


def test_a_bomb_in_a_disk_image_stops_at_the_limit(bench: SlotsBench) -> None:
    image = edge(bench, disk_image(b"esp", RAW) + bytes(200 << 20))
    slots = bench.slots(layout=DiskImage(boot_folder=bench.folder), limits=ImageLimits(unpacked_bytes=8 << 20))

    with pytest.raises(ImageTooLarge, match=str(8 << 20)) as error:
        slots.write(image, Slot.B, None)

    assert error.value.conclusive


@pytest.mark.parametrize(
    "file",
    [PACKERS["gz"](RAW)[:-1], PACKERS["gz"](RAW) + b"garbage", PACKERS["xz"](RAW)[:-1], gzip.compress(b"")],
    ids=["cut", "garbage", "cut xz", "empty"],
)
def test_an_image_of_the_right_digest_that_cannot_be_unpacked_is_proven_bad(bench: SlotsBench, file: bytes) -> None:
    with pytest.raises(ImageUnusable) as error:
        bench.slots().write(published(bench, file), Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE
    assert error.value.conclusive


def test_an_image_of_another_digest_that_cannot_be_unpacked_is_corrupt_and_nothing_is_proven(bench: SlotsBench) -> None:
    image = evolve(published(bench, PACKERS["gz"](RAW)[:-1]), sha256="0" * 64)

    with pytest.raises(ImageCorrupt) as error:
        bench.slots().write(image, Slot.B, None)

    assert not error.value.conclusive


@pytest.mark.parametrize("right", [True, False], ids=["right digest", "another digest"])
def test_what_is_bad_from_its_beginning_is_judged_by_the_digest_of_all_of_it(bench: SlotsBench, right: bool) -> None:
    # Much more than what is fetched ahead.
    image = published(bench, os.urandom(20_000_000), "edge.raw")
    slots = bench.slots(layout=DiskImage(boot_folder=bench.folder))

    with pytest.raises(NodeFailure) as error:
        slots.write(image if right else evolve(image, sha256="0" * 64), Slot.B, None)

    assert isinstance(error.value, ImageUnusable if right else ImageCorrupt)
    assert error.value.conclusive is right


def test_a_disk_image_without_a_table_is_proven_bad(bench: SlotsBench) -> None:
    with pytest.raises(ImageUnusable, match="GPT") as error:
        bench.slots(layout=DiskImage(boot_folder=bench.folder)).write(edge(bench), Slot.B, None)

    assert error.value.conclusive


def test_a_disk_image_that_is_too_short_is_proven_bad(bench: SlotsBench) -> None:
    raw = disk_image(b"esp", RAW)

    with pytest.raises(ImageUnusable, match="ends after") as error:
        bench.slots(layout=DiskImage(boot_folder=bench.folder)).write(edge(bench, raw[:1_000_000]), Slot.B, None)

    assert error.value.conclusive
    assert sorted(path.name for path in bench.folder.glob("*.esp*")) == []


def test_the_efi_system_partition_lies_sparse_beside_the_boot_loaders_files(bench: SlotsBench) -> None:
    esp = b"boot sector".ljust(3_000_320, b"\0") + b"UKI".ljust(512, b"\0") + bytes(99_840)
    boot = bench.folder / "boot"
    slots = bench.slots(layout=DiskImage(boot_folder=boot, root=PartitionChoice(label="rootfs")))
    image = edge(bench, disk_image(esp, RAW))

    slots.write(image, Slot.B, None)
    slots.verify(image, Slot.B)

    assert [path.name for path in boot.iterdir()] == ["b.esp"]
    assert (boot / "b.esp").read_bytes() == esp
    assert (boot / "b.esp").stat().st_blocks * 512 < 300_000
    assert bench.path(Slot.B).read_bytes().startswith(RAW)


def test_an_efi_system_partition_beyond_the_limit_is_refused(bench: SlotsBench) -> None:
    layout = DiskImage(boot_folder=bench.folder / "boot", esp_bytes=1000)

    with pytest.raises(ImageTooLarge, match=r"b\.esp"):
        bench.slots(layout=layout).write(edge(bench, disk_image(content(2000), RAW)), Slot.B, None)


@pytest.mark.parametrize("harm", ["damaged", "longer", "gone"])
def test_a_damaged_efi_system_partition_does_not_verify(bench: SlotsBench, harm: str) -> None:
    layout = DiskImage(boot_folder=bench.folder / "boot")
    image = edge(bench, disk_image(content(5000), RAW))
    slots = bench.slots(layout=layout)
    slots.write(image, Slot.B, None)
    esp = layout.esp_file(Slot.B)
    if harm == "gone":
        esp.unlink()
    else:
        esp.write_bytes(esp.read_bytes() + b"!" if harm == "longer" else b"!" + esp.read_bytes()[1:])

    with pytest.raises(NodeFailure, match="any more"):
        slots.verify(image, Slot.B)

    slots.write(image, Slot.B, None)
    slots.verify(image, Slot.B)


def test_the_running_slot_is_refused_whatever_runs(bench: SlotsBench) -> None:
    bench.running = Slot.B
    image = edge(bench)

    with pytest.raises(NodeFailure, match="slot B runs") as error:
        bench.slots().write(image, Slot.B, None)

    assert error.value.reason is FailureReason.INSTALLATION_FAIL
    assert bench.path(Slot.B).read_bytes() == OLD.ljust(bench.size, b".")


def test_a_symbolic_link_to_a_file_is_refused(bench: SlotsBench) -> None:
    victim = bench.folder / "victim"
    bench.path(Slot.B).rename(victim)
    bench.path(Slot.B).symlink_to(victim)

    for devices in (BlockDevices(), BlockDevices(links=bench.folder)):
        with pytest.raises(NodeFailure, match="symbolic link") as error:
            bench.slots(devices=devices).write(edge(bench), Slot.B, None)
        assert error.value.reason is FailureReason.UT_WRITE
    assert victim.read_bytes() == OLD.ljust(bench.size, b".")


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/slot", "/"])
def test_what_is_neither_a_file_nor_a_block_device_is_refused(bench: SlotsBench, path: str) -> None:
    slots = PartitionSlots({Slot.B: Path(path)}, source=bench.source, running_slot=lambda: Slot.A, records=bench.folder)

    with pytest.raises(NodeFailure, match=path) as error:
        slots.write(edge(bench), Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE


def test_a_fifo_is_refused_and_not_waited_for(bench: SlotsBench) -> None:
    bench.path(Slot.B).unlink()
    os.mkfifo(bench.path(Slot.B))

    with pytest.raises(NodeFailure, match="plain file"):
        bench.slots().write(edge(bench), Slot.B, None)


def test_two_slots_are_two_devices(bench: SlotsBench) -> None:
    paths = {Slot.A: bench.path(Slot.A), Slot.B: bench.folder / "source" / ".." / "slot-A"}

    with pytest.raises(InvalidValue, match="paths"):
        PartitionSlots(paths, source=bench.source, running_slot=lambda: Slot.A)


def test_a_slot_that_the_node_does_not_have_is_a_failure(bench: SlotsBench) -> None:
    slots = PartitionSlots({}, source=bench.source, running_slot=lambda: Slot.A, records=bench.folder)

    with pytest.raises(NodeFailure, match="no slot B"):
        slots.write(edge(bench), Slot.B, None)


@pytest.mark.parametrize("sha256", ["", "0" * 63, "g" * 64, "sha256:" + "0" * 64])
def test_an_image_without_a_digest_is_refused_until_another_is_wanted(bench: SlotsBench, sha256: str) -> None:
    image = evolve(edge(bench), sha256=sha256)

    with pytest.raises(NodeFailure, match="SHA-256") as written:
        bench.slots().write(image, Slot.B, None)
    with pytest.raises(NodeFailure, match="SHA-256") as fetched:
        bench.slots().prefetch(image)
    assert written.value.conclusive
    assert fetched.value.conclusive


def test_a_digest_in_capitals_is_the_same(bench: SlotsBench) -> None:
    image = edge(bench)
    shouting = evolve(image, sha256=image.sha256.upper())

    bench.slots().write(shouting, Slot.B, None)

    bench.slots().verify(image, Slot.B)
    bench.slots().verify(shouting, Slot.B)


@pytest.mark.parametrize("url", ["../edge.raw.gz", "/etc/os-release", "a/./b", "", "a\0b"])
def test_an_address_outside_the_folder_is_untrusted(bench: SlotsBench, url: str) -> None:
    with pytest.raises(UntrustedSource):
        bench.slots().write(evolve(edge(bench), url=url), Slot.B, None)


def test_a_link_out_of_the_folder_is_untrusted(bench: SlotsBench) -> None:
    image = edge(bench)
    outside = bench.folder / "outside"
    outside.mkdir()
    (bench.folder / "source" / "in").symlink_to(outside)
    (outside / "edge.raw.gz").write_bytes(b"")

    with pytest.raises(UntrustedSource):
        bench.slots().write(evolve(image, url="in/edge.raw.gz"), Slot.B, None)


def test_nothing_is_written_once_the_window_is_closed(bench: SlotsBench) -> None:
    with pytest.raises(OutOfTime):
        bench.slots(clock=At(NOON)).write(edge(bench), Slot.B, NOON)

    assert bench.path(Slot.B).read_bytes() == OLD.ljust(bench.size, b".")


def test_a_window_that_closes_in_the_middle_ends_the_writing(bench: SlotsBench) -> None:
    raw = content(bench.size - 1, seed=3)
    slots = bench.slots(clock=At(NOON, step=1))

    with pytest.raises(OutOfTime):
        slots.write(edge(bench, raw), Slot.B, NOON + timedelta(seconds=3))

    found = bench.path(Slot.B).read_bytes()
    assert not bench.holds(raw)
    assert len(found) == bench.size
    with pytest.raises(NodeFailure, match="nothing that is known"):
        slots.verify(edge(bench, raw), Slot.B)


def test_what_is_written_is_read_back_although_the_window_closes(bench: SlotsBench) -> None:
    clock = At(NOON)

    def close_then(phase: Phase) -> None:
        if phase is Phase.FLUSHING:
            clock.time = NOON + timedelta(hours=1)

    image = edge(bench)
    slots = bench.slots(clock=clock, progress=lambda progress: close_then(progress.phase))

    slots.write(image, Slot.B, NOON + timedelta(minutes=30))

    slots.verify(image, Slot.B)


@pytest.mark.parametrize("phase", [Phase.WRITING, Phase.FLUSHING, Phase.READING_BACK])
def test_it_can_be_cancelled_in_every_phase(bench: SlotsBench, phase: Phase) -> None:
    cancel = threading.Event()
    image = edge(bench)

    def stop(seen: Phase) -> None:
        if seen is phase:
            cancel.set()

    with pytest.raises(Interrupted):
        bench.slots(cancel=cancel, progress=lambda progress: stop(progress.phase)).write(image, Slot.B, None)

    with pytest.raises(NodeFailure, match="nothing that is known"):
        bench.slots().verify(image, Slot.B)


def test_progress_tells_the_phases_and_where_they_end(bench: SlotsBench) -> None:
    file = PACKERS["gz"](RAW)
    image = published(bench, file)
    slots = bench.slots()

    slots.prefetch(image)
    slots.write(image, Slot.B, None)

    phases = list(dict.fromkeys(progress.phase for progress in bench.told))
    assert phases == [Phase.DOWNLOADING, Phase.WRITING, Phase.FLUSHING, Phase.READING_BACK]
    last = {progress.phase: progress for progress in bench.told}
    assert last[Phase.DOWNLOADING].done_bytes == last[Phase.WRITING].done_bytes == len(file)
    assert last[Phase.READING_BACK].done_bytes == last[Phase.READING_BACK].total_bytes == len(RAW)
    assert all(progress.bytes_per_second >= 0 for progress in bench.told)


def record(bench: SlotsBench, slot: Slot = Slot.B) -> Path:
    return bench.folder / "records" / f"slot-{slot.value.lower()}.json"


def test_the_record_is_gone_before_the_first_byte_and_there_after_the_read_back(
    bench: SlotsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.slots().write(edge(bench), Slot.B, None)
    seen: list[tuple[str, bool]] = []
    pwrite, preadv = os.pwrite, os.preadv

    def write(descriptor: int, piece: bytes, offset: int) -> int:
        seen.append(("write", record(bench).exists()))
        return pwrite(descriptor, piece, offset)

    def read(descriptor: int, room: list[bytearray], offset: int) -> int:
        seen.append(("read", record(bench).exists()))
        return preadv(descriptor, room, offset)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "preadv", read)

    bench.slots().write(edge(bench, content(2_000_000, seed=2)), Slot.B, None)

    assert set(seen) == {("write", False), ("read", False)}
    assert record(bench).exists()


def test_what_is_there_already_is_neither_fetched_nor_written(bench: SlotsBench) -> None:
    image = edge(bench)
    bench.slots().write(image, Slot.B, None)
    (bench.folder / "source" / image.url).unlink()
    before = bench.path(Slot.B).stat().st_mtime_ns

    bench.slots().write(image, Slot.B, None)

    assert bench.path(Slot.B).stat().st_mtime_ns == before
    bench.slots().verify(image, Slot.B)


@pytest.mark.parametrize("at", [0, 1_000_000, len(RAW) - 1])
def test_a_slot_that_changed_does_not_verify_and_is_written_anew(bench: SlotsBench, at: int) -> None:
    image = edge(bench)
    bench.slots().write(image, Slot.B, None)
    with bench.path(Slot.B).open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))

    with pytest.raises(NodeFailure, match="any more") as error:
        bench.slots().verify(image, Slot.B)
    assert error.value.reason is FailureReason.UT_WRITE
    assert not error.value.conclusive

    bench.slots().write(image, Slot.B, None)
    bench.slots().verify(image, Slot.B)


def test_a_slot_that_became_smaller_does_not_verify(bench: SlotsBench) -> None:
    image = edge(bench)
    bench.slots().write(image, Slot.B, None)
    os.truncate(bench.path(Slot.B), 1_000_000)

    with pytest.raises(NodeFailure, match="any more"):
        bench.slots().verify(image, Slot.B)


def test_what_the_medium_gives_back_differently_is_a_failed_write(
    bench: SlotsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    slot = bench.path(Slot.B)

    def rot(descriptor: int) -> None:
        fsync(descriptor)
        if os.path.sameopenfile(descriptor, held.fileno()):
            os.pwrite(held.fileno(), b"rot", 5000)

    with slot.open("r+b") as held:
        monkeypatch.setattr(os, "fsync", rot)
        with pytest.raises(NodeFailure, match="what was written") as error:
            bench.slots().write(edge(bench), Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE
    assert not record(bench).exists()


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES], ids=lambda number: errno.errorcode[number]
)
@pytest.mark.parametrize("call", ["pwrite", "fsync", "preadv"])
def test_a_medium_that_fails_is_told_in_its_own_words(
    bench: SlotsBench, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    image = edge(bench)

    def fail(*given: object) -> int:
        raise OSError(number, os.strerror(number))

    def only_slot(descriptor: int) -> None:
        if os.path.realpath(f"/proc/self/fd/{descriptor}") == str(bench.path(Slot.B)):
            fail()

    monkeypatch.setattr(os, call, only_slot if call == "fsync" else fail)

    with pytest.raises(NodeFailure, match=os.strerror(number)) as error:
        bench.slots().write(image, Slot.B, None)

    assert error.value.reason is FailureReason.UT_WRITE
    assert not error.value.conclusive
    assert not record(bench).exists()


def test_a_record_that_cannot_be_removed_keeps_the_slot_from_being_written(
    bench: SlotsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.slots().write(edge(bench), Slot.B, None)
    before = bench.path(Slot.B).read_bytes()

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(NodeFailure, match="Read-only"):
        bench.slots().write(edge(bench, content(1000, seed=9)), Slot.B, None)

    assert bench.path(Slot.B).read_bytes() == before


def test_the_running_image_is_known_whole_where_its_record_is_of_the_running_version(bench: SlotsBench) -> None:
    image = edge(bench, image_id="3.0.2", profile_version="3.0")
    bench.slots().write(image, Slot.B, None)
    bench.running = Slot.B
    bench.say("3.0.2")

    assert bench.slots().running_image() == evolve(image, url="")


def test_only_the_version_is_known_of_an_image_that_somebody_else_installed(bench: SlotsBench) -> None:
    unknown = Image(profile_name="", image_id="3.0.1", sha256="")
    assert bench.slots().running_image() == unknown

    bench.slots().write(edge(bench, image_id="3.0.2"), Slot.B, None)
    assert bench.slots().running_image() == unknown

    bench.running = Slot.B
    assert bench.slots().running_image() == unknown


DAMAGED = {
    "empty": b"",
    "text": b"{",
    "list": b"[]",
    "number": b"5",
    "newer": b'{"format": 2, "record": {}}',
    "nothing in it": b'{"format": 1, "record": {}}',
    "wrong kinds": b'{"format": 1, "record": {"image": {"profile_name": 5, "image_id": "3.0.2", "sha256": "", "url": '
    b'"", "profile_version": ""}, "content": {"length": "5", "sha256": ""}, "esp": null}}',
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_record_that_cannot_be_read_is_none(bench: SlotsBench, damage: bytes) -> None:
    image = edge(bench)
    bench.slots().write(image, Slot.B, None)
    record(bench).write_bytes(damage)

    with pytest.raises(NodeFailure, match="nothing that is known"):
        bench.slots().verify(image, Slot.B)

    bench.slots().write(image, Slot.B, None)
    bench.slots().verify(image, Slot.B)


def test_a_record_can_be_read_by_a_person(bench: SlotsBench) -> None:
    bench.slots().write(edge(bench), Slot.B, None)

    assert json.loads(record(bench).read_text())["record"]["content"]["length"] == len(RAW)


@pytest.fixture
def device_files(tmp_path: Path) -> Path:
    """Return a folder that says of the slot B what /proc and /sys could."""
    for folder in ("proc", "sys/block"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc" / "mountinfo").write_text("")
    (tmp_path / "proc" / "swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")
    return tmp_path


def devices_in(folder: Path) -> BlockDevices:
    return BlockDevices(mountinfo=folder / "proc" / "mountinfo", swaps=folder / "proc" / "swaps", sysfs=folder / "sys")


def test_a_file_behind_a_loop_device_is_refused(bench: SlotsBench, device_files: Path) -> None:
    backing = device_files / "sys" / "block" / "loop3" / "loop" / "backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{bench.path(Slot.A)}\n")
    bench.slots(devices=devices_in(device_files)).write(edge(bench), Slot.B, None)

    backing.write_text(f"{bench.path(Slot.B)}\n")

    with pytest.raises(NodeFailure, match="loop3") as error:
        bench.slots(devices=devices_in(device_files)).write(edge(bench, content(10)), Slot.B, None)
    assert error.value.reason is FailureReason.UT_WRITE


def test_a_file_that_is_used_as_swap_is_refused(bench: SlotsBench, device_files: Path) -> None:
    with (device_files / "proc" / "swaps").open("a") as swaps:
        swaps.write(f"{bench.path(Slot.B)} file 1024 0 -2\n")

    with pytest.raises(NodeFailure, match="swap"):
        bench.slots(devices=devices_in(device_files)).write(edge(bench), Slot.B, None)
