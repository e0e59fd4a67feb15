"""Image files that are downloaded ahead: what stays, what goes, what is believed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, evolve, field

from edge_day2.adapters.images import PrefetchFolder, RetryLimits
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import ImageCorrupt, ImageTooLarge, NodeFailure
from edge_day2.ports.image_source import ImageStream, SourceChanged, SourceInterrupted
from slots_bench import PACKERS, SlotsBench, content, image_of

RAW = content(3_000_000)
FILE = PACKERS["gz"](RAW)
IMAGE = image_of(FILE, "edge.raw.gz")
SHA256 = IMAGE.sha256
ONCE = RetryLimits(attempts=1)


@define
class Stream:
    """See `ImageStream`."""

    source: Source
    position: int
    total: int | None
    validator: str

    def read(self) -> bytes:
        if self.source.most and self.position >= self.source.most:
            raise SourceInterrupted("cut")
        piece = self.source.content[self.position : self.position + 100_000]
        self.position += len(piece)
        self.source.sent += len(piece)
        return piece

    def abort(self) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is held."""


@define
class Source:
    """An `ImageSource` of one file, which breaks off once `most` bytes of it were sent."""

    content: bytes = FILE
    validator: str = '"1"'
    most: int = 0
    says_length: bool = True
    sent: int = 0
    asked: list[tuple[int, str]] = field(factory=list)

    def open(self, url: str, *, offset: int = 0, validator: str = "") -> ImageStream:
        self.asked.append((offset, validator))
        if offset and validator not in ("", self.validator):
            raise SourceChanged("another file")
        return Stream(self, offset, len(self.content) if self.says_length else None, self.validator)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def bench(tmp_path: Path, source: Source) -> Iterator[SlotsBench]:
    bench = SlotsBench(folder=tmp_path, source=source, settings={"retry": ONCE})
    yield bench
    # Whatever happened, no file beside ours is left.
    assert {path.name.partition(".")[0] for path in files(bench)} <= {SHA256}


def files(bench: SlotsBench) -> list[Path]:
    return sorted(bench.prefetched.iterdir()) if bench.prefetched.exists() else []


def test_the_file_lies_there_under_its_digest_and_is_written_without_the_source(
    bench: SlotsBench, source: Source
) -> None:
    bench.slots().prefetch(IMAGE)
    assert [(path.name, path.read_bytes()) for path in files(bench)] == [(SHA256, FILE)]

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert len(source.asked) == 1


def test_it_goes_after_the_slot_was_verified_and_no_sooner(bench: SlotsBench) -> None:
    slots = bench.slots()
    slots.prefetch(IMAGE)
    slots.write(IMAGE, Slot.B, None)
    assert files(bench)

    slots.verify(IMAGE, Slot.B)

    assert files(bench) == []


def test_a_file_that_cannot_be_removed_does_no_harm_to_a_slot_that_is_right(
    bench: SlotsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = bench.slots()
    slots.prefetch(IMAGE)
    slots.write(IMAGE, Slot.B, None)

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", fail)

    slots.verify(IMAGE, Slot.B)


def test_what_was_fetched_before_a_restart_is_not_fetched_again(bench: SlotsBench, source: Source) -> None:
    source.most = 1_000_000
    with pytest.raises(NodeFailure, match="cut"):
        bench.slots().prefetch(IMAGE)
    assert [path.name for path in files(bench)] == [f"{SHA256}.part", f"{SHA256}.validator"]
    source.most = 0

    bench.slots().prefetch(IMAGE)

    assert source.asked == [(0, ""), (1_000_000, '"1"')]
    assert source.sent == len(FILE)
    assert [path.name for path in files(bench)] == [SHA256]


def test_a_download_that_was_begun_ahead_is_streamed_on_into_the_slot(bench: SlotsBench, source: Source) -> None:
    source.most = 1_000_000
    with pytest.raises(NodeFailure, match="cut"):
        bench.slots().prefetch(IMAGE)
    source.most = 0

    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert source.sent == len(FILE)
    bench.slots().verify(IMAGE, Slot.B)
    assert files(bench) == []


def test_a_whole_file_is_hashed_and_not_fetched(bench: SlotsBench, source: Source) -> None:
    bench.slots().prefetch(IMAGE)

    bench.slots().prefetch(IMAGE)

    assert len(source.asked) == 1


@pytest.mark.parametrize("name", [SHA256, f"{SHA256}.part"], ids=["whole", "part"])
def test_a_file_that_was_complete_when_the_power_went_is_taken(bench: SlotsBench, source: Source, name: str) -> None:
    bench.prefetched.mkdir()
    (bench.prefetched / name).write_bytes(FILE)

    bench.slots().prefetch(IMAGE)

    assert source.asked == []
    assert [path.name for path in files(bench)] == [SHA256]


HARMS = {"rotten": b"!" + FILE[1:], "short": FILE[:-1], "long": FILE + b"!", "zeros": bytes(len(FILE))}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@pytest.mark.parametrize("name", [SHA256, f"{SHA256}.part"], ids=["whole", "part"])
@pytest.mark.parametrize("ahead", [True, False], ids=["downloaded ahead", "streamed"])
def test_a_file_that_is_damaged_on_the_node_is_fetched_anew(
    bench: SlotsBench, name: str, harm: bytes, ahead: bool
) -> None:
    bench.prefetched.mkdir()
    (bench.prefetched / name).write_bytes(harm)
    slots = bench.slots()

    if ahead:
        slots.prefetch(IMAGE)
        assert (bench.prefetched / SHA256).read_bytes() == FILE
    slots.write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)


