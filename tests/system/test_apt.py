"""The real apt adapter with real apt and dpkg: plan, download, install, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_repository import DebPackage, missing_tools
from apt_world import AptWorld, apt_world, soon
from edge_day2.adapters.apt_settings import Removals
from edge_day2.domain.mutable_events import AvailableUpdate
from edge_day2.domain.observation import PackageDatabase
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure, OutOfTime, PackageDatabaseInterrupted

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "apt is here")

TOOL = DebPackage(name="tool")
TOOL_2 = DebPackage(name="tool", version="2")
AGENT = DebPackage(name="agent")
HELPER = DebPackage(name="helper")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AptWorld]:
    with apt_world(tmp_path) as made:
        yield made


def test_new_packages_come_with_what_they_need(world: AptWorld) -> None:
    world.offers(DebPackage(name="tool", depends="lib (>= 3)"), DebPackage(name="lib", version="3.1"))
    apt = world.apt()

    plan = apt.download(("tool",), soon())
    assert plan == (("lib", "3.1"), ("tool", "1"))
    assert apt.installed() == ()
    apt.install(("tool",), plan, soon())

    assert apt.installed() == plan
    assert world.root.installed() == dict(plan)
    assert world.root.run("apt-mark", "showauto").split() == ["lib"]


def test_everything_installed_is_upgraded_from_what_was_downloaded(world: AptWorld) -> None:
    world.has(TOOL, DebPackage(name="lib"))
    world.offers(
        DebPackage(name="tool", version="2", depends="extra"), DebPackage(name="lib", version="2"),
        DebPackage(name="extra"), DebPackage(name="unwanted"),
    )  # fmt: skip
    apt = world.apt()

    plan = apt.download_upgrade(soon())
    world.repository.missing.update(world.repository.pool_path(one) for one in (TOOL_2, DebPackage(name="extra")))
    apt.install_upgrade(plan, soon())

    assert plan == (("extra", "1"), ("lib", "2"), ("tool", "2"))
    assert world.root.installed() == dict(plan)


def test_nothing_to_do_is_an_empty_plan(world: AptWorld) -> None:
    world.has(TOOL)
    apt = world.apt()

    assert apt.download(("tool",), soon()) == ()
    assert apt.download_upgrade(soon()) == ()
    apt.install(("tool",), (), soon())
    apt.install_upgrade((), soon())

    assert world.root.installed() == {"tool": "1"}


def test_an_installation_may_be_repeated(world: AptWorld) -> None:
    world.offers(TOOL)
    apt = world.apt()
    plan = apt.download(("tool",), soon())

    apt.install(("tool",), plan, soon())
    apt.install(("tool",), plan, soon())

    assert world.root.installed() == {"tool": "1"}


def test_what_is_left_of_a_plan_is_installed(world: AptWorld) -> None:
    world.has(TOOL, DebPackage(name="lib"))
    world.offers(TOOL_2, DebPackage(name="lib", version="2"))
    apt = world.apt()
    plan = apt.download_upgrade(soon())
    world.root.apt_get("install", "lib")

    apt.install_upgrade(plan, soon())

    assert world.root.installed() == {"lib": "2", "tool": "2"}


def test_exactly_the_plan_is_installed_whatever_the_lists_have_by_now(world: AptWorld) -> None:
    world.has(TOOL, DebPackage(name="lib"), DebPackage(name="late"))
    planned = (TOOL_2, DebPackage(name="lib", version="2"))
    world.offers(*planned)
    apt = world.apt()
    plan = apt.download_upgrade(soon())
    world.offers(*planned, DebPackage(name="tool", version="3"), DebPackage(name="late", version="2"))
    apt.download_upgrade(soon())

    apt.install_upgrade(plan, soon())

    assert world.root.installed() == {"late": "1", "lib": "2", "tool": "2"}


def test_a_planned_version_that_the_lists_have_no_more_is_not_replaced_by_another(world: AptWorld) -> None:
    world.has(TOOL)
    world.offers(TOOL_2)
    apt = world.apt()
    plan = apt.download_upgrade(soon())
    world.offers(DebPackage(name="tool", version="3"))
    apt.download_upgrade(soon())

    with pytest.raises(NodeFailure, match="not installed as planned: tool: found 1, expected 2") as failure:
        apt.install_upgrade(plan, soon())

    assert failure.value.reason is FailureReason.UPDATE_TOOL
    assert world.root.installed() == {"tool": "1"}


def test_preferences_of_the_administrator_hold_for_what_is_not_planned(world: AptWorld) -> None:
    world.has(TOOL)
    world.offers(TOOL_2, DebPackage(name="tool", version="3"))
    world.file("/etc/apt/preferences").write_text("Package: tool\nPin: version 2\nPin-Priority: 990\n")
    apt = world.apt()

    apt.install_upgrade(apt.download_upgrade(soon()), soon())

    assert world.root.installed() == {"tool": "2"}


def test_nothing_is_downloaded_by_an_installation(world: AptWorld) -> None:
    world.has(TOOL)
    world.offers(TOOL_2)
    world.repository.requests.clear()

    with pytest.raises(NodeFailure, match="Unable to fetch some archives"):
        world.apt().install_upgrade((("tool", "2"),), soon())

    assert world.repository.requests == []


@pytest.mark.parametrize("name", ["to.l", "--reinstall", "tool-", "tool=1", "tool/stable", "Tool", "tool other", ""])
def test_a_name_that_means_something_else_to_apt_is_refused(world: AptWorld, name: str) -> None:
    world.has(TOOL)

    with pytest.raises(NodeFailure) as failure:
        world.apt().download((name,), soon())

    assert failure.value.reason is FailureReason.DOWNLOAD_FAIL
    assert name in failure.value.log
    assert world.root.installed() == {"tool": "1"}


def test_a_package_that_nobody_has_is_named(world: AptWorld) -> None:
    world.offers(TOOL)

    with pytest.raises(NodeFailure, match="not in the package lists: nowhere") as failure:
        world.apt().download(("tool", "nowhere"), soon())

    assert failure.value.reason is FailureReason.DOWNLOAD_FAIL


def test_a_dependency_that_can_not_be_met_is_told_in_the_words_of_apt(world: AptWorld) -> None:
    world.offers(DebPackage(name="tool", depends="lib (>= 9)"), DebPackage(name="lib"))

    with pytest.raises(NodeFailure, match=r"tool : Depends: lib \(>= 9\)"):
        world.apt().download(("tool",), soon())


def test_removals_are_refused_unless_they_are_allowed(world: AptWorld) -> None:
    world.has(TOOL, DebPackage(name="rival"))
    newer = DebPackage(name="tool", version="2", fields={"Conflicts": "rival"})
    world.offers(newer, DebPackage(name="rival"))

    with pytest.raises(NodeFailure, match="would remove rival"):
        world.apt().download(("tool",), soon())
    assert world.root.installed() == {"rival": "1", "tool": "1"}

    apt = world.apt(removals=Removals.ALLOWED)
    apt.install(("tool",), apt.download(("tool",), soon()), soon())
    assert world.root.installed() == {"tool": "2"}


def test_an_essential_package_is_never_removed(world: AptWorld) -> None:
    world.has(TOOL, DebPackage(name="shell", fields={"Essential": "yes"}))
    world.offers(DebPackage(name="tool", version="2", fields={"Conflicts": "shell"}))

    with pytest.raises(NodeFailure, match="shell"):
        world.apt(removals=Removals.ALLOWED).download(("tool",), soon())

    assert world.root.installed() == {"shell": "1", "tool": "1"}


def test_downgrades_are_refused_whatever_preferences_say(world: AptWorld) -> None:
    world.has(TOOL_2)
    world.offers(TOOL)
    world.file("/etc/apt/preferences.d/back").write_text("Package: *\nPin: release a=stable\nPin-Priority: 1001\n")

    with pytest.raises(NodeFailure, match="would downgrade tool 2 → 1"):
        world.apt().download_upgrade(soon())


def test_a_package_on_hold_stays(world: AptWorld) -> None:
    world.has(TOOL, DebPackage(name="lib"))
    world.offers(TOOL_2, DebPackage(name="lib", version="2"))
    world.root.run("apt-mark", "hold", "tool")
    apt = world.apt()

    assert apt.download(("tool",), soon()) == ()
    apt.install(("tool",), (), soon())
    apt.install_upgrade(apt.download_upgrade(soon()), soon())

    assert world.root.installed() == {"lib": "2", "tool": "1"}


def test_what_needs_another_version_of_a_package_on_hold_is_refused(world: AptWorld) -> None:
    world.has(TOOL)
    world.offers(TOOL_2, DebPackage(name="new", depends="tool (>= 2)"))
    world.root.run("apt-mark", "hold", "tool")

    with pytest.raises(NodeFailure, match=r"Depends: tool \(>= 2\) but 1 is to be installed"):
        world.apt().download(("new",), soon())


def test_local_configuration_does_not_weaken_anything(world: AptWorld) -> None:
    world.has(TOOL_2, DebPackage(name="held"), DebPackage(name="rival"))
    world.offers(TOOL, DebPackage(name="held", version="2"), DebPackage(name="new", fields={"Conflicts": "rival"}))
    world.root.run("apt-mark", "hold", "held")
    world.file("/etc/apt/apt.conf.d/99weak").write_text(
        'APT::Get::allow-downgrades "true";\nAPT::Ignore-Hold "true";\nAPT::Get::force-yes "true";\n'
        'APT::Get::allow-change-held-packages "true";\nAPT::Get::AutomaticRemove "true";\n'
    )
    apt = world.apt()

    assert apt.download_upgrade(soon()) == ()
    with pytest.raises(NodeFailure, match="would remove rival"):
        apt.download(("new",), soon())


def test_an_unsigned_repository_is_refused(world: AptWorld) -> None:
    world.repository.publish(TOOL)
    (world.repository.folder / "dists/stable/InRelease").unlink()
    (world.repository.folder / "dists/stable/Release.gpg").unlink()
    (world.root.sources / "tests.sources").write_text(world.repository.source())
    world.root.apt_get("-o", "Acquire::AllowInsecureRepositories=true", "update")
    world.file("/etc/apt/apt.conf.d/99weak").write_text('APT::Get::AllowUnauthenticated "true";\n')

    with pytest.raises(NodeFailure, match="unauthenticated packages"):
        world.apt().download(("tool",), soon())


def test_a_package_that_is_gone_is_a_failed_download(world: AptWorld) -> None:
    other = DebPackage(name="other")
    world.offers(TOOL, other)
    world.repository.missing.add(world.repository.pool_path(TOOL))
    apt = world.apt()

    with pytest.raises(NodeFailure, match="404") as failure:
        apt.download(("other", "tool"), soon())

    assert failure.value.reason is FailureReason.DOWNLOAD_FAIL
    assert world.file(f"/var/cache/apt/archives/{other.file_name}").is_file()
    world.repository.missing.clear()
    apt.install(("other", "tool"), apt.download(("other", "tool"), soon()), soon())
    assert world.root.installed() == {"other": "1", "tool": "1"}


def test_a_package_that_was_tampered_with_is_a_failed_download(world: AptWorld) -> None:
    world.offers(TOOL)
    world.repository.corrupt.add(world.repository.pool_path(TOOL))

    with pytest.raises(NodeFailure, match="Hash Sum mismatch") as failure:
        world.apt().download(("tool",), soon())

    assert failure.value.reason is FailureReason.DOWNLOAD_FAIL
    assert world.root.installed() == {}


def test_a_download_ends_with_the_window(world: AptWorld) -> None:
    world.offers(TOOL)
    world.repository.stalled.add(world.repository.pool_path(TOOL))
    # So that apt doesn't give up by itself.
    world.file("/etc/apt/apt.conf.d/50patient").write_text('Acquire::http::Timeout "600";\n')
    apt = world.apt()

    with pytest.raises(OutOfTime, match="the window closed during apt-get"):
        apt.download(("tool",), soon(2))

    world.repository.stalled.clear()
    apt.install(("tool",), apt.download(("tool",), soon()), soon())
    assert world.root.installed() == {"tool": "1"}


def test_nothing_begins_after_the_window(world: AptWorld) -> None:
    world.offers(TOOL)
    apt = world.apt()
    plan = apt.download(("tool",), None)

    with pytest.raises(OutOfTime):
        apt.install(("tool",), plan, soon(-1))

    assert world.root.installed() == {}


def test_a_hundred_and_fifty_packages_are_upgraded_in_spite_of_a_warning(world: AptWorld) -> None:
    names = [f"part{number}" for number in range(150)]
    world.has(*(DebPackage(name=name) for name in names))
    world.offers(*(DebPackage(name=name, version="2") for name in names))
    world.file("/etc/apt/preferences.d").rmdir()
    assert "W: Unable to read" in world.root.run("sh", "-c", "apt-get -s upgrade 2>&1")
    apt = world.apt()

    plan = apt.download_upgrade(soon())
    apt.install_upgrade(plan, soon())

    assert len(plan) == 150
    assert set(world.root.installed().values()) == {"2"}


def test_a_file_that_the_administrator_changed_is_kept(world: AptWorld) -> None:
    world.has(DebPackage(name="tool", conffiles={"/etc/tool.conf": "first\n", "/etc/more.conf": "first\n"}))
    world.file("/etc/tool.conf").write_text("mine\n")
    world.offers(
        DebPackage(name="tool", version="2", conffiles={"/etc/tool.conf": "second\n", "/etc/more.conf": "second\n"})
    )
    apt = world.apt()

    apt.install_upgrade(apt.download_upgrade(soon()), soon())

    assert world.file("/etc/tool.conf").read_text() == "mine\n"
    assert world.file("/etc/tool.conf.dpkg-dist").read_text() == "second\n"
    assert world.file("/etc/more.conf").read_text() == "second\n"


def test_the_agent_is_upgraded_alone(world: AptWorld) -> None:
    world.has(AGENT, TOOL)
    world.offers(DebPackage(name="agent", version="2"), TOOL_2)
    apt = world.apt()

    assert apt.upgrade_agent(soon()) is True
    assert apt.upgrade_agent(soon()) is False

    assert world.root.installed() == {"agent": "2", "tool": "1"}


def test_the_agent_and_its_helper_are_not_installed_where_they_are_no_packages(world: AptWorld) -> None:
    world.offers(AGENT, HELPER)
    apt = world.apt()

    assert apt.upgrade_agent(soon()) is False
    apt.upgrade_helper(soon())

    assert world.root.installed() == {}


def test_the_helper_that_came_as_a_dependency_stays_one(world: AptWorld) -> None:
    world.offers(DebPackage(name="tool", depends="helper"), HELPER)
    world.root.apt_get("install", "tool")
    world.offers(DebPackage(name="tool", depends="helper"), DebPackage(name="helper", version="2"))

    world.apt().upgrade_helper(soon())

    assert world.root.installed() == {"helper": "2", "tool": "1"}
    assert world.root.run("apt-mark", "showauto").split() == ["helper"]


def test_upgradable_says_what_is_newer_and_not_on_hold(world: AptWorld) -> None:
    world.has(TOOL, DebPackage(name="lib"), DebPackage(name="held"))
    apt = world.apt()
    assert apt.upgradable() == ()
    world.offers(TOOL_2, DebPackage(name="lib"), DebPackage(name="held", version="2"), DebPackage(name="new"))
    world.root.run("apt-mark", "hold", "held")

    assert apt.upgradable() == (AvailableUpdate(name="tool", available_version="2", architecture="all"),)
    world.root.apt_get("upgrade")
    assert apt.upgradable() == ()


def test_asking_again_starts_no_process_until_something_changes(world: AptWorld, tmp_path: Path) -> None:
    world.has(TOOL)
    log, programs = tmp_path / "log", tmp_path / "programs"
    programs.mkdir()
    for name in ("apt-get", "dpkg", "dpkg-query"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {shutil.which(name)} "$@"\n')
        (programs / name).chmod(0o755)
    apt = world.apt(environment={**world.root.environment, "PATH": f"{programs}:{os.environ['PATH']}"})

    def asked() -> list[str]:
        log.write_text("")
        apt.state()
        apt.installed()
        apt.newest_kernel()
        apt.upgradable()
        return log.read_text().split()

    assert asked() == ["dpkg", "dpkg-query", "apt-get"]
    assert asked() == []
    world.offers(TOOL_2)
    assert asked() == ["apt-get"]
    world.root.apt_get("upgrade")
    assert asked() == ["dpkg-query", "apt-get"]
    world.root.run("apt-mark", "hold", "tool")
    assert asked() == ["dpkg-query", "apt-get"]
    world.file("/etc/apt/preferences.d/new").write_text("Package: tool\nPin: version 2\nPin-Priority: 1\n")
    assert asked() == ["apt-get"]


def test_the_newest_kernel_is_told_by_its_release(world: AptWorld) -> None:
    apt = world.apt()
    world.has(TOOL, DebPackage(name="linux-image-amd64"), DebPackage(name="linux-image-6.1.0-9-amd64"))
    assert apt.newest_kernel() == "6.1.0-9-amd64"

    names = ["6.1.0-30-amd64-unsigned", "6.1.0-31-amd64-dbg", "unsigned-6.1.0-4-generic"]
    world.has(*(DebPackage(name=f"linux-image-{name}") for name in names))

    assert apt.newest_kernel() == "6.1.0-30-amd64"


def test_a_node_without_kernel_packages_has_no_newest_kernel(world: AptWorld) -> None:
    world.has(TOOL)

    assert world.apt().newest_kernel() == ""


def test_what_does_not_fit_is_not_downloaded(world: AptWorld) -> None:
    huge = 10**12
    world.offers(DebPackage(name="tool", installed_size=huge // 1024))

    with pytest.raises(NodeFailure, match="bytes for unpacking") as failure:
        world.apt().download(("tool",), soon())

    assert failure.value.reason is FailureReason.INSUFFICIENT_STORAGE
    assert not list(world.file("/var/cache/apt/archives").glob("*.deb"))


def test_the_margin_stays_free(world: AptWorld) -> None:
    world.offers(TOOL)
    free = os.statvfs(world.root.path)

    with pytest.raises(NodeFailure, match="to spare") as failure:
        world.apt(free_space_margin=free.f_blocks * free.f_frsize).download(("tool",), soon())

    assert failure.value.reason is FailureReason.INSUFFICIENT_STORAGE


def test_an_interrupted_database_is_seen_and_nothing_is_done_to_it(world: AptWorld) -> None:
    world.offers(TOOL)
    apt = world.apt()
    assert apt.state() is PackageDatabase.SOUND
    plan = apt.download(("tool",), soon())
    world.root.dpkg("--unpack", world.file(f"/var/cache/apt/archives/{TOOL.file_name}"))

    assert apt.state() is PackageDatabase.INTERRUPTED
    for call in (
        apt.installed, apt.upgradable, apt.newest_kernel, lambda: apt.upgrade_agent(soon()),
        lambda: apt.upgrade_helper(soon()), lambda: apt.download(("tool",), soon()),
        lambda: apt.install(("tool",), plan, soon()), lambda: apt.download_upgrade(soon()),
        lambda: apt.install_upgrade(plan, soon()),
    ):  # fmt: skip
        with pytest.raises(PackageDatabaseInterrupted, match="tool is unpacked"):
            call()


def test_what_was_unpacked_is_finished(world: AptWorld) -> None:
    world.offers(TOOL)
    apt = world.apt()
    apt.download(("tool",), soon())
    world.root.dpkg("--unpack", world.file(f"/var/cache/apt/archives/{TOOL.file_name}"))

    assert "--configure -a: exit code 0" in apt.repair(soon())

    assert apt.state() is PackageDatabase.SOUND
    assert apt.installed() == (("tool", "1"),)


def test_what_was_installed_by_half_is_installed_again(world: AptWorld) -> None:
    world.has(TOOL)
    world.root.run("apt-mark", "auto", "tool")
    status = world.file("/var/lib/dpkg/status")
    status.write_text(status.read_text().replace("install ok installed", "install reinstreq half-installed"))
    apt = world.apt()
    assert apt.state() is PackageDatabase.INTERRUPTED

    assert "tool is half-installed" in apt.repair(soon())

    assert apt.state() is PackageDatabase.SOUND
    assert apt.installed() == (("tool", "1"),)
    assert world.root.run("apt-mark", "showauto").split() == ["tool"]


def test_a_database_that_dpkg_can_not_read_counts_as_interrupted(world: AptWorld) -> None:
    world.has(TOOL)
    world.file("/var/lib/dpkg/status").write_text("Package: tool\nnonsense\n")
    apt = world.apt()

    assert apt.state() is PackageDatabase.INTERRUPTED
    with pytest.raises(NodeFailure, match="field name 'nonsense'"):
        apt.repair(soon())


def test_repairing_a_sound_database_does_nothing(world: AptWorld) -> None:
    world.has(TOOL)

    assert world.apt().repair(soon()).startswith("nothing to repair")


def test_a_maintainer_script_that_fails_is_told_in_its_own_words(world: AptWorld) -> None:
    world.has(TOOL)
    world.offers(DebPackage(name="tool", version="2", scripts={"postinst": "echo 'no such valve' >&2; exit 3"}))
    apt = world.apt()
    plan = apt.download_upgrade(soon())

    with pytest.raises(NodeFailure, match=r"tool is half-configured[\s\S]*no such valve"):
        apt.install_upgrade(plan, soon())
    assert apt.state() is PackageDatabase.INTERRUPTED
    with pytest.raises(NodeFailure, match="no such valve") as failure:
        apt.repair(soon())

    assert failure.value.reason is FailureReason.UPDATE_TOOL


def test_a_newer_version_gets_a_node_out_of_a_failing_script(world: AptWorld) -> None:
    world.has(TOOL)
    world.offers(DebPackage(name="tool", version="2", scripts={"postinst": "exit 3"}))
    apt = world.apt()
    plan = apt.download_upgrade(soon())
    with pytest.raises(NodeFailure):
        apt.install_upgrade(plan, soon())
    world.repository.publish(DebPackage(name="tool", version="3"))

    apt.repair(soon())

    assert apt.installed() == (("tool", "3"),)


def test_a_script_that_refuses_the_upgrade_leaves_the_old_version(world: AptWorld) -> None:
    world.has(TOOL)
    world.offers(DebPackage(name="tool", version="2", scripts={"preinst": "echo 'not on a Monday' >&2; exit 1"}))
    apt = world.apt()
    plan = apt.download_upgrade(soon())

    with pytest.raises(NodeFailure, match="not on a Monday"):
        apt.install_upgrade(plan, soon())

    assert apt.installed() == (("tool", "1"),)


def test_maintainer_scripts_see_what_the_original_agent_gave_them(world: AptWorld) -> None:
    world.has(AGENT, TOOL)
    script = {"postinst": 'env | sort > "$DPKG_ROOT/env-$DPKG_MAINTSCRIPT_PACKAGE"'}
    world.offers(
        DebPackage(name="agent", version="2", scripts=script), DebPackage(name="tool", version="2", scripts=script)
    )
    os.environ["NOTIFY_SOCKET"] = "/run/notify"
    try:
        apt = world.apt()
    finally:
        del os.environ["NOTIFY_SOCKET"]

    apt.upgrade_agent(soon())
    apt.install_upgrade(apt.download_upgrade(soon()), soon())

    of_agent = world.file("/env-agent").read_text().splitlines()
    of_tool = world.file("/env-tool").read_text().splitlines()
    assert "NEEDRESTART_MODE=a" in of_agent
    assert not [line for line in of_agent if line.startswith("NEEDRESTART_SUSPEND")]
    assert {
        "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l", "NEEDRESTART_SUSPEND=1",
    } <= set(of_tool)  # fmt: skip
    assert not [line for line in of_tool if line.startswith("NOTIFY_SOCKET")]
