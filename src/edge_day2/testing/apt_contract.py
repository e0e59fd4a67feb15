"""The contract of the apt port as tests: subclass it, say in a fixture what to test, and let pytest run it.

    class TestMyApt(AptContract):
        @pytest.fixture
        def bench(self, tmp_path):
            with MyBench(tmp_path) as bench:
                yield bench

`RepositoryBench` is what the tests do to the world around apt. Every test begins with an empty repository, and with
nothing installed that it doesn't install itself, or nothing of the names that the tests use. Needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import pytest

from edge_day2.domain.mutable_events import Packages
from edge_day2.domain.observation import PackageDatabase
from edge_day2.ports.apt import AptPort
from edge_day2.ports.failures import NodeFailure, OutOfTime, PackageDatabaseInterrupted

__all__ = ["AptContract", "RepositoryBench"]


class RepositoryBench(Protocol):
    """A node with apt, and its repository."""

    @property
    def apt(self) -> AptPort:
        """The port under test."""
        ...

    @property
    def agent_package(self) -> str:
        """The name of the agent's package."""
        ...

    @property
    def helper_package(self) -> str:
        """The name of one of the in-band helper's packages."""
        ...

    def publish(
        self, name: str, version: str, *, depends: tuple[str, ...] = (), conflicts: tuple[str, ...] = ()
    ) -> None:
        """Put a package into the repository, beside earlier versions of it, and refresh the node's package lists."""
        ...

    def publish_broken(self, name: str, version: str) -> None:
        """As `publish`; but the package's maintainer script fails when it is configured."""
        ...

    def mend(self, name: str) -> None:
        """Let the maintainer script of a broken package succeed from now on, also where it is installed by half."""
        ...

    def install_by_hand(self, name: str, version: str) -> None:
        """Install a package without dependencies with dpkg alone, past the repository."""
        ...

    def interrupt(self, name: str, version: str) -> None:
        """Begin to install a package by hand as `install_by_hand` does, and cut dpkg off before it is configured."""
        ...

    def hold(self, name: str) -> None:
        """Put an installed package on hold."""
        ...

    def take_down(self) -> None:
        """Let the repository be out of reach from now on."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Let another process hold the locks that an apt at work holds: dpkg's, of the archive, of the lists."""
        ...


# The contract's packages, which no distribution has.
_TOOL: Final = "edgeday2-tool"
_LIBRARY: Final = "edgeday2-library"
_OTHER: Final = "edgeday2-other"
_OURS: Final = "edgeday2-"


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=10)


def _found(apt: AptPort) -> dict[str, str]:
    return {name: version for name, version in apt.installed() if name.startswith(_OURS)}


def _install(apt: AptPort, *packages: str) -> Packages:
    plan = apt.download(packages, _soon())
    apt.install(packages, plan, _soon())
    return plan


# Every call that changes something or waits for the lock, as a test makes it.
_CHANGES: Final[dict[str, Callable[[AptPort, datetime], object]]] = {
    "upgrade_agent": lambda apt, until: apt.upgrade_agent(until),
    "upgrade_helper": lambda apt, until: apt.upgrade_helper(until),
    "download": lambda apt, until: apt.download((_TOOL,), until),
    "install": lambda apt, until: apt.install((_TOOL,), ((_TOOL, "1"),), until),
    "download_upgrade": lambda apt, until: apt.download_upgrade(until),
    "install_upgrade": lambda apt, until: apt.install_upgrade(((_OTHER, "2"),), until),
}
_every_change = pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES.keys())


