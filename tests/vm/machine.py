"""A machine: QEMU's q35 with real UEFI firmware (OVMF), whose power can be cut."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vm.volatile_disk import VolatileDisk

FIRMWARE: Final = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES: Final = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
# For anything that is waited for. An update takes a minute on an idle machine, and many on a busy one.
PATIENCE_SECONDS: Final = 900.0
_POLL_SECONDS: Final = 0.02


class NeverHappened(AssertionError):
    """What was waited for didn't come."""


class Machine:
    """A machine with a disk and firmware variables of its own.

    Killing the process is what cutting the power is to the guest: memory is gone, and so is everything that the guest
    hasn't handed to its disk. What it has handed over stays, flushed or not, unless the disk is a `VolatileDisk`.
    """

    def __init__(self, folder: Path, disk: Path | VolatileDisk, variables: Path, *, memory: int) -> None:
        self.folder = folder
        self._disk = disk
        self.variables = variables
        self.starts = 0
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def serial(self) -> Path:
        """What the machine printed since it was switched on last."""
        return self.folder / f"serial-{self.starts}.txt"

    def text(self) -> str:
        """Return what was printed since the power came on."""
        try:
            return self.serial.read_bytes().decode(errors="replace").replace("\r", "")
        except FileNotFoundError:
            return ""

    def power_on(self) -> None:
        """Switch the machine on."""
        assert self._process is None, "the machine is on"
        self.starts += 1
        address = self._disk.address if isinstance(self._disk, VolatileDisk) else self._disk
        # TCG: KVM isn't to be had on most machines that run tests, and isn't needed.
        command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", str(self._memory)]
        command += ["-nodefaults", "-display", "none", "-rtc", "base=utc", "-serial", f"file:{self.serial}"]
        command += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"]
        command += ["-drive", f"if=pflash,format=raw,unit=1,file={self.variables}"]
        command += ["-drive", f"if=virtio,format=raw,cache=writeback,file={address}"]
        command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        with (self.folder / "qemu.txt").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def cut_power(self) -> None:
        """Cut the power."""
        assert self._process is not None, "the machine is off"
        self._process.kill()
        self._process.wait()
        self._process = None
        if isinstance(self._disk, VolatileDisk):
            self._disk.cut_power()

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Wait until the machine has printed `text` so many times since the power came on."""
        self.wait(lambda: self.text().count(text) >= times, text)

    def wait(self, happened: Callable[[], bool], name: str) -> None:
        """Wait until something happened.

        Raises:
            NeverHappened: it didn't, or the machine ended.
        """
        limit = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert self._process is not None, "the machine is off"
            ended = self._process.poll() is not None
            if ended or time.monotonic() > limit:
                why = "QEMU ended" if ended else f"nothing for {PATIENCE_SECONDS:.0f} s"
                said = (self.folder / "qemu.txt").read_text(errors="replace")[-500:]
                words = f"{said}; the machine's last words:\n{self.text()[-3000:]}"
                raise NeverHappened(f"{name!r} never happened ({why}) {words}")
            # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
            time.sleep(_POLL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.cut_power()


def new_variables(file: Path) -> None:
    """Make firmware variables with two boot entries for the same loader.

    Where a loader returns to the firmware, which is what systemd-boot does with a kernel that can't be loaded, OVMF
    tries the next entry and, after the last one, waits in its shell until somebody comes by.
    """
    shutil.copy(VARIABLES, file)
    # Beside the interpreter, whether or not its environment was activated.
    program = Path(sys.executable).with_name("virt-fw-vars")
    command = [str(program), "--inplace", str(file), "--append-boot-filepath", r"\EFI\BOOT\BOOTX64.EFI"]
    subprocess.run(command, check=True, capture_output=True)


def missing_firmware() -> list[str]:
    """Return the firmware files that this machine doesn't have."""
    return [str(file) for file in (FIRMWARE, VARIABLES) if not file.exists()]
