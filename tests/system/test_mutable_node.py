"""The agent of an apt node as a process of its own, through whole updates: its settings, real apt, dpkg and a
Maintenance Manager behind gRPC. What plays GRUB's scripts and the machine is in `grub_node.py`."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import define

from apt_repository import DebPackage, missing_tools
from apt_world import AptWorld, apt_world
from edge_day2 import InventoryService, OSResource, OSType, SingleSchedule, UpdateStatusType
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import ScheduleTarget, TargetLevel
from edge_day2.domain.statuses import FailureReason, parse_detail
from edge_day2.testing.local_authority import LocalAuthority
from grub_node import GrubNode
from wire_server import TENANT, Recorder, guid, running

KILLS = int(os.environ.get("EDGE_DAY2_KILLS", "6"))
EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = EXAMPLES / "mutable_node.toml"
MISSING = missing_tools() or ("" if shutil.which("grub-script-check") else "needs grub-script-check (grub-common)")
needs_apt = pytest.mark.skipif(bool(MISSING), reason=MISSING)

NODE = """
host_guid = "{guid}"
[maintenance_manager]
address = "localhost:{port}"
ca = "{ca}"
token_file = "{token}"
[agent]
journal = "{folder}/journal.json"
lock = "{folder}/agent.lock"
original_metadata = "{folder}/metadata.json"
interval_seconds = 0.1
[machine]
boot_id = "{folder}/proc/sys/kernel/random/boot_id"
reboot_command = ["touch", "{folder}/reboot"]
[health]
deadline_seconds = 60
retry_after_seconds = 0.1
[policy]
retries = 0
[apt]
agent_package = "agent"
helper_packages = ["helper"]
root = "{apt_root}"
apt_options = {apt_options}
dpkg_options = {dpkg_options}
[sources]
schemes = ["http"]
hosts = ["127.0.0.1"]
memory = "{folder}/apt-sources.json"
staging = "{folder}/staging"
[grub]
drop_in = "{grub.drop_in}"
superseded = ["{grub.original}"]
configuration = "{grub.configuration}"
boot = "{grub.boot}"
memory = "{grub.memory}"
proc = "{grub.proc}"
make_configuration = ["{grub.script}", "-o"]
"""


@define
class MutableNodeBench:
    """A node, its Maintenance Manager, and the repository that its sources name."""

    folder: Path
    config: Path
    world: AptWorld
    grub: GrubNode
    manager: Recorder

    @contextmanager
    def agent(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the agent until the block ends, which kills it."""
        with (self.folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, EXAMPLES / "mutable_node.py", "--config", self.config], stdout=log, stderr=log
            )
            with process:
                try:
                    yield process
                finally:
                    process.kill()

    def run_until(self, holds: Callable[[], bool]) -> None:
        """Run the agent until something holds."""
        deadline = time.monotonic() + 300
        with self.agent() as process:
            while not holds():
                log = self.folder / "agent.log"
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
                time.sleep(0.05)

    def reboot_requested(self) -> bool:
        return (self.folder / "reboot").exists()

    def boot(self) -> None:
        """Start the machine with what GRUB is configured to."""
        (self.folder / "reboot").unlink()
        self.grub.start()

    def told(self) -> list[str]:
        """Names of what the Maintenance Manager was told, without repetitions."""
        names = [status.status_type.name for status in self.manager.told]
        return [name for before, name in zip(["", *names], names, strict=False) if name != before]


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MutableNodeBench]:
    with (
        apt_world(tmp_path) as world,
        open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}", lock_timeout_seconds=60) as inventory,
    ):
        world.has(DebPackage(name="agent"), DebPackage(name="lib"))
        (world.root.sources / "tests.sources").unlink()
        world.repository.publish(DebPackage(name="agent"), DebPackage(name="lib", version="2"), DebPackage(name="tool"))
        source = world.repository.source(**getattr(request, "param", {}))
        wanted = OSResource(
            resource_id="os-1",
            tenant_id=TENANT,
            name="Ubuntu 24.04",
            os_type=OSType.MUTABLE,
            profile_name="ubuntu",
            image_id="24.4.0",
            sha256="1" * 64,
            update_sources=(source,),
            update_packages=("tool",),
            kernel_command_line="console=ttyS0,115200n8 nosmt",
        )
        with inventory.writing() as unit:
            unit.add(wanted)
        admin = InventoryService(inventory, clock=SystemClock())
        host = admin.add_host(TENANT, guid(0), "node")
        admin.add_instance(TENANT, host.resource_id, "os-1")
        target = ScheduleTarget(level=TargetLevel.HOST, resource_id=host.resource_id)
        admin.add_schedule(TENANT, "now", SingleSchedule(datetime.now(UTC).replace(microsecond=0)), target=target)
        manager, authority = Recorder(inventory), LocalAuthority(tmp_path / "authority")
        with running(manager, authority) as server:
            grub, config = GrubNode(tmp_path), tmp_path / "node.toml"
            text = NODE.format(
                guid=guid(0),
                port=server.port,
                ca=authority.ca,
                token=authority.token_file(authority.token(TENANT)),
                folder=tmp_path,
                apt_root=world.root.path,
                apt_options=json.dumps(world.root.apt_options),
                dpkg_options=json.dumps(world.root.dpkg_options),
                grub=grub,
            )
            config.write_text(text)
            yield MutableNodeBench(tmp_path, config, world, grub, manager)