class AptContract:
    """What every adapter of the apt port keeps. A subclass gives the fixture `bench`, anew for each test."""

    @pytest.fixture
    def bench(self) -> RepositoryBench:
        """The node under test, and its repository."""
        raise NotImplementedError("a subclass says which apt is tested")

    @pytest.fixture
    def apt(self, bench: RepositoryBench) -> AptPort:
        """The port under test."""
        return bench.apt

    def test_what_is_installed_is_told_by_name_and_version(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.install_by_hand(_TOOL, "1:2.0-3~rc1")
        bench.install_by_hand(_LIBRARY, "1")

        installed = apt.installed()

        assert _found(apt) == {_TOOL: "1:2.0-3~rc1", _LIBRARY: "1"}
        assert list(installed) == sorted(installed)
        assert apt.state() is PackageDatabase.SOUND

    def test_only_what_is_newer_than_installed_is_upgradable(self, bench: RepositoryBench, apt: AptPort) -> None:
        for name in (_TOOL, _LIBRARY, _OTHER):
            bench.install_by_hand(name, "9")
        bench.publish(_TOOL, "10")
        bench.publish(_LIBRARY, "8")
        bench.publish(_OTHER, "9")
        bench.publish(f"{_OURS}new", "1")

        upgradable = [update for update in apt.upgradable() if update.name.startswith(_OURS)]

        assert [(update.name, update.available_version) for update in upgradable] == [(_TOOL, "10")]
        assert all(update.architecture for update in upgradable)

    def test_a_download_plans_everything_that_is_needed_and_installs_nothing(
        self, bench: RepositoryBench, apt: AptPort
    ) -> None:
        bench.publish(_TOOL, "2", depends=(_LIBRARY,))
        bench.publish(_LIBRARY, "1")

        plan = apt.download((_TOOL,), _soon())

        assert plan == ((_LIBRARY, "1"), (_TOOL, "2"))
        assert _found(apt) == {}

    def test_the_plan_is_installed_without_network(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "2", depends=(_LIBRARY,))
        bench.publish(_LIBRARY, "1")
        plan = apt.download((_TOOL,), _soon())
        bench.take_down()

        apt.install((_TOOL,), plan, _soon())

        assert _found(apt) == dict(plan)
        assert apt.state() is PackageDatabase.SOUND

    def test_the_plan_is_installed_whatever_the_repository_has_by_then(
        self, bench: RepositoryBench, apt: AptPort
    ) -> None:
        bench.publish(_TOOL, "1")
        plan = apt.download((_TOOL,), _soon())
        bench.publish(_TOOL, "2")

        apt.install((_TOOL,), plan, _soon())

        assert _found(apt) == {_TOOL: "1"}

    def test_the_newest_version_is_planned(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1.9")
        bench.publish(_TOOL, "1.10")

        assert apt.download((_TOOL,), _soon()) == ((_TOOL, "1.10"),)

    def test_an_installed_package_that_is_wanted_is_upgraded(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.install_by_hand(_TOOL, "1")
        bench.publish(_TOOL, "2")

        assert _install(apt, _TOOL) == ((_TOOL, "2"),)
        assert _found(apt) == {_TOOL: "2"}

    def test_nothing_to_do_is_an_empty_plan_and_no_error(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1")
        _install(apt, _TOOL)
        before = apt.installed()

        assert _install(apt, _TOOL) == ()
        plan = apt.download_upgrade(_soon())
        apt.install_upgrade(plan, _soon())

        assert [name for name, _ in plan if name.startswith(_OURS)] == []
        assert _found(apt) == {name: version for name, version in before if name.startswith(_OURS)}

    def test_what_was_installed_may_be_installed_again(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1")
        plan = _install(apt, _TOOL)

        apt.install((_TOOL,), plan, _soon())

        assert _found(apt) == {_TOOL: "1"}

    def test_of_a_plan_that_was_carried_out_by_half_the_rest_is_installed(
        self, bench: RepositoryBench, apt: AptPort
    ) -> None:
        bench.publish(_TOOL, "1", depends=(_LIBRARY,))
        bench.publish(_LIBRARY, "1")
        plan = apt.download((_TOOL,), _soon())
        bench.install_by_hand(_LIBRARY, "1")

        apt.install((_TOOL,), plan, _soon())

        assert _found(apt) == {_TOOL: "1", _LIBRARY: "1"}

    def test_a_package_that_nobody_has_fails_by_its_name(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1")

        with pytest.raises(NodeFailure, match="edgeday2-unheard-of"):
            apt.download((_TOOL, "edgeday2-unheard-of"), _soon())

        assert _found(apt) == {}

    @pytest.mark.parametrize(
        "name", ["--allow-remove-essential", "-y", f"{_TOOL}=1", f"{_TOOL}-", "edgeday2.tool", "../x", ""]
    )
    def test_a_name_that_is_none_is_refused_and_never_read_as_an_option(
        self, bench: RepositoryBench, apt: AptPort, name: str
    ) -> None:
        bench.install_by_hand(_TOOL, "2")
        bench.publish(_TOOL, "1")

        with pytest.raises(NodeFailure):
            apt.download((name,), _soon())

        assert _found(apt) == {_TOOL: "2"}

    def test_what_could_be_had_only_by_removing_something_is_refused(
        self, bench: RepositoryBench, apt: AptPort
    ) -> None:
        bench.install_by_hand(_OTHER, "1")
        bench.publish(_TOOL, "1", conflicts=(_OTHER,))

        with pytest.raises(NodeFailure, match=_OTHER):
            apt.download((_TOOL,), _soon())

        assert _found(apt) == {_OTHER: "1"}

    def test_nothing_is_downgraded(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.install_by_hand(_TOOL, "2")
        bench.publish(_TOOL, "1")

        assert _install(apt, _TOOL) == ()
        assert _found(apt) == {_TOOL: "2"}

    def test_a_plan_that_would_downgrade_by_now_is_refused(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1")
        plan = apt.download((_TOOL,), _soon())
        bench.install_by_hand(_TOOL, "2")

        with pytest.raises(NodeFailure, match=_TOOL):
            apt.install((_TOOL,), plan, _soon())

        assert _found(apt) == {_TOOL: "2"}

    def test_what_was_never_downloaded_is_not_installed(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1")

        with pytest.raises(NodeFailure, match=_TOOL):
            apt.install((_TOOL,), ((_TOOL, "1"),), _soon())

        assert _found(apt) == {}

    def test_what_is_no_part_of_the_plan_is_not_installed(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1")
        apt.download((_TOOL,), _soon())

        with pytest.raises(NodeFailure, match=_TOOL):
            apt.install((_TOOL,), (), _soon())

        assert _found(apt) == {}

    def test_an_installed_package_on_hold_stays_as_it_is(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.install_by_hand(_TOOL, "1")
        bench.install_by_hand(_OTHER, "1")
        bench.publish(_TOOL, "2")
        bench.publish(_OTHER, "2")
        bench.hold(_TOOL)

        wanted = _install(apt, _TOOL)
        plan = apt.download_upgrade(_soon())
        apt.install_upgrade(plan, _soon())

        assert wanted == ()
        assert [name for name, _ in plan if name.startswith(_OURS)] == [_OTHER]
        assert _found(apt) == {_TOOL: "1", _OTHER: "2"}

    def test_a_hold_that_came_after_the_plan_is_kept(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.install_by_hand(_TOOL, "1")
        bench.publish(_TOOL, "2")
        plan = apt.download((_TOOL,), _soon())
        bench.hold(_TOOL)

        with pytest.raises(NodeFailure, match=_TOOL):
            apt.install((_TOOL,), plan, _soon())

        assert _found(apt) == {_TOOL: "1"}

    def test_an_upgrade_takes_new_packages_along_and_keeps_back_what_would_remove_something(
        self, bench: RepositoryBench, apt: AptPort
    ) -> None:
        for name in (_TOOL, _OTHER, f"{_OURS}rival"):
            bench.install_by_hand(name, "1")
        bench.publish(_TOOL, "2", depends=(_LIBRARY,))
        bench.publish(_LIBRARY, "1")
        bench.publish(f"{_OURS}rival", "2", conflicts=(_OTHER,))

        plan = apt.download_upgrade(_soon())
        assert _found(apt) == {_TOOL: "1", _OTHER: "1", f"{_OURS}rival": "1"}
        bench.take_down()
        apt.install_upgrade(plan, _soon())

        assert [entry for entry in plan if entry[0].startswith(_OURS)] == [(_LIBRARY, "1"), (_TOOL, "2")]
        assert _found(apt) == {_LIBRARY: "1", _TOOL: "2", _OTHER: "1", f"{_OURS}rival": "1"}

    def test_a_repository_out_of_reach_fails_the_download(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(_TOOL, "1")
        bench.take_down()

        with pytest.raises(NodeFailure):
            apt.download((_TOOL,), _soon())

        assert _found(apt) == {}

    @_every_change
    def test_nothing_is_touched_while_dpkg_is_interrupted(
        self, bench: RepositoryBench, apt: AptPort, change: Callable[[AptPort, datetime], object]
    ) -> None:
        self._prepare(bench)
        bench.interrupt(_LIBRARY, "1")
        assert apt.state() is PackageDatabase.INTERRUPTED

        with pytest.raises(PackageDatabaseInterrupted):
            change(apt, _soon())
        with pytest.raises(PackageDatabaseInterrupted):
            apt.installed()

        assert apt.state() is PackageDatabase.INTERRUPTED

    def test_a_repair_finishes_what_dpkg_was_doing_and_says_so(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.interrupt(_TOOL, "1")

        log = apt.repair(_soon())

        assert _TOOL in log
        assert apt.state() is PackageDatabase.SOUND
        assert _found(apt) == {_TOOL: "1"}

    def test_a_repair_of_a_sound_database_changes_nothing(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.install_by_hand(_TOOL, "1")
        before = apt.installed()

        apt.repair(_soon())

        assert apt.installed() == before
        assert apt.state() is PackageDatabase.SOUND

    def test_a_maintainer_script_that_fails_is_told_and_can_be_repaired(
        self, bench: RepositoryBench, apt: AptPort
    ) -> None:
        bench.publish_broken(_TOOL, "1")
        plan = apt.download((_TOOL,), _soon())

        with pytest.raises(NodeFailure, match=_TOOL):
            apt.install((_TOOL,), plan, _soon())
        assert apt.state() is PackageDatabase.INTERRUPTED
        with pytest.raises(NodeFailure, match=_TOOL):
            apt.repair(_soon())
        bench.mend(_TOOL)
        apt.repair(_soon())

        assert apt.state() is PackageDatabase.SOUND
        assert _found(apt) == {_TOOL: "1"}

    @_every_change
    def test_another_apt_is_waited_for_until_the_window_ends(
        self, bench: RepositoryBench, apt: AptPort, change: Callable[[AptPort, datetime], object]
    ) -> None:
        self._prepare(bench)

        with bench.lock(), pytest.raises(OutOfTime, match="lock"):
            change(apt, datetime.now(UTC))

        found = _found(apt)
        assert (found.get(_TOOL), found.get(_OTHER)) == (None, "1")
        change(apt, _soon())

    def test_a_repair_waits_for_another_apt_as_well(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.interrupt(_TOOL, "1")

        with bench.lock(), pytest.raises(OutOfTime, match="lock"):
            apt.repair(datetime.now(UTC))

        assert apt.state() is PackageDatabase.INTERRUPTED

    def test_the_agent_is_upgraded_and_nothing_else(self, bench: RepositoryBench, apt: AptPort) -> None:
        for name in (bench.agent_package, bench.helper_package, _TOOL):
            bench.install_by_hand(name, "1")
            bench.publish(name, "2")

        assert apt.upgrade_agent(_soon()) is True
        assert apt.upgrade_agent(_soon()) is False

        versions = dict(apt.installed())
        assert (versions[bench.agent_package], versions[bench.helper_package]) == ("2", "1")
        assert versions[_TOOL] == "1"

    def test_the_helper_is_upgraded_and_nothing_else(self, bench: RepositoryBench, apt: AptPort) -> None:
        for name in (bench.agent_package, bench.helper_package):
            bench.install_by_hand(name, "1")
            bench.publish(name, "2")

        apt.upgrade_helper(_soon())
        apt.upgrade_helper(_soon())

        versions = dict(apt.installed())
        assert (versions[bench.agent_package], versions[bench.helper_package]) == ("1", "2")

    def test_an_agent_and_a_helper_that_are_no_packages_are_current(self, bench: RepositoryBench, apt: AptPort) -> None:
        bench.publish(bench.agent_package, "2")
        bench.publish(bench.helper_package, "2")

        assert apt.upgrade_agent(_soon()) is False
        apt.upgrade_helper(_soon())

        assert not {bench.agent_package, bench.helper_package} & dict(apt.installed()).keys()

    def test_the_newest_kernel_is_told_by_its_release(self, bench: RepositoryBench, apt: AptPort) -> None:
        assert apt.newest_kernel() == ""
        bench.install_by_hand("linux-image-6.1.0-9-amd64", "6.1.55-1")
        bench.install_by_hand("linux-image-6.1.0-30-amd64", "6.1.124-1")

        assert apt.newest_kernel() == "6.1.0-30-amd64"

    def _prepare(self, bench: RepositoryBench) -> None:
        bench.publish(_TOOL, "1")
        for name in (_OTHER, bench.agent_package, bench.helper_package):
            bench.install_by_hand(name, "1")
            bench.publish(name, "2")
        bench.apt.download((_TOOL,), _soon())
        bench.apt.download_upgrade(_soon())