def test_a_file_that_changed_at_its_source_is_begun_anew(bench: SlotsBench, source: Source) -> None:
    source.most = 1_000_000
    with pytest.raises(NodeFailure, match="cut"):
        bench.slots().prefetch(IMAGE)
    source.most, source.validator = 0, '"2"'

    bench.slots().prefetch(IMAGE)

    assert source.asked == [(0, ""), (1_000_000, '"1"'), (0, "")]
    assert (bench.prefetched / SHA256).read_bytes() == FILE


def test_a_file_of_another_digest_leaves_nothing_behind(bench: SlotsBench, source: Source) -> None:
    source.content = FILE[:-1]

    with pytest.raises(ImageCorrupt):
        bench.slots().prefetch(IMAGE)

    assert files(bench) == []
    assert len(source.asked) == 1


def test_files_of_other_images_go_and_other_files_stay(bench: SlotsBench, tmp_path: Path) -> None:
    bench.prefetched.mkdir()
    old = "0" * 64
    for name in (old, f"{old}.part", f"{old}.validator", f"{old}.validator.new"):
        (bench.prefetched / name).write_bytes(b"old")
    notes = bench.prefetched / "notes.txt"
    notes.write_bytes(b"mine")

    bench.slots().prefetch(IMAGE)

    assert [path.name for path in files(bench)] == sorted([SHA256, "notes.txt"])
    notes.unlink()


@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_that_is_too_long_to_be_kept_is_refused_and_leaves_nothing_behind(
    bench: SlotsBench, source: Source, says_length: bool
) -> None:
    # Without a length it shows when so much of it is there.
    source.content = content(40_000_000)
    source.says_length = says_length
    folder = PrefetchFolder(bench.prefetched, reserve_bytes=0, most_bytes=10_000_000)

    with pytest.raises(ImageTooLarge, match="no room") as error:
        bench.slots(prefetched=folder).prefetch(IMAGE)

    assert error.value.reason is FailureReason.INSUFFICIENT_STORAGE
    assert not error.value.conclusive
    assert files(bench) == []
    assert source.sent < 30_000_000


def test_what_has_to_stay_free_stays_free(bench: SlotsBench, source: Source) -> None:
    with pytest.raises(ImageTooLarge, match="bytes are free"):
        bench.slots(prefetched=PrefetchFolder(bench.prefetched, reserve_bytes=1 << 60)).prefetch(IMAGE)

    assert files(bench) == []


def test_a_disk_that_is_full_all_the_same_is_emptied(bench: SlotsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)

    with pytest.raises(ImageTooLarge, match="No space left"):
        bench.slots().prefetch(IMAGE)

    assert files(bench) == []


def test_a_disk_that_fails_is_not_called_full(bench: SlotsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", broken)

    with pytest.raises(NodeFailure, match="Input/output error") as error:
        bench.slots().prefetch(IMAGE)

    assert error.value.reason is FailureReason.DOWNLOAD_FAIL


def test_no_link_is_followed(bench: SlotsBench, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    bench.prefetched.mkdir()
    for name in (SHA256, f"{SHA256}.part", f"{SHA256}.validator"):
        (bench.prefetched / name).symlink_to(victim)

    with pytest.raises(NodeFailure):
        bench.slots().prefetch(IMAGE)
    bench.slots().write(IMAGE, Slot.B, None)

    assert bench.holds(RAW)
    assert victim.read_bytes() == b"precious"


def test_a_folder_that_cannot_be_made_is_a_failed_download(bench: SlotsBench) -> None:
    bench.prefetched.write_bytes(b"")

    with pytest.raises(NodeFailure, match="images") as error:
        bench.slots().prefetch(IMAGE)

    assert error.value.reason is FailureReason.DOWNLOAD_FAIL
    bench.prefetched.unlink()


def test_the_file_is_flushed_before_it_gets_its_name(bench: SlotsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fdatasync, replace = os.fdatasync, os.replace

    def note_flush(descriptor: int) -> None:
        order.append("flush")
        fdatasync(descriptor)

    def note_rename(old: Path, new: Path) -> None:
        order.append(Path(new).name)
        replace(old, new)

    monkeypatch.setattr(os, "fdatasync", note_flush)
    monkeypatch.setattr(os, "replace", note_rename)

    bench.slots().prefetch(IMAGE)

    assert order[-2:] == ["flush", SHA256]


def other(number: int) -> Image:
    return evolve(IMAGE, image_id=f"3.0.{number}")


def test_versions_of_one_file_share_it(bench: SlotsBench, source: Source) -> None:
    bench.slots().prefetch(other(5))
    bench.slots().prefetch(other(6))

    assert len(source.asked) == 1