@needs_apt
def test_an_update_goes_from_sources_to_verification_and_the_next_one_finds_nothing_to_do(
    bench: MutableNodeBench,
) -> None:
    bench.run_until(bench.reboot_requested)
    assert bench.world.root.installed() == {"agent": "1", "lib": "2", "tool": "1"}
    bench.boot()
    assert bench.grub.parameters()[-3:] == ("quiet", "console=ttyS0,115200n8", "nosmt")

    bench.run_until(lambda: bench.told()[-2:] == ["UPDATED", "UP_TO_DATE"])

    assert bench.told()[-4:] == ["UP_TO_DATE", "STARTED", "UPDATED", "UP_TO_DATE"]
    updated = next(one for one in bench.manager.told if one.status_type is UpdateStatusType.UPDATED)
    detail = parse_detail(updated.status_detail)
    assert detail is not None
    changed = {(entry.package_name, entry.version) for entry in detail.update_log}
    assert changed == {("lib", "2"), ("tool", "1"), ("kernel command line", "")}
    assert sorted(path.name for path in bench.world.root.sources.iterdir()) == ["edge-day2.sources"]


@needs_apt
@pytest.mark.parametrize("seed", [1, 2])
def test_an_agent_that_is_killed_again_and_again_ends_with_the_same_node(bench: MutableNodeBench, seed: int) -> None:
    moments = random.Random(seed)
    for _ in range(KILLS):
        with bench.agent():
            # Not a wait for something: the moment of death is what is varied.
            time.sleep(moments.uniform(0.5, 4))
        if bench.reboot_requested():
            bench.boot()
    while bench.told()[-2:] != ["UPDATED", "UP_TO_DATE"]:
        bench.run_until(lambda: bench.reboot_requested() or bench.told()[-2:] == ["UPDATED", "UP_TO_DATE"])
        if bench.reboot_requested():
            bench.boot()

    assert bench.world.root.installed() == {"agent": "1", "lib": "2", "tool": "1"}
    assert bench.grub.parameters()[-3:] == ("quiet", "console=ttyS0,115200n8", "nosmt")
    assert [path.name for path in bench.world.root.sources.iterdir()] == ["edge-day2.sources"]
    assert sorted(bench.grub.files()) == ["90-edge-day2.cfg", "grub.cfg"]
    assert "FAILED" not in bench.told()


@needs_apt
@pytest.mark.parametrize("bench", [{"Trusted": "yes"}], indirect=True)
def test_a_source_that_switches_verification_off_fails_the_update_and_says_why(bench: MutableNodeBench) -> None:
    bench.run_until(lambda: "FAILED" in bench.told())

    failed = next(one for one in bench.manager.told if one.status_type is UpdateStatusType.FAILED)
    detail = parse_detail(failed.status_detail)
    assert detail is not None
    assert detail.update_log[-1].failure_reason is FailureReason.DOWNLOAD_FAIL
    assert "Trusted" in detail.update_log[-1].failure_log
    assert list(bench.world.root.sources.iterdir()) == []
    assert bench.world.root.installed() == {"agent": "1", "lib": "1"}
    assert not bench.reboot_requested()


def test_the_unit_of_an_apt_node_holds_nothing_back_that_the_scripts_of_packages_inherit() -> None:
    unit = (EXAMPLES / "systemd" / "edge-day2-mutable.service").read_text()

    inherited = re.findall(
        r"^(?:Protect|Private|Restrict(?!Realtime)|NoNew|SystemCall|Memory(?!High)|Lock|ReadOnly|ReadWrite|Bind|Dynamic"
        r"|User|Group|RootDirectory|Mount)\w*=.*$",
        unit,
        flags=re.MULTILINE,
    )

    assert inherited == []
    assert "KillMode=mixed" in unit


def ask(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "mutable_node.py"), "--config", str(config), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_settings_of_the_apt_example_are_good() -> None:
    done = ask(SETTINGS, "--check-config")

    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_that_the_apt_example_shows_in_a_comment_is_one(tmp_path: Path) -> None:
    shown = re.sub(r"^# (\[\[?[a-z.]+\]\]?|[a-z_]+ = .*)$", r"\1", SETTINGS.read_text(), flags=re.MULTILINE)
    assert shown.count("\n# ") < SETTINGS.read_text().count("\n# ") - 20
    (tmp_path / "node.toml").write_text(shown)

    done = ask(tmp_path / "node.toml", "--check-config")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[apt]", "[apt]\nremovals = 'yes'", "found 'yes', expected refused or allowed"),
        ('hosts = ["packages.example.org"', 'hosts = "all"\nx = ["x"', "found 'all', expected list at sources.hosts"),
        ("[grub]", "[grub]\nboot = 5", "found 5, expected str at grub.boot"),
        ("[grub]", "[slots.a]", "unknown slots"),
    ],
)
def test_a_wrong_setting_of_an_apt_node_is_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    text = SETTINGS.read_text()
    assert before in text
    (tmp_path / "node.toml").write_text(text.replace(before, after))

    done = ask(tmp_path / "node.toml", "--check-config")

    assert done.returncode == 78
    assert said in done.stderr
