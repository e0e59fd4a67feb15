"""The journal on a real disk that is full, or that has become read-only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.journal import FileJournal
from edge_day2.domain.agent import AgentRecord
from edge_day2.errors import UnreadableState
from small_disks import fill, make_read_only, small_disk

OLD = AgentRecord(refused="old")
NEW = AgentRecord(refused="new " * 2000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of 64 KiB."""
    with small_disk(tmp_path / "disk", 65_536) as folder:
        yield folder


def test_the_old_record_stands_on_a_full_disk_until_there_is_room(disk: Path) -> None:
    journal = FileJournal(disk / "journal.json")
    journal.store(OLD)
    ballast = fill(disk)

    with pytest.raises(OSError, match="No space left"):
        journal.store(NEW)
    assert journal.load() == OLD
    assert sorted(file.name for file in disk.iterdir()) == ["ballast", "journal.json"]
    ballast.unlink()
    journal.store(NEW)

    assert journal.load() == NEW


def test_the_first_record_of_a_full_disk_is_none(disk: Path) -> None:
    fill(disk)
    journal = FileJournal(disk / "state" / "journal.json")

    with pytest.raises(OSError, match="No space left"):
        journal.store(NEW)

    assert journal.load() is None


def test_an_unreadable_journal_on_a_full_disk_is_told(disk: Path) -> None:
    (disk / "journal.json").write_bytes(b"torn" * 2000)
    fill(disk)

    with pytest.raises(UnreadableState, match=r"couldn't be kept: .*No space left"):
        FileJournal(disk / "journal.json").load()


def test_the_old_record_can_be_read_from_a_read_only_disk(disk: Path) -> None:
    journal = FileJournal(disk / "journal.json")
    journal.store(OLD)
    make_read_only(disk)

    with pytest.raises(OSError, match="Read-only file system"):
        journal.store(NEW)

    assert journal.load() == OLD
