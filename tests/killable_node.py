"""An A/B node in a folder, whose agent is the real one in a process of its own, and may die at any moment.

The rest is real as well: a Maintenance Manager on SQLite behind gRPC, images over HTTP, slots and an EFI system
partition as files. What plays the firmware is `boot_bench`: it takes the one-shot, else the default.
"""

from __future__ import annotations

import hashlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from attrs import define, field, frozen
from isal import igzip

from boot_bench import ROOTS, SystemdBootMachine, kernel
from edge_day2 import Instance, InventoryService, OSResource, OSType, SingleSchedule
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.observation import Slot
from edge_day2.domain.resources import ScheduleResource, ScheduleTarget, TargetLevel
from edge_day2.testing.local_authority import LocalAuthority
from image_server import ImageServer
from wire_server import TENANT, Recorder, guid, running

EXAMPLES = Path(__file__).parents[1] / "examples"
MISSING_TOOLS = [tool for tool in ("mke2fs", "debugfs") if shutil.which(tool) is None]

# Agents begin as forks of a process that has imported everything: most lives are shorter than Python's start.
NURSERY = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
import immutable_node
from node_command import OSType, main
import edge_day2.adapters.grpc.link, edge_day2.adapters.images.pipeline, edge_day2.adapters.images.decompression
for _ in sys.stdin:
    agent = os.fork()
    if not agent:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        status = 1
        try:
            status = main(immutable_node.ImmutableNodeSettings, OSType.IMMUTABLE, immutable_node.make_node, "")
        finally:
            os._exit(status)
    print(agent, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]), flush=True)
