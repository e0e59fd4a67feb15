"""A node in a real machine, its orchestrator, and what must be true of both whatever happens to the power."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from edge_day2.domain.statuses import InventoryStatus, UpdateStatusType
from vm import disk
from vm.boot_loaders import KERNEL_PARAMETERS, BootLoader, root_of
from vm.control_plane import GUID, HOST, ControlPlane, control_plane
from vm.disk import Partition
from vm.guest_image import GuestImage
from vm.machine import Machine, new_variables
from vm.volatile_disk import VolatileDisk, by_chance

OLD, NEW = "3.1", "3.2"
# What the agent says when nothing is left to do, and nothing is begun again by itself.
_SETTLED: Final = re.compile(r"^agent: (up to date|not updated: .*until the desired OS changes)", re.MULTILINE)
_STATE: Final = re.compile(r"[0-9a-f-]{36}: (?:update|the update ended): (\w+)")
_UP: Final = re.compile(r"^vm: up from (slot-[ab]) with (\S+)$", re.MULTILINE)
# BdsDxe is the part of the firmware that starts boot entries.
_START: Final = "BdsDxe: starting"
_ONE_UPDATE: Final = re.compile(r"(G|O)*S+(T|F+|UT)")
_LETTERS: Final = {
    UpdateStatusType.DOWNLOADING: "G", UpdateStatusType.DOWNLOADED: "O", UpdateStatusType.STARTED: "S",
    UpdateStatusType.UPDATED: "U", UpdateStatusType.UP_TO_DATE: "T", UpdateStatusType.FAILED: "F",
}  # fmt: skip


def states(text: str) -> list[str]:
    """Return the states that an update entered, by what the agent logged."""
    return _STATE.findall(text)


@frozen(kw_only=True)
class NodePolicy:
    """What a scenario asks of the node: see `AgentPolicy` and `HealthChecks`."""

    trial_boots: int = 2
    health_deadline_seconds: float = 90.0


@define
class NodeBench:
    """One node on trial."""

    plane: ControlPlane
    machine: Machine
    drive: Path
    old: GuestImage
    new: GuestImage
    began: float = field(factory=time.monotonic)

    def wait_for_state(self, name: str) -> None:
        """Wait until the agent enters a state."""

        def entered() -> bool:
            # In this order: what is said in between isn't missed.
            settled, said = self._settled(), states(self.machine.text())
            assert name in said or not settled, f"the node settled without {name!r}, after {said}"
            return name in said

        self.machine.wait(entered, f"state {name}")

    def wait_until_up(self, slot: Partition) -> None:
        """Wait until the OS in `slot` is up."""
        self.machine.wait(lambda: any(name == slot.name for name, _ in self.ups()), f"up from {slot.name}")

    def ups(self) -> list[tuple[str, str]]:
        """Return slot and version of each boot since the power came on."""
        return _UP.findall(self.machine.text())

    def wait_until_settled(self) -> None:
        """Wait until the agent of the boot that runs has nothing left to do, and the orchestrator heard the end."""
        self.machine.wait(self._settled, "the agent settles and the orchestrator hears of it")

    def _settled(self) -> bool:
        last_boot = self.machine.text().rpartition("vm: up from ")[2]
        return _SETTLED.search(last_boot) is not None and self._end_is_told()

    def _end_is_told(self) -> bool:
        runs, told = self.plane.runs(), self.plane.told()
        closed = bool(runs) and all(run.end_time is not None for run in runs)
        return closed and told[-1] in (UpdateStatusType.UP_TO_DATE, UpdateStatusType.FAILED)

    def boots(self) -> int:
        """Return how often the boot loader was started."""
        return sum(file.read_bytes().count(_START.encode()) for file in self.machine.folder.glob("serial-*.txt"))

    def check(self) -> str:
        """Check everything that must hold once the node has settled; return where it stands, in a few words."""
        slot, version = self.ups()[-1]
        instance, runs, told = self.plane.instance(), self.plane.runs(), self.plane.told()
        status = instance.update.status
        committed = slot == disk.SLOT_B.name
        # The running slot was never written, and the image that was committed is there to the last byte.
        assert self._holds(disk.SLOT_A, self.old), "slot A isn't what it was"
        assert not committed or self._holds(disk.SLOT_B, self.new), "slot B isn't the image"
        assert version == (NEW if committed else OLD)
        # The orchestrator knows what runs, and how each update ended.
        assert self.plane.current_version() == version
        assert runs, "the orchestrator was told of no update"
        assert all(run.end_time is not None for run in runs), runs
        word = "".join(_LETTERS[kind] for kind in told)
        assert re.fullmatch(rf"T*({_ONE_UPDATE.pattern}T*)+", word), word
        ends = [run.update.status for run in runs]
        assert ends[-1] is (InventoryStatus.DONE if committed else InventoryStatus.FAILED), ends
        assert InventoryStatus.DONE not in ends[:-1], ends
        good = (InventoryStatus.DONE, InventoryStatus.UP_TO_DATE)
        assert status in (good if committed else (InventoryStatus.FAILED,))
        # What an ordinary boot takes is what the orchestrator believes to run.
        self.machine.cut_power()
        self.machine.power_on()
        self.machine.wait_for("vm: up from ")
        assert self.ups()[0] == (slot, version)
        reasons = [] if committed else self.reasons()
        return " ".join([f"{version} in {slot}: {status.name}", *reasons])

    def stands_on(self, version: str) -> bool:
        """Return whether the node that `check` found in order runs this version."""
        return self.ups()[-1][1] == version

    def damage_kernel_of(self, entry: str) -> None:
        """Overwrite the beginning of the kernel that an entry of systemd-boot starts, while the machine is off."""
        esp = f"{self.drive}@@{disk.ESP.start}M"
        text = disk.run(["mtype", "-i", esp, f"::loader/entries/{entry}"])
        kernel = re.search(r"^linux (\S+)$", text, re.MULTILINE)
        assert kernel is not None, text
        local = self.machine.folder / "damaged"
        disk.run(["mcopy", "-n", "-i", esp, f"::{kernel[1]}", str(local)])
        local.write_bytes(b"garbage " * 512 + local.read_bytes()[4096:])
        disk.run(["mcopy", "-o", "-i", esp, str(local), f"::{kernel[1]}"])

    def reasons(self) -> list[str]:
        """Return status and reason of the log entries of the last update that failed."""
        detail = json.loads(self.plane.runs()[-1].update.detail)
        return [f"{entry.get('status')} ({entry.get('failure_reason')})" for entry in detail["update_log"]]

    def measured(self, name: str, ending: str) -> str:
        """Return the line of a scenario in the table."""
        return f"{name:<80} {self.boots():>3} boots {time.monotonic() - self.began:>5.0f} s  {ending}"

    def _holds(self, slot: Partition, image: GuestImage) -> bool:
        size = image.raw.stat().st_size
        with image.raw.open("rb") as file:
            wanted = hashlib.file_digest(file, "sha256").digest()
        return hashlib.sha256(disk.get(self.drive, slot, size)).digest() == wanted


@contextmanager
def node_bench(
    folder: Path,
    loader: BootLoader,
    old: GuestImage,
    new: GuestImage,
    policy: NodePolicy,
    lost_writes: random.Random | None = None,
) -> Iterator[NodeBench]:
    """Set up a node that runs `old` in slot A, with an orchestrator that wants it to run `new`.

    `lost_writes` gives its disk a cache that a power cut empties: see `VolatileDisk`.
    """
    drive = folder / "disk.img"
    with control_plane(folder, old, new) as plane, contextlib.ExitStack() as stack:
        _install(folder, drive, loader, old, plane, policy)
        new_variables(folder / "variables.fd")
        served = drive if lost_writes is None else stack.enter_context(VolatileDisk(drive, by_chance(lost_writes)))
        variables = folder / "variables.fd"
        machine = stack.enter_context(Machine(folder / "machine", served, variables, memory=loader.memory))
        yield NodeBench(plane, machine, drive, old, new)


def _install(
    folder: Path, drive: Path, loader: BootLoader, image: GuestImage, plane: ControlPlane, policy: NodePolicy
) -> None:
    disk.make_disk(drive)
    esp, data, shared = folder / "esp.img", folder / "data.img", folder / "data"
    disk.fat(esp, disk.ESP.size, loader.files(image))
    shared.mkdir()
    for file in (plane.authority.ca, plane.authority.folder / "token"):
        shutil.copy(file, shared / file.name)
    (shared / "node.toml").write_text(_settings(loader, plane, policy))
    disk.ext4(data, disk.DATA.size, shared, journal=True, label="data")
    for part, content in ((disk.ESP, esp), (disk.SLOT_A, image.raw), (disk.DATA, data)):
        disk.put(drive, part, content)
    esp.unlink()
    data.unlink()


def _settings(loader: BootLoader, plane: ControlPlane, policy: NodePolicy) -> str:
    """Return the settings of examples/immutable_node.py."""
    images = f"http://{HOST}:{plane.images.port}/files"
    return f"""
host_guid = "{GUID}"

[maintenance_manager]
address = "{HOST}:{plane.port}"
ca = "/data/ca.pem"
token_file = "/data/token"

[agent]
journal = "/data/journal.json"
lock = "/run/agent.lock"
interval_seconds = 1

[health]
deadline_seconds = {policy.health_deadline_seconds}
retry_after_seconds = 1
default_route = true
commands = [["/opt/health"]]

[policy]
trial_boots = {policy.trial_boots}
retry_after_minutes = 0

[slots.a]
path = "/dev/disk/by-partlabel/{disk.SLOT_A.name}"
root = "{root_of(disk.SLOT_A)}"
adopted = "{loader.adopted}"

[slots.b]
path = "/dev/disk/by-partlabel/{disk.SLOT_B.name}"
root = "{root_of(disk.SLOT_B)}"

[images]
base_url = "{images}"
initrds = ["/boot/initramfs.img"]
records = "/data/slots"
prefetched = "/data/images"

[[images.sources]]
url = "{images}"

[boot]
options = "{KERNEL_PARAMETERS}"

[machine]
reboot_command = ["reboot"]
"""
