"""The real apt adapter where somebody else is at the packages, where scripts hang or shout, where the disk is full."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from apt_repository import DebPackage, missing_tools
from apt_world import AptWorld, apt_world, soon
from edge_day2.domain.observation import PackageDatabase
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure, OutOfTime, PackageDatabaseInterrupted

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "apt is here")

TOOL = DebPackage(name="tool")
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/cache/apt/archives/lock", "/var/lib/apt/lists/lock")
HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AptWorld]:
    with apt_world(tmp_path) as made:
        yield made


@contextmanager
def locked(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold a lock, until it is given a line or the block ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        try:
            yield holder
        finally:
            holder.kill()


@pytest.mark.parametrize("lock", LOCKS)
def test_who_holds_a_lock_until_the_window_closes_is_named(world: AptWorld, lock: str) -> None:
    world.offers(TOOL)
    apt = world.apt()

    with locked(world.file(lock)) as holder, pytest.raises(OutOfTime) as told:
        apt.download(("tool",), soon(1))

    assert f"(pid {holder.pid}) holds" in str(told.value)
    assert lock in str(told.value)


def test_who_holds_a_lock_for_too_long_in_an_open_window_is_a_failure(world: AptWorld) -> None:
    world.offers(TOOL)
    apt = world.apt(lock_wait=timedelta(seconds=1))

    with locked(world.file(LOCKS[0])) as holder, pytest.raises(NodeFailure, match=rf"pid {holder.pid}\) holds"):
        apt.repair(None)


@pytest.mark.parametrize("lock", LOCKS[:3])
def test_a_lock_that_is_taken_between_our_look_and_that_of_apt_is_waited_for(
    world: AptWorld, tmp_path: Path, lock: str
) -> None:
    world.offers(TOOL)
    holder, runner, taken = tmp_path / "holder.py", tmp_path / "runner", tmp_path / "taken"
    holder.write_text(
        f"import fcntl, time\nfile = open({str(world.file(lock))!r}, 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\n"
        f"open({str(taken)!r}, 'w').close()\ntime.sleep(1)\n"
    )
    # The first command that runs dpkg finds the lock taken a moment before.
    runner.write_text(
        f"#!/bin/sh\nif ! test -e {taken}; then\n{sys.executable} {holder} &\n"
        f'while ! test -e {taken}; do sleep 0.05; done\nfi\nexec "$@"\n'
    )
    runner.chmod(0o755)
    apt = world.apt(runner=(str(runner),))
    plan = apt.download(("tool",), soon())

    apt.install(("tool",), plan, soon())

    assert taken.exists()
    assert apt.installed() == plan


def test_a_script_that_hangs_is_named_and_left_alone(world: AptWorld, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    world.has(TOOL)
    world.offers(DebPackage(name="tool", version="2", scripts={"postinst": f"echo working; read line < {gate}"}))
    apt = world.apt(change_limit=timedelta(seconds=3))
    plan = apt.download_upgrade(soon())

    with pytest.raises(NodeFailure, match="it goes on and isn't ended") as failure:
        apt.install_upgrade(plan, soon())

    assert re.search(r"dpkg \(pid \d+\), tool\.postinst \(pid \d+\)", failure.value.log)
    assert "working" in failure.value.log
    assert apt.state() is PackageDatabase.INTERRUPTED
    with pytest.raises(OutOfTime, match="apt-get"):
        apt.repair(soon(1))
    gate.write_text("go on\n")
    assert apt.repair(soon()).startswith("nothing to repair")
    assert apt.installed() == (("tool", "2"),)


def test_a_script_that_prints_without_measure_is_cut_short_in_the_log(world: AptWorld) -> None:
    world.has(TOOL)
    noise = "echo beginning; head -c 5000000 /dev/zero | tr '\\0' x; echo the end >&2; exit 1"
    world.offers(DebPackage(name="tool", version="2", scripts={"preinst": noise}))
    apt = world.apt()
    plan = apt.download_upgrade(soon())

    with pytest.raises(NodeFailure, match="the end") as failure:
        apt.install_upgrade(plan, soon())

    assert "bytes left out" in failure.value.log
    assert len(failure.value.log) < 5_000


def test_what_runs_dpkg_goes_through_the_runner_and_nothing_else_does(world: AptWorld, tmp_path: Path) -> None:
    world.has(TOOL)
    world.offers(DebPackage(name="tool", version="2"))
    log = tmp_path / "log"
    runner = tmp_path / "runner"
    runner.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec "$@"\n')
    runner.chmod(0o755)
    apt = world.apt(runner=(str(runner),))

    plan = apt.download_upgrade(soon())
    assert not log.exists()
    apt.install_upgrade(plan, soon())

    (run,) = log.read_text().splitlines()
    assert run.endswith("--no-download --with-new-pkgs upgrade")
    assert "--no-remove" in run
    assert apt.installed() == plan


def test_an_apt_that_is_not_there_is_a_failure_with_its_name(world: AptWorld) -> None:
    apt = world.apt(environment={**world.root.environment, "PATH": "/nowhere"})

    with pytest.raises(NodeFailure, match="dpkg"):
        apt.installed()


def test_credentials_in_what_a_command_prints_are_not_told(world: AptWorld) -> None:
    world.has(TOOL)
    shout = "echo 'can not reach https://user:secret@mirror.example/pool'; exit 1"
    world.offers(DebPackage(name="tool", version="2", scripts={"preinst": shout}))
    apt = world.apt()
    plan = apt.download_upgrade(soon())

    with pytest.raises(NodeFailure, match=r"https://mirror\.example/pool") as failure:
        apt.install_upgrade(plan, soon())

    assert "secret" not in failure.value.log


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small file system")
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"can't mount: {mounted.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_script_that_fills_the_disk_can_be_repaired_when_there_is_space(world: AptWorld, tiny_disk: Path) -> None:
    world.has(TOOL)
    shutil.copytree(world.file("/var/lib/dpkg"), tiny_disk / "dpkg")
    shutil.rmtree(world.file("/var/lib/dpkg"))
    world.file("/var/lib/dpkg").symlink_to(tiny_disk / "dpkg")
    filled = tiny_disk / "filled"
    fills = f"test -e {filled} || dd if=/dev/zero of={filled} bs=1k 2>/dev/null || true"
    world.offers(DebPackage(name="tool", version="2", scripts={"postinst": fills}))
    apt = world.apt()
    plan = apt.download_upgrade(soon())

    with pytest.raises((NodeFailure, PackageDatabaseInterrupted), match="No space left on device"):
        apt.install_upgrade(plan, soon())
    assert filled.stat().st_size > 1_000_000
    filled.write_bytes(b"")
    apt.repair(soon())

    assert apt.installed() == plan


def test_an_archive_that_is_full_is_told_before_the_download(world: AptWorld, tiny_disk: Path) -> None:
    big = DebPackage(name="big", files={"/usr/share/big/data": "x" * 5_000_000})
    world.offers(big)
    archives = world.file("/var/cache/apt/archives")
    shutil.rmtree(archives)
    archives.symlink_to(tiny_disk)
    (tiny_disk / "partial").mkdir()

    with pytest.raises(NodeFailure, match="bytes for downloads") as failure:
        world.apt(free_space_margin=1_000_000).download(("big",), soon())

    assert failure.value.reason is FailureReason.INSUFFICIENT_STORAGE
