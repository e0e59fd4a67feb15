"""A disk image as it passes: which bytes go where, and what isn't believed."""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from disk_images import LINUX, Part, disk_image, disk_of
from edge_day2.adapters.images.disk_image import EFI_SYSTEM_PARTITION, DiskImageSink, PartitionChoice, parse_table
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import ImageTooLarge, ImageUnusable
from slots_bench import content

ESP, ROOT = content(40_000, seed=1), content(300_000, seed=2)
BY_NUMBER = PartitionChoice(number=2)
BY_TYPE = PartitionChoice(type_guid=EFI_SYSTEM_PARTITION)


@define
class Taken:
    """A sink that remembers."""

    capacity: int = 1 << 30
    name: str = "the slot"
    content: bytes = b""
    flushed: bool = False
    lengths: list[int] = field(factory=list)

    def write(self, piece: bytes | memoryview) -> None:
        self.content += bytes(piece)
        self.lengths.append(len(piece))

    def flush(self) -> None:
        self.flushed = True


def split(image: bytes, *targets: tuple[PartitionChoice, Taken], step: int = 10_000) -> None:
    sink = DiskImageSink(*targets)
    for start in range(0, len(image), step):
        sink.write(image[start : start + step])
    sink.end()


def filled(part: bytes, sector: int = 512) -> bytes:
    return part.ljust(-(-len(part) // sector) * sector, b"\0")


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("step", [100, 4096, 10_000, 10**9])
def test_the_chosen_partitions_are_taken_and_the_rest_is_not(sector: int, step: int) -> None:
    root, esp = Taken(), Taken()

    split(disk_image(ESP, ROOT, sector=sector), (BY_NUMBER, root), (BY_TYPE, esp), step=step)

    assert root.content == filled(ROOT, sector)
    assert esp.content == filled(ESP, sector)
    assert root.flushed
    assert esp.flushed


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (PartitionChoice(number=1), ESP),
        (PartitionChoice(label="rootfs"), ROOT),
        (PartitionChoice(type_guid=EFI_SYSTEM_PARTITION), ESP),
    ],
)
def test_a_partition_is_found_by_number_label_or_type(choice: PartitionChoice, expected: bytes) -> None:
    taken = Taken()

    split(disk_image(ESP, ROOT), (choice, taken))

    assert taken.content == filled(expected)


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        (PartitionChoice(number=4), 0),
        (PartitionChoice(label="root"), 0),
        (PartitionChoice(type_guid=LINUX), 2),
        (PartitionChoice(type_guid=UUID(int=5)), 0),
    ],
)
def test_a_choice_that_means_none_or_several_is_refused(choice: PartitionChoice, found: int) -> None:
    with pytest.raises(ImageUnusable, match=f"{found} partitions"):
        split(disk_image(ESP, ROOT), (choice, Taken()))


@pytest.mark.parametrize("choice", [{}, {"number": 1, "label": "root"}])
def test_a_choice_is_by_one_of_the_three(choice: dict[str, object]) -> None:
    with pytest.raises(InvalidValue):
        PartitionChoice(**choice)  # type: ignore[arg-type]  # what is wrong is how many there are


def test_a_table_with_more_and_longer_entries_is_read() -> None:
    taken = Taken()

    split(disk_of(Part(ESP), Part(ROOT), entries=256, entry_size=256), (BY_NUMBER, taken))

    assert taken.content == filled(ROOT)


def test_partitions_need_not_lie_in_the_order_of_their_numbers() -> None:
    root, esp = Taken(), Taken()

    split(disk_of(Part(ESP, at=2000), Part(ROOT, at=100)), (BY_NUMBER, root), (PartitionChoice(number=1), esp))

    assert root.content == filled(ROOT)
    assert esp.content == filled(ESP)


def test_what_is_too_large_is_refused_before_the_first_byte() -> None:
    root, esp = Taken(), Taken(capacity=len(ESP) - 1)

    with pytest.raises(ImageTooLarge, match=r"the slot"):
        split(disk_image(ESP, ROOT), (BY_NUMBER, root), (BY_TYPE, esp))

    assert root.content == b""


WRONG = {
    "no table": bytes(1 << 20),
    "text": b"no disk image at all" * 10_000,
    "header checksum": disk_of(Part(ROOT), damage_header=True),
    "table checksum": disk_of(Part(ROOT), damage_table=True),
    "backup header first": disk_of(Part(ROOT), own_lba=2),
    "entries too short": disk_of(Part(ROOT), entry_size=127),
    "entries beyond the first MiB": disk_of(Part(ROOT), entries=10_000),
    "table over the header": disk_of(Part(ROOT), table_lba=1),
    "partition in the table": disk_of(Part(ROOT, at=3), first_usable=2),
    "partition before the first usable sector": disk_of(Part(ROOT, at=50), first_usable=60),
}


@pytest.mark.parametrize("image", WRONG.values(), ids=WRONG)
def test_a_table_that_is_not_right_is_not_used(image: bytes) -> None:
    with pytest.raises(ImageUnusable):
        split(image, (PartitionChoice(number=1), Taken()))


def test_partitions_that_overlap_are_refused() -> None:
    image = disk_of(Part(ESP, at=100), Part(ROOT, at=110))

    with pytest.raises(ImageUnusable, match="overlap"):
        split(image, (BY_NUMBER, Taken()), (PartitionChoice(number=1), Taken()))


@pytest.mark.parametrize("left", [0, 511, 1000, 9000, 100_000, -3000])
def test_an_image_that_ends_too_early_is_refused(left: int) -> None:
    image = disk_of(Part(ESP), Part(ROOT))
    root = Taken()

    with pytest.raises(ImageUnusable, match="ends"):
        split(image[:left] if left >= 0 else image[: image.index(ROOT[-1000:])], (BY_NUMBER, root))

    assert not root.flushed


@given(st.binary(max_size=1200), st.integers(min_value=0, max_value=9000))
def test_no_table_makes_it_stumble(noise: bytes, at: int) -> None:
    head = bytearray(disk_image(b"a", b"b"))
    head[at : at + len(noise)] = noise
    try:
        found = parse_table(bytes(head))
    except ImageUnusable:
        return

    assert found is not None
