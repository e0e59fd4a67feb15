"""Files that are replaced as a whole: what is there before, after, and when it goes wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_day2.adapters.durable_files import flush_folder, remove_file, replace_file


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is flushed and renamed, in order, as it goes."""
    happened: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        happened.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def note_rename(old: Path, new: Path) -> None:
        happened.append(f"rename {Path(old).name} {Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_rename)
    return happened


def test_a_file_is_flushed_before_it_takes_the_place_and_after_and_then_its_folder(
    tmp_path: Path, order: list[str]
) -> None:
    path = tmp_path / "loader.conf"

    replace_file(path, b"default b")

    flush, rename, folder = "fsync loader.conf.new", "rename loader.conf.new loader.conf", f"fsync {tmp_path.name}"
    # On FAT flushing the folder first would free the old file's clusters while the name still leads to them.
    assert order == [flush, rename, "fsync loader.conf", folder]
    assert path.read_bytes() == b"default b"


def test_the_old_content_goes_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "loader.conf"
    path.write_bytes(b"default a, and more")

    replace_file(path, b"default b")

    assert path.read_bytes() == b"default b"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "loader.conf"
    path.write_bytes(b"")
    path.chmod(0o640)
    before = os.umask(0o077)
    try:
        replace_file(path, b"x", mode=mode)
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == mode


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "loader.conf"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)

    with pytest.raises(OSError, match=r"loader\.conf") as error:
        replace_file(path, b"x")

    assert error.value.errno == errno.ELOOP
    assert victim.read_bytes() == b"precious"
    assert path.is_symlink()


def test_a_link_beside_the_file_is_taken_away_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "loader.conf"
    victim.write_bytes(b"precious")
    (tmp_path / "loader.conf.new").symlink_to(victim)

    replace_file(path, b"x")

    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == b"x"


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "loader.conf"
    path.write_bytes(b"default a")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"default b")

    assert path.read_bytes() == b"default a"
    assert list(tmp_path.iterdir()) == [path]


def test_removing_a_file_flushes_its_folder_also_where_the_file_is_gone_already(
    tmp_path: Path, order: list[str]
) -> None:
    path = tmp_path / "loader.conf"
    path.write_bytes(b"")

    remove_file(path)
    remove_file(path)

    assert order == [f"fsync {tmp_path.name}"] * 2
    assert not path.exists()


def test_removing_a_file_in_a_folder_that_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_file(tmp_path / "nowhere" / "loader.conf")


def test_flushing_what_is_not_a_folder_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")

    with pytest.raises(NotADirectoryError):
        flush_folder(path)
