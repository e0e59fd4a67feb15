"""Kernel files: what firmware and GRUB could start, and what they would hang on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boot_bench import kernel, unified_kernel
from edge_day2.adapters.bootloader.kernel_images import KernelImage, inspect_efi_kernel, inspect_linux_kernel
from edge_day2.ports.failures import NodeFailure

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
X86 = 0x8664


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kernel"


def test_a_kernel_says_its_release(file: Path) -> None:
    file.write_bytes(kernel(machine=X86))
    assert inspect_efi_kernel(file, "x86_64") == KernelImage(release="6.1.0-test")
    assert inspect_linux_kernel(file, "x86_64") == KernelImage(release="6.1.0-test")


def test_a_unified_kernel_image_says_its_command_line_and_release(file: Path) -> None:
    file.write_bytes(unified_kernel(command_line="root=x quiet\n"))
    assert inspect_efi_kernel(file) == KernelImage(unified=True, command_line="root=x quiet", release="6.1.0-uki")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "MZ"),
        (b"#!/bin/sh\n", "MZ"),
        (b"MZ" + bytes(2000), "PE header"),
        (kernel(machine=0xAA64), "PE machine 0xaa64, expected 0x8664"),
        (kernel(machine=X86, subsystem=3), "PE subsystem 3"),
        (kernel(machine=X86)[:-1], "cut off"),
        (kernel(machine=X86).replace(b"HdrS", b"XXXX"), "HdrS"),
        (kernel(machine=X86, sections={".linux": b"garbage"}), "HdrS"),
    ],
)
def test_what_firmware_couldnt_start_is_named(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(NodeFailure, match=said) as failure:
        inspect_efi_kernel(file, "x86_64")
    assert failure.value.conclusive


@pytest.mark.parametrize("machine", ["aarch64", "riscv64", "sparc"])
def test_a_kernel_of_another_machine_is_refused(file: Path, machine: str) -> None:
    file.write_bytes(kernel(machine=X86))
    for inspect in (inspect_efi_kernel, inspect_linux_kernel):
        with pytest.raises(NodeFailure, match="expected"):
            inspect(file, machine)


def test_an_arm_kernel_has_a_magic_of_its_own(file: Path) -> None:
    content = bytearray(kernel(machine=0xAA64))
    file.write_bytes(content)
    with pytest.raises(NodeFailure, match="magic number"):
        inspect_efi_kernel(file, "aarch64")
    content[4:8] = b"zimg"
    file.write_bytes(content)
    assert inspect_efi_kernel(file, "aarch64") == KernelImage(release="6.1.0-test")
    assert inspect_linux_kernel(file, "aarch64") == KernelImage(release="6.1.0-test")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(at=st.integers(0, len(unified_kernel()) - 1), change=st.binary(min_size=1, max_size=8), cut=st.integers(0, 3000))
def test_whatever_a_file_holds_the_answer_is_an_image_or_a_named_failure(
    file: Path, at: int, change: bytes, cut: int
) -> None:
    content = unified_kernel(command_line="root=x")
    file.write_bytes((content[:at] + change + content[at + len(change) :])[: len(content) - cut or None])
    for inspect in (inspect_efi_kernel, inspect_linux_kernel):
        try:
            assert isinstance(inspect(file), KernelImage)
        except NodeFailure as failure:
            assert failure.conclusive  # noqa: PT017 both outcomes are allowed


@pytest.mark.skipif(not STUB.exists(), reason=f"{STUB} (systemd-boot-efi) is missing")
def test_an_efi_program_that_isnt_a_kernel_is_refused() -> None:
    with pytest.raises(NodeFailure, match="HdrS of a Linux kernel"):
        inspect_efi_kernel(STUB, "x86_64")
