"""EFI variables: what is written is what firmware reads, and what can't be read or written has a name."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_day2.adapters.bootloader.efi_variables import GLOBAL_VENDOR, LOADER_VENDOR, EfiVariables
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure

NAME = "LoaderEntryOneShot"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a mounted efivarfs."""
    folder = tmp_path / "efivars"
    folder.mkdir()
    (folder / f"BootOrder-{GLOBAL_VENDOR}").write_bytes(b"\7\0\0\0\0\0")
    return folder


@pytest.fixture
def file(folder: Path) -> Path:
    """The variable's file."""
    return folder / f"{NAME}-{LOADER_VENDOR}"


def test_a_variable_is_attributes_and_utf_16_with_a_final_nul(folder: Path, file: Path) -> None:
    EfiVariables(folder).write(NAME, "b.conf")
    assert file.read_bytes() == b"\7\0\0\0b\0.\0c\0o\0n\0f\0\0\0"


def test_a_variable_that_is_written_is_read_and_removed(folder: Path, file: Path) -> None:
    variables = EfiVariables(folder)
    assert variables.read(NAME) is None
    for text in ("edge_day2-b+3.conf", "b.conf"):
        variables.write(NAME, text)
        assert variables.read(NAME) == text
    variables.remove(NAME)
    assert variables.read(NAME) is None
    assert not file.exists()
    variables.remove(NAME)


@pytest.mark.parametrize("text", ["b.conf", "b.conf\0longer.conf\0"])
def test_a_variable_is_read_up_to_the_first_nul_as_the_loader_does(folder: Path, file: Path, text: str) -> None:
    file.write_bytes(b"\7\0\0\0" + text.encode("utf-16-le"))
    assert EfiVariables(folder).read(NAME) == "b.conf"


def test_a_variable_that_was_created_and_never_written_isnt_set(folder: Path, file: Path) -> None:
    file.touch()
    assert EfiVariables(folder).read(NAME) is None


def test_a_variable_that_holds_the_text_already_isnt_written_again(folder: Path, file: Path) -> None:
    variables = EfiVariables(folder)
    variables.write(NAME, "b.conf")
    before = file.stat().st_mtime_ns
    variables.write(NAME, "b.conf")
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"\7\0\0", b"\7\0\0\0b", b"\7\0\0\0\0\xd8\0\0", b"\7\0\0\0", b"\7\0\0\0\0\0b\0"])
def test_garbage_is_a_named_failure(folder: Path, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(NodeFailure, match=NAME) as failure:
        EfiVariables(folder).read(NAME)
    assert failure.value.reason is FailureReason.BOOTLOADER_FAIL


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=40))
def test_whatever_a_variable_holds_it_is_a_name_or_a_named_failure_and_can_be_overwritten(
    folder: Path, file: Path, content: bytes
) -> None:
    file.write_bytes(content)
    variables = EfiVariables(folder)
    with contextlib.suppress(NodeFailure):
        text = variables.read(NAME)
        assert text is None or text.isprintable()
    variables.write(NAME, "b.conf")
    assert variables.read(NAME) == "b.conf"


def test_a_variable_of_any_length_is_read_within_limits(folder: Path, file: Path) -> None:
    file.write_bytes(b"\7\0\0\0" + b"a\0" * 100_000)
    with pytest.raises(NodeFailure, match="at most 2052"):
        EfiVariables(folder).read(NAME)


class TestWithoutEfivarfs:
    @pytest.fixture(params=["missing", "empty"])
    def unmounted(self, tmp_path: Path, request: pytest.FixtureRequest) -> EfiVariables:
        path = tmp_path / "unmounted"
        if request.param == "empty":
            path.mkdir()
        return EfiVariables(path)

    def test_reading_says_what_is_missing(self, unmounted: EfiVariables) -> None:
        with pytest.raises(NodeFailure, match="wasn't booted through UEFI"):
            unmounted.read(NAME)

    def test_writing_and_removing_say_what_is_missing(self, unmounted: EfiVariables) -> None:
        with pytest.raises(NodeFailure, match="efivarfs isn't mounted"):
            unmounted.write(NAME, "b.conf")
        with pytest.raises(NodeFailure, match="efivarfs isn't mounted"):
            unmounted.remove(NAME)
        with pytest.raises(NodeFailure, match="efivarfs isn't mounted"):
            unmounted.secure_boot()


def test_secure_boot_is_what_the_firmware_says(folder: Path) -> None:
    variables = EfiVariables(folder)
    assert not variables.secure_boot()
    for value, enforced in ((b"\0", False), (b"\1", True)):
        (folder / f"SecureBoot-{GLOBAL_VENDOR}").write_bytes(b"\6\0\0\0" + value)
        assert variables.secure_boot() is enforced


def test_a_write_that_firmware_forgets_is_found_out(folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, content: len(content))
    with pytest.raises(NodeFailure, match=r"holds None after .* was written"):
        EfiVariables(folder).write(NAME, "b.conf")


def test_a_symbolic_link_isnt_followed(folder: Path, file: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    file.symlink_to(target)
    with pytest.raises(NodeFailure, match="symbolic link"):
        EfiVariables(folder).write(NAME, "b.conf")
    assert target.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_folder_that_may_not_be_written_is_a_named_failure(folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(NodeFailure, match="isn't root"):
        EfiVariables(folder).write(NAME, "b.conf")


class TestImmutable:
    @pytest.fixture
    def immutable(self, folder: Path, file: Path) -> Path:
        """The variable's file with the mark that the kernel gives the files of efivarfs."""
        EfiVariables(folder).write(NAME, "a.conf")
        if subprocess.run(["chattr", "+i", file], check=False, capture_output=True).returncode:
            pytest.skip("chattr +i needs root and a file system that knows it")
        with pytest.raises(PermissionError):
            file.write_bytes(b"")
        return file

    @pytest.fixture(autouse=True)
    def clean(self, file: Path) -> object:
        yield
        subprocess.run(["chattr", "-f", "-i", file], check=False, capture_output=True)

    def test_the_mark_is_taken_off_for_writing_and_put_back(self, folder: Path, immutable: Path) -> None:
        variables = EfiVariables(folder)
        variables.write(NAME, "b.conf")
        assert variables.read(NAME) == "b.conf"
        with pytest.raises(PermissionError):
            immutable.write_bytes(b"")

    def test_a_marked_variable_can_be_removed(self, folder: Path, immutable: Path) -> None:
        EfiVariables(folder).remove(NAME)
        assert not immutable.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
class TestMounts:
    @pytest.fixture
    def mounted(self, tmp_path: Path) -> object:
        """A small tmpfs in place of efivarfs."""
        path = tmp_path / "mounted"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=8", "tmpfs", str(path)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("a tmpfs can't be mounted here")
        (path / f"BootOrder-{GLOBAL_VENDOR}").write_bytes(b"")
        yield path
        subprocess.run(["umount", path], check=True)

    def test_read_only_efivarfs_is_a_named_failure(self, mounted: Path) -> None:
        variables = EfiVariables(mounted)
        variables.write(NAME, "a.conf")
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        with pytest.raises(NodeFailure, match="mounted read-only"):
            variables.write(NAME, "b.conf")
        with pytest.raises(NodeFailure, match="mounted read-only"):
            variables.remove(NAME)
        assert variables.read(NAME) == "a.conf"

    def test_a_full_variable_store_is_a_named_failure(self, mounted: Path) -> None:
        (mounted / "other").write_bytes(b"x" * 4096)
        with pytest.raises(NodeFailure, match="NVRAM"):
            EfiVariables(mounted).write(NAME, "b.conf")
