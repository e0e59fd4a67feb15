"""Power cuts and refusals at every single change that a boot loader's adapter makes to a disk.

After each of them the node must still boot what it ran, and the call must work when it is made again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from attrs import evolve, frozen

from boot_bench import GrubMachine, SystemdBootMachine, kernel
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.ports.bootloader import BootloaderPort, BootState
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.faults import PowerCut
from file_faults import FileFaults

A, B = BootEntry(Slot.A), BootEntry(Slot.B)
ORIGINAL = {A: "linux.efi", B: "linux-2.efi"}
MOST_CHANGES = 200
MEMORY = Path("/dev/shm")


@frozen
class Machine:
    """What a case runs on: a machine in a folder, and its adapter."""

    bench: SystemdBootMachine | GrubMachine
    tries: int | None = None
    adopted: Mapping[BootEntry, str] | None = None

    @property
    def port(self) -> BootloaderPort:
        if isinstance(self.bench, GrubMachine):
            return self.bench.port()
        return self.bench.port(tries=self.tries, adopted=self.adopted)

    def boot(self) -> None:
        self.bench.boot()

    def copy(self, folder: Path) -> Machine:
        """Return another machine with the same disk."""
        shutil.copytree(self.bench.folder, folder)
        return evolve(self, bench=evolve(self.bench, folder=folder))


def systemd_boot(folder: Path) -> Machine:
    return Machine(SystemdBootMachine.installed(folder))


def systemd_boot_counting(folder: Path) -> Machine:
    return Machine(SystemdBootMachine.installed(folder), tries=2)


def systemd_boot_taken_over(folder: Path) -> Machine:
    return Machine(SystemdBootMachine.of_the_original(folder), adopted=ORIGINAL)


def grub(folder: Path) -> Machine:
    if shutil.which("grub-editenv") is None:
        pytest.skip("grub-editenv (grub-common) is missing")
    return Machine(GrubMachine.installed(folder))


@frozen
class Case:
    """A call, what comes before it, and the states that the node may be in when it was interrupted."""

    name: str
    prepare: Callable[[Machine], None]
    call: Callable[[BootloaderPort], None]
    during: tuple[BootState, ...]
    after: BootState

    def __str__(self) -> str:
        return self.name


def nothing(machine: Machine) -> None:
    pass


def written(machine: Machine) -> None:
    machine.port.write_entry(B, "quiet")


def written_with_an_older_kernel(machine: Machine) -> None:
    written(machine)
    machine.bench.contents.kernels[Slot.B] = kernel("a newer kernel")


def armed(machine: Machine) -> None:
    written(machine)
    machine.port.arm(B)


def on_trial(machine: Machine) -> None:
    armed(machine)
    machine.boot()


def committed(machine: Machine) -> None:
    on_trial(machine)
    machine.port.set_default(B)


AT_REST = BootState(active=A, default=A)
ARMED = BootState(active=A, default=A, one_shot=B)
ON_TRIAL = BootState(active=B, default=A)
COMMITTED = BootState(active=B, default=B)
CASES = (
    Case("write", nothing, lambda port: port.write_entry(B, "quiet"), (AT_REST,), AT_REST),
    Case("rewrite", written_with_an_older_kernel, lambda port: port.write_entry(B, "splash"), (AT_REST,), AT_REST),
    Case("write variant", nothing, lambda port: port.write_entry(A.beside(), "splash"), (AT_REST,), AT_REST),
    Case("remove", written, lambda port: port.remove_entry(B), (AT_REST,), AT_REST),
    Case("arm", written, lambda port: port.arm(B), (AT_REST, ARMED), ARMED),
    Case("disarm", armed, lambda port: port.disarm(), (AT_REST, ARMED), AT_REST),
    Case("commit", on_trial, lambda port: port.set_default(B), (ON_TRIAL, COMMITTED), COMMITTED),
    Case("go back", committed, lambda port: port.set_default(A), (ON_TRIAL, COMMITTED), ON_TRIAL),
    Case("write the origin", committed, lambda port: port.write_entry(A, "quiet"), (COMMITTED,), COMMITTED),
)
MACHINES = (systemd_boot, systemd_boot_counting, systemd_boot_taken_over, grub)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of flushes take their time on a disk that others use."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="edge_day2-cuts-", dir=MEMORY) as name:
        yield Path(name)


@pytest.mark.parametrize("cut", [True, False], ids=["power cut", "refusal"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("make", MACHINES, ids=lambda make: make.__name__)
def test_wherever_a_call_stops_the_node_boots_and_the_call_works_again(
    make: Callable[[Path], Machine], case: Case, cut: bool, disk: Path
) -> None:
    temporary = disk / "temporary"
    temporary.mkdir()
    (disk / "prepared").mkdir()
    prepared = make(disk / "prepared")
    case.prepare(prepared)
    for number in range(1, MOST_CHANGES):
        machine = prepared.copy(disk / f"{number}")
        faults = FileFaults(number, cut)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(tempfile, "tempdir", str(temporary))
            faults.install(monkeypatch)
            stopped = stops(case.call, machine.port)
        found = machine.port.state()
        assert found in case.during, f"stopped at change {number}"
        assert found == case.after or stopped, f"change {number} went wrong and nobody said so"

        rebooted = machine.copy(disk / f"{number} rebooted")
        rebooted.boot()
        # An interrupted arming may have worked; what it takes then was whole before.
        assert rebooted.port.state() == BootState(active=found.one_shot or found.default, default=found.default)

        case.call(machine.port)
        assert machine.port.state() == case.after
        machine.boot()
        assert machine.port.state() == BootState(
            active=case.after.one_shot or case.after.default, default=case.after.default
        )
        if not faults.reached:
            assert number > 1
            return
    raise AssertionError(f"more than {MOST_CHANGES} changes")


def stops(call: Callable[[BootloaderPort], None], port: BootloaderPort) -> bool:
    """Return whether the call said that it stopped."""
    try:
        call(port)
    except (PowerCut, NodeFailure):
        return True
    return False
