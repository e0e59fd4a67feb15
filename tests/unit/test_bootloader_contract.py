"""The contract of the Bootloader port, against every boot loader there is and the simulated one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from boot_bench import GrubMachine, SystemdBootMachine
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.ports.bootloader import BootloaderPort
from edge_day2.testing.bootloader_contract import BootloaderContract
from edge_day2.testing.model_nodes import ModelABNode, Violation


class TestSystemdBoot(BootloaderContract):
    @pytest.fixture
    def machine(self, tmp_path: Path) -> SystemdBootMachine:
        return SystemdBootMachine.installed(tmp_path)

    @pytest.fixture
    def port(self, machine: SystemdBootMachine) -> BootloaderPort:
        return machine.port(options="ro")

    @pytest.fixture
    def boot(self, machine: SystemdBootMachine) -> Callable[[], None]:
        return machine.boot


class TestSystemdBootCounting(TestSystemdBoot):
    @pytest.fixture
    def port(self, machine: SystemdBootMachine) -> BootloaderPort:
        return machine.port(tries=2)


class TestSystemdBootTakenOver(TestSystemdBoot):
    @pytest.fixture
    def machine(self, tmp_path: Path) -> SystemdBootMachine:
        return SystemdBootMachine.of_the_original(tmp_path)

    @pytest.fixture
    def port(self, machine: SystemdBootMachine) -> BootloaderPort:
        # Slot B's image isn't there by name: an adopted one could be committed without a trial.
        return machine.port(adopted={BootEntry(Slot.A): "linux.efi"})


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="grub-editenv (grub-common) is missing")
class TestGrub(BootloaderContract):
    @pytest.fixture
    def machine(self, tmp_path: Path) -> GrubMachine:
        return GrubMachine.installed(tmp_path)

    @pytest.fixture
    def port(self, machine: GrubMachine) -> BootloaderPort:
        return machine.port()

    @pytest.fixture
    def boot(self, machine: GrubMachine) -> Callable[[], None]:
        return machine.boot


class TestModelABNode(BootloaderContract):
    # The model has no opinion of its own: what its adapter would refuse is a fault of whoever asks for it.
    refusal = Violation

    @pytest.fixture
    def node(self) -> ModelABNode:
        image = Image(profile_name="p", image_id="1", sha256="a" * 64)
        node = ModelABNode.with_image(image)
        node.contents[Slot.B] = image
        return node

    @pytest.fixture
    def port(self, node: ModelABNode) -> BootloaderPort:
        return node

    @pytest.fixture
    def boot(self, node: ModelABNode) -> Callable[[], None]:
        def boot() -> None:
            node.boot_into(node.next_entry(), node.boot + 1)
            node.check()

        return boot