"""

SETTINGS = """
host_guid = "{guid}"
[maintenance_manager]
address = "localhost:{port}"
ca = "{ca}"
token_file = "{token}"
[agent]
journal = "{folder}/state/journal.json"
lock = "{folder}/agent.lock"
original_metadata = "{folder}/metadata.json"
interval_seconds = 0.05
first_retry_seconds = 0.05
longest_retry_seconds = 0.2
[machine]
boot_id = "{folder}/boot_id"
reboot_command = ["touch", "{folder}/reboot"]
[health]
deadline_seconds = 120
retry_after_seconds = 0.1
[policy]
retry_after_minutes = 0
retries = 1000
interruptions = 1000
trial_boots = 1000
[slots.a]
path = "{folder}/a.img"
root = "{root_a}"
[slots.b]
path = "{folder}/b.img"
root = "{root_b}"
[images]
base_url = "{files}"
records = "{folder}/state"
prefetched = "{folder}/state/images"
reserve_mib = 0
version_files = ["{folder}/os-release"]
[[images.sources]]
url = "{files}"
[boot]
esp = "{esp}"
efi_variables = "{variables}"
command_line = "{command_line}"
devices = "{folder}/dev"
"""


@frozen(kw_only=True)
class SystemImage:
    """A file system with kernel, initrd and version, and the file that it is packed into."""

    number: int
    raw: Path
    packed: Path

    @property
    def version(self) -> str:
        """Its version."""
        return f"3.{self.number}"

    @classmethod
    def make(cls, folder: Path, number: int, size: int) -> SystemImage:
        """Return an image of `size` bytes, half of it random."""
        tree, raw, packed = folder / f"tree-{number}", folder / f"{number}.raw", folder / f"{number}.raw.gz"
        (tree / "boot").mkdir(parents=True)
        (tree / "etc").mkdir()
        (tree / "etc" / "os-release").write_text(f'IMAGE_VERSION="3.{number}"\n')
        (tree / "boot" / "vmlinuz").write_bytes(kernel(f"kernel of image {number}"))
        (tree / "boot" / "initrd.img").write_bytes(f"initrd of image {number}".encode())
        (tree / "bulk").write_bytes(random.Random(number).randbytes(size // 2))
        command = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(tree), str(raw), f"{size // 1024}k"]
        subprocess.run(command, check=True, capture_output=True)
        shutil.rmtree(tree)
        packed.write_bytes(igzip.compress(raw.read_bytes(), 1))
        return cls(number=number, raw=raw, packed=packed)

    def os_resource(self) -> OSResource:
        """Return it as the Inventory knows it."""
        return OSResource(
            resource_id=f"os-{self.number}",
            tenant_id=TENANT,
            name=f"edge {self.version}",
            os_type=OSType.IMMUTABLE,
            profile_name="edge",
            profile_version=f"{self.version}.0",
            image_id=self.version,
            sha256=hashlib.sha256(self.packed.read_bytes()).hexdigest(),
            image_url=f"{self.number}.raw.gz",
        )


@define(kw_only=True)
class KillableNode:
    """The node, its Maintenance Manager and its image server."""

    folder: Path
    config: Path
    machine: SystemdBootMachine
    manager: Recorder
    admin: InventoryService
    images: dict[int, SystemImage]
    files: ImageServer
    schedule: ScheduleResource | None = None
    boots: int = 0
    _nursery: subprocess.Popen[bytes] = field(init=False)
    _log: IO[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._log = (self.folder / "agent.log").open("a")
        command = [sys.executable, "-c", NURSERY, str(EXAMPLES), "--config", str(self.config)]
        # Unbuffered, so that what can be read is seen by select.
        self._nursery = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0
        )

    def close(self) -> None:
        """End everything."""
        self._nursery.kill()
        with self._nursery, self._log:
            pass

    @property
    def journal(self) -> Path:
        """The agent's journal."""
        return self.folder / "state" / "journal.json"

    @property
    def said(self) -> str:
        """What the agent wrote last."""
        return (self.folder / "agent.log").read_text()[-6000:]

    def want(self, number: int, opens: timedelta) -> None:
        """Let the orchestrator want this image, in a window that opens so much later and never closes."""
        if self.schedule is not None:
            self.admin.delete(self.schedule)
        schedule = SingleSchedule(datetime.now(UTC).replace(microsecond=0) + opens)
        (instance,) = self.admin.instances(TENANT)
        target = ScheduleTarget(level=TargetLevel.HOST, resource_id=instance.host_id)
        self.schedule = self.admin.add_schedule(TENANT, "update", schedule, target=target)
        self.admin.link_desired_os(TENANT, instance.resource_id, self.images[number].os_resource().resource_id)

    @property
    def instance(self) -> Instance:
        """The node as the Inventory has it."""
        (instance,) = self.admin.instances(TENANT)
        return instance

    def boot(self) -> None:
        """Start the machine: firmware, boot loader and kernel."""
        (self.folder / "reboot").unlink(missing_ok=True)
        self.machine.boot()
        self.boots += 1
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        command = ["debugfs", "-R", "cat /etc/os-release", str(self.slot(self.active))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "IMAGE_VERSION" in said, f"what boots from slot {self.active.value} is no whole image"
        (self.folder / "os-release").write_text(said)

    @property
    def active(self) -> Slot:
        """The slot that runs."""
        command_line = self.machine.command_line.read_text()
        return next(slot for slot in Slot if ROOTS[slot] in command_line)

    def slot(self, slot: Slot) -> Path:
        """Return the file of a slot."""
        return self.folder / f"{slot.value.lower()}.img"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Both slots."""
        return tuple(Slot)

    def reboot_requested(self) -> bool:
        """Return whether the agent has asked for a reboot."""
        return (self.folder / "reboot").exists()

    def start(self) -> Agent:
        """Start the agent."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(b"begin\n")
        return Agent(process=int(self._nursery.stdout.readline()), nursery=self._nursery.stdout, node=self)


@define(kw_only=True)
class Agent:
    """The process of an agent. As a context manager it is killed at the end."""

    process: int
    nursery: IO[bytes]
    node: KillableNode
    status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """kill -9, unless it has ended already."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
            self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.process, number)

    def wait(self) -> int:
        """Wait for the agent's end and return its status."""
        if self.status is None:
            self.status = int(self.nursery.readline())
        return self.status

    def check_alive(self) -> None:
        """Fail where the agent has ended by itself."""
        if select.select([self.nursery], [], [], 0)[0]:
            raise AssertionError(f"the agent ended with {self.wait()}: {self.node.said}")

    def wait_until(self, holds: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until something holds; the agent must not end meanwhile."""
        deadline = time.monotonic() + seconds
        while not holds():
            self.check_alive()
            assert time.monotonic() < deadline, f"nothing happens: {self.node.said}"
            # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
            time.sleep(0.002)


def change_count(path: Path) -> Callable[[], int]:
    """Return a function that says how often the file was seen to be another one."""
    seen, count = [0], [0]

    def look() -> int:
        try:
            now = path.stat().st_ino ^ path.stat().st_mtime_ns
        except FileNotFoundError:
            now = 0
        if now != seen[0]:
            seen[0] = now
            count[0] += 1
        return count[0]

    look()
    count[0] = 0
    return look


@contextmanager
def killable_node(folder: Path, size: int, *, spoiled: int | None = None) -> Iterator[KillableNode]:
    """Yield a node that runs image 1 of three images of `size` bytes, and should run it.

    The file of the image `spoiled` can't be unpacked, although its digest is the right one.
    """
    machine = SystemdBootMachine.installed(folder)
    images = {number: SystemImage.make(folder, number, size) for number in (1, 2, 3)}
    if spoiled is not None:
        packed = images[spoiled].packed
        packed.write_bytes(packed.read_bytes()[:100_000])
    shutil.copyfile(images[1].raw, folder / "a.img")
    (folder / "b.img").write_bytes(bytes(size))
    (folder / "dev").mkdir()
    authority = LocalAuthority(folder / "authority")
    with (
        open_inventory(f"sqlite:///{folder / 'inventory.db'}", lock_timeout_seconds=60) as inventory,
        ImageServer() as files,
    ):
        for image in images.values():
            files.files[f"/images/{image.number}.raw.gz"] = image.packed
        with inventory.writing() as unit:
            unit.add_all([image.os_resource() for image in images.values()])
        admin = InventoryService(inventory, clock=SystemClock())
        host = admin.add_host(TENANT, guid(0), "node")
        admin.add_instance(TENANT, host.resource_id, images[1].os_resource().resource_id)
        manager = Recorder(inventory)
        with running(manager, authority) as server:
            config = folder / "node.toml"
            text = SETTINGS.format(
                guid=guid(0),
                port=server.port,
                ca=authority.ca,
                token=authority.token_file(authority.token(TENANT)),
                folder=folder,
                root_a=ROOTS[Slot.A],
                root_b=ROOTS[Slot.B],
                files=f"{files.url}/images",
                esp=machine.esp,
                variables=machine.variables,
                command_line=machine.command_line,
            )
            config.write_text(text)
            node = KillableNode(
                folder=folder,
                config=config,
                machine=machine,
                manager=manager,
                admin=admin,
                images=images,
                files=files,
            )
            node.boot()
            try:
                yield node
            finally:
                node.close()
