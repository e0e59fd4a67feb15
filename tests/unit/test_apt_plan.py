"""What apt's simulation says, what of it is refused, and how much space it takes."""

from __future__ import annotations

import pytest

from edge_day2.adapters.apt_plan import (
    PlannedChange,
    Simulation,
    beyond,
    missing,
    parse_download,
    parse_simulation,
    refusal,
    unpacking_bytes,
)
from edge_day2.adapters.apt_settings import Removals
from edge_day2.adapters.dpkg import DatabaseContent, InstalledPackage

# Lines of apt 1.x to 2.9, of Debian and Ubuntu.
PRINTED = """NOTE: This is only a simulation!
Reading package lists...
The following packages will be upgraded:
  libc6 Inst
2 upgraded, 1 newly installed, 1 to remove and 0 not upgraded.
Remv rival [1.0]
Purg other [2.0] [libc6:amd64 on other]
Inst libc6 [2.36-9] (2.36-9+deb12u10 Debian:12.10/stable, Debian-Security:12/stable-security [amd64]) [libc6-dev:amd64 ]
Inst libc6:i386 [2.36-9] (2.36-9+deb12u10 Debian:12.10/stable [i386])
Inst new (1:2.0~rc1-3ubuntu1 Our (own) Packages [x]:1/stable [all])
Inst local (3 [all]) []
Conf libc6 (2.36-9+deb12u10 Debian:12.10/stable [amd64])
"""


def package(name: str, version: str = "1", size: int = 0, want: str = "install", **changes: bool) -> InstalledPackage:
    given = {"needs_reinstallation": False, "indispensable": False, **changes}
    return InstalledPackage(name=name, version=version, want=want, status="installed", size=size, **given)


def change(name: str, installed: str = "1", version: str = "2") -> PlannedChange:
    return PlannedChange(name=name, installed=installed, version=version, architecture="all")


def would(*changes: PlannedChange, removals: tuple[str, ...] = ()) -> Simulation:
    return Simulation(changes=changes, removals=removals)


def content(*packages: InstalledPackage) -> DatabaseContent:
    return DatabaseContent(packages, ())


def refused(simulation: Simulation, *packages: InstalledPackage, removals: Removals = Removals.REFUSED) -> str:
    return refusal(simulation, content(*packages), removals, lambda one, other: int(one) < int(other))


def test_a_simulation_is_read_step_by_step() -> None:
    simulation = parse_simulation(PRINTED)

    assert [(one.name, one.installed, one.version, one.architecture) for one in simulation.changes] == [
        ("libc6", "2.36-9", "2.36-9+deb12u10", "amd64"),
        ("libc6:i386", "2.36-9", "2.36-9+deb12u10", "i386"),
        ("new", "", "1:2.0~rc1-3ubuntu1", "all"),
        ("local", "", "3", "all"),
    ]
    assert simulation.removals == ("rival", "other")
    assert simulation.packages[0] == ("libc6", "2.36-9+deb12u10")


@pytest.mark.parametrize("line", ["Inst tool", "Inst tool [1]", "Inst tool (2 Debian:12/stable)", "Remv "])
def test_a_step_that_can_not_be_read_is_an_error_and_never_skipped(line: str) -> None:
    with pytest.raises(ValueError, match=line.strip().split()[0]):
        parse_simulation(f"{line}\n")


def test_what_is_to_be_downloaded_is_added_up() -> None:
    printed = (
        "Need to get 62.0 kB of archives.\n"
        "'http://deb.example/pool/a%20b_1.deb' a_1_all.deb 20672 SHA256:00ff\n"
        "'http://deb.example/pool/b_1.deb' b_1_all.deb 1000 \n"
    )

    assert parse_download(printed) == 21_672


def test_an_ordinary_change_is_not_refused() -> None:
    assert refused(would(change("tool"), change("new", installed="")), package("tool")) == ""


def test_removals_are_refused_by_name_unless_they_are_allowed() -> None:
    simulation = would(change("tool"), removals=("rival",))

    assert refused(simulation, package("tool"), package("rival")) == "would remove rival"
    assert refused(simulation, package("tool"), package("rival"), removals=Removals.ALLOWED) == ""


def test_an_essential_package_is_never_removed() -> None:
    simulation = would(removals=("shell", "rival"))

    for removals in Removals:
        found = refused(simulation, package("shell", indispensable=True), package("rival"), removals=removals)
        assert found == "would remove essential packages: shell"


def test_a_package_on_hold_is_not_changed() -> None:
    assert refused(would(change("tool")), package("tool", want="hold")) == "would change packages on hold: tool"


def test_a_version_that_is_older_is_refused() -> None:
    assert refused(would(change("tool", installed="10", version="9")), package("tool")) == "would downgrade tool 10 → 9"


def test_a_long_list_is_cut_short() -> None:
    names = tuple(f"part{number}" for number in range(12))

    assert refused(would(removals=names)).endswith("part9 and 2 more")


def test_what_is_beyond_a_plan_is_named_with_its_version() -> None:
    simulation = would(change("tool"), change("lib", version="3"))

    assert beyond(simulation, (("lib", "2"), ("tool", "2"))) == "lib 3"
    assert beyond(simulation, (("lib", "3"), ("other", "1"), ("tool", "2"))) == ""


def test_what_is_missing_of_a_plan_is_named_with_what_was_found() -> None:
    plan = (("lib", "2"), ("tool", "2"))

    assert missing(plan, (("lib", "1"),)) == "lib: found 1, expected 2, tool: found nothing, expected 2"
    assert missing(plan, (("lib", "2"), ("more", "1"), ("tool", "2"))) == ""


def test_unpacking_takes_the_growth_of_all_and_once_the_old_files_of_one() -> None:
    changes = (change("grows"), change("shrinks"), change("new", installed=""))
    sizes = {("grows", "2"): 150, ("shrinks", "2"): 60, ("new", "2"): 30}

    needed = unpacking_bytes(changes, sizes, content(package("grows", size=100), package("shrinks", size=80)))

    assert needed == 50 + 30 + 100
    assert unpacking_bytes((), {}, content()) == 0
