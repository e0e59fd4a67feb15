"""Whatever an image is packed with, however it is cut up on the way, the same bytes arrive, or nothing is believed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from attrs import define, evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disk_images import disk_image
from edge_day2.adapters.images.disk_image import PartitionChoice
from edge_day2.adapters.slots import DiskImage
from edge_day2.domain.observation import Slot
from edge_day2.ports.failures import ImageUnusable, NodeFailure
from edge_day2.ports.image_source import ImageStream, SourceChanged, SourceInterrupted
from slots_bench import PACKERS, QUICK, SlotsBench, image_of

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
MAGICS = (b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@define
class Stream:
    """See `ImageStream`: gives `step` bytes at once, up to `end`, where it breaks off."""

    file: bytes
    position: int
    end: int
    step: int
    total: int | None
    validator: str = "v"

    def read(self) -> bytes:
        if self.position >= self.end < len(self.file):
            raise SourceInterrupted("cut")
        piece = self.file[self.position : min(self.position + self.step, self.end)]
        self.position += len(piece)
        return piece

    def abort(self) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is held."""


@define
class Source:
    """An `ImageSource` whose n-th connection breaks off at the n-th cut; at some it can't go on and begins at zero."""

    file: bytes
    cuts: list[int]
    steps: list[int]
    anew: set[int]
    says_length: bool
    opened: int = 0

    def open(self, url: str, *, offset: int = 0, validator: str = "") -> ImageStream:
        number = self.opened
        self.opened += 1
        if offset and number in self.anew:
            raise SourceChanged("begin anew")
        cut = self.cuts[number] if number < len(self.cuts) else len(self.file)
        step = self.steps[number % len(self.steps)]
        return Stream(self.file, offset, max(cut, offset), step, len(self.file) if self.says_length else None)


contents = st.lists(
    st.binary(max_size=3000) | st.integers(0, 300_000).map(bytes) | st.integers(0, 20_000).map(b"edge ".__mul__),
    min_size=1,
    max_size=6,
).map(b"".join).filter(lambda raw: raw and not raw.startswith(MAGICS))  # fmt: skip


@st.composite
def sources(draw: st.DrawFn, raw: bytes) -> Source:
    pack = PACKERS[draw(st.sampled_from(sorted(PACKERS)))]
    if pack is bytes:
        file = raw
    else:
        # Several files in a row are one.
        seams = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=2)))
        file = b"".join(pack(raw[start:stop]) for start, stop in pairwise([0, *seams, len(raw)]))
    return Source(
        file=file,
        cuts=draw(st.lists(st.integers(0, len(file)), max_size=8)),
        steps=draw(st.lists(st.integers(1, 100_000), min_size=1, max_size=3)),
        anew=draw(st.sets(st.integers(1, 8), max_size=2)),
        says_length=draw(st.booleans()),
    )


@pytest.mark.parametrize("ahead", [False, True], ids=["streamed", "downloaded ahead"])
@SETTINGS
@given(data=st.data(), raw=contents)
def test_the_same_bytes_arrive(tmp_path: Path, ahead: bool, data: st.DataObject, raw: bytes) -> None:
    source = data.draw(sources(raw))
    bench = SlotsBench(folder=tmp_path, source=source, size=len(raw) + data.draw(st.sampled_from([0, 1, 5000])))
    image = image_of(source.file, "edge", image_id=str(len(raw)))
    # An earlier example may have left the very same image.
    slots = bench.slots(retry=evolve(QUICK, attempts=20, longest_wait_seconds=0.0))

    if ahead:
        slots.prefetch(image)
    slots.write(image, Slot.B, None)

    assert bench.holds(raw)
    slots.verify(image, Slot.B)


@SETTINGS
@given(data=st.data(), esp=contents, root=contents)
def test_the_same_partitions_arrive(tmp_path: Path, data: st.DataObject, esp: bytes, root: bytes) -> None:
    sector = data.draw(st.sampled_from([512, 4096]))
    source = data.draw(sources(disk_image(esp, root, sector=sector)))
    layout = DiskImage(boot_folder=tmp_path / "boot", root=PartitionChoice(label="rootfs"))
    bench = SlotsBench(folder=tmp_path, source=source, size=len(root) + sector, settings={"layout": layout})
    slots = bench.slots(retry=evolve(QUICK, attempts=20, longest_wait_seconds=0.0))
    image = image_of(source.file, "edge")

    slots.write(image, Slot.B, None)

    assert bench.path(Slot.B).read_bytes().startswith(root)
    assert layout.esp_file(Slot.B).read_bytes() == esp.ljust(-(-len(esp) // sector) * sector, b"\0")
    slots.verify(image, Slot.B)


def flipped(file: bytes, at: int, by: int) -> bytes:
    return file[:at] + bytes([file[at] ^ by]) + file[at + 1 :]


HARMS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "a flipped bit": flipped,
    "a cut": lambda file, at, by: file[:at],
    "something in between": lambda file, at, by: file[:at] + bytes([by]) + file[at:],
    "something behind": lambda file, at, by: file + bytes([by]) * (at % 600 + 1),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@SETTINGS
@given(data=st.data(), raw=contents, by=st.integers(1, 255))
def test_nothing_is_believed_of_another_file(
    tmp_path: Path, harm: Callable[[bytes, int, int], bytes], data: st.DataObject, raw: bytes, by: int
) -> None:
    source = data.draw(sources(raw))
    image = image_of(source.file, "edge")
    source.file = harm(source.file, data.draw(st.integers(0, len(source.file) - 1)), by)
    source.cuts = []
    bench = SlotsBench(folder=tmp_path, source=source, size=len(raw) + 1000)
    slots = bench.slots()

    with pytest.raises(NodeFailure) as error:
        slots.write(image, Slot.B, None)

    assert not error.value.conclusive
    assert not isinstance(error.value, ImageUnusable)
    with pytest.raises(NodeFailure):
        slots.verify(image, Slot.B)
