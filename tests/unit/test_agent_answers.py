"""What an agent takes from the orchestrator's answers, and what it refuses and says so."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from attrs import evolve

from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.immutable_events import ImmutableTarget
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusResponse,
    UpdateSource,
)
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import parse_detail
from edge_day2.domain.targets import target_of
from edge_day2.testing.agent_bench import AgentBench, edge, image, image_source, ubuntu

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def test_what_the_orchestrator_wants_is_taken_from_its_answer() -> None:
    wanted = edge(update_source=UpdateSource(kernel_command="quiet"))
    packages = ubuntu(" curl \n\nvim\n", update_source=UpdateSource(custom_repos=("Types: deb",)))

    assert target_of(wanted, OSType.IMMUTABLE, AgentPolicy()) == ImmutableTarget(
        image=image(2), kernel_command_line="quiet"
    )
    assert target_of(packages, OSType.MUTABLE, AgentPolicy()) == PackageTarget(
        update_sources=("Types: deb",), update_packages=("curl", "vim")
    )


@pytest.mark.parametrize(
    "source", [None, OSProfileUpdateSource(os_image_url="", os_image_id="", os_image_sha="", profile_name="edge")]
)
def test_an_answer_that_names_no_image_wants_nothing_or_a_kernel_command_line(
    source: OSProfileUpdateSource | None,
) -> None:
    nothing = edge(os_profile_update_source=source)
    quiet = evolve(nothing, update_source=UpdateSource(kernel_command="quiet"))

    assert target_of(nothing, OSType.IMMUTABLE, AgentPolicy()) is None
    assert target_of(quiet, OSType.IMMUTABLE, AgentPolicy()) == ImmutableTarget(kernel_command_line="quiet")


BAD_ANSWERS = [
    (evolve(ubuntu(), os_type=OSType.MUTABLE), "os_type"),
    (edge(update_source=UpdateSource(kernel_command="a; rm -rf /")), "kernel_command"),
    (edge(update_source=UpdateSource(kernel_command="crashkernel=1G:2G")), "kernel_command"),
    (edge(update_source=UpdateSource(kernel_command="quiet\n")), "kernel_command"),
    (edge(os_profile_update_source=image_source(2, os_image_sha="")), "os_image_sha"),
    (edge(os_profile_update_source=image_source(2, os_image_sha="A" * 64)), "os_image_sha"),
    (edge(os_profile_update_source=image_source(2, os_image_sha="1" * 64 + "\n")), "os_image_sha"),
    (edge(os_profile_update_source=image_source(2, os_image_url="")), "os_image_url"),
    (edge(os_profile_update_source=image_source(2, os_image_id="latest")), "os_image_id"),
]
BAD_PACKAGES = [
    "Curl",
    "curl;reboot",
    "-y",
    "--force",
    "curl=7",
    "curl-",
    "curl/stable",
    "lib*",
    "a b",
    "../x",
    "$(reboot)",
    "`reboot`",
    "curl\x0bvim",
    "curl\0",
    "é",
    "a" * 129,
    "\n".join(f"package{number}" for number in range(2_001)),
    "curl " * 100_000,
    "x" * 500_000,
]
BAD_KERNEL_COMMAND_LINES = [
    'console="tty0"',
    "console='tty0'",
    "$(reboot)",
    "`reboot`",
    "quiet\nsplash",
    "a\0",
    "a" * 5_000,
]


@pytest.mark.parametrize(("answer", "name"), BAD_ANSWERS, ids=[name for _, name in BAD_ANSWERS])
def test_an_answer_that_must_not_reach_the_nodes_tools_is_refused_and_reported(
    answer: PlatformUpdateStatusResponse, name: str
) -> None:
    bench = AgentBench(edge(1))
    bench.link.answer = answer

    bench.run()

    assert bench.state == ""
    assert bench.link.statuses == ["UP_TO_DATE", "STARTED", "FAILED"]
    assert f"answer refused: {name}: found" in bench.failure_logs()[0]
    assert bench.agent.explain().startswith("does nothing: the Maintenance Manager's answer was refused")


def refused(answer: PlatformUpdateStatusResponse) -> str:
    """Return why the agent of a mutable node refuses an answer, after looking that it said so and did nothing else."""
    bench = AgentBench(ubuntu())
    bench.link.answer = answer
    before = bench.node.key()

    bench.run()

    assert bench.node.key() == before
    assert bench.state == ""
    assert bench.link.statuses == ["UP_TO_DATE", "STARTED", "FAILED"]
    (log,) = bench.failure_logs()
    assert len(log) < 500
    return log


@pytest.mark.parametrize("packages", BAD_PACKAGES, ids=lambda text: ascii(text[:20]))
def test_package_names_that_apt_would_take_for_something_else_are_refused_and_reported(packages: str) -> None:
    assert refused(ubuntu(f"vim\n{packages}")).startswith("answer refused: installed_packages: found")


@pytest.mark.parametrize("text", BAD_KERNEL_COMMAND_LINES, ids=lambda text: ascii(text[:20]))
def test_kernel_parameters_that_a_shell_would_read_are_refused_and_reported(text: str) -> None:
    answer = ubuntu(update_source=UpdateSource(kernel_command=text))

    assert refused(answer).startswith("answer refused: kernel_command: found")


@pytest.mark.parametrize("sources", [("x" * 10_001,), tuple(f"Types: deb\nURIs: https://{n}" for n in range(101))])
def test_apt_sources_beyond_measure_are_refused_and_reported(sources: tuple[str, ...]) -> None:
    answer = ubuntu(update_source=UpdateSource(custom_repos=sources))

    assert refused(answer).startswith("answer refused: custom_repos: found")


@pytest.mark.parametrize("packages", ["", "\n", " \r\n\t\n"])
def test_no_packages_and_no_sources_are_an_update_as_well(packages: str) -> None:
    answer = ubuntu(packages, update_source=UpdateSource(custom_repos=("", " \n")))

    assert target_of(answer, OSType.MUTABLE, AgentPolicy()) == PackageTarget()


def test_what_is_wanted_twice_is_wanted_once() -> None:
    answer = ubuntu("g++\r\ncurl\ng++", update_source=UpdateSource(custom_repos=("Types: deb", "Types: deb")))

    assert target_of(answer, OSType.MUTABLE, AgentPolicy()) == PackageTarget(
        update_sources=("Types: deb",), update_packages=("g++", "curl")
    )


def test_a_wider_alphabet_of_kernel_command_lines_is_a_matter_of_policy() -> None:
    policy = AgentPolicy(kernel_command_line=re.compile(r"[\w=:, ]*"))
    answer = edge(update_source=UpdateSource(kernel_command="crashkernel=1G:2G"))

    assert target_of(answer, OSType.IMMUTABLE, policy) is not None


def test_a_refusal_is_reported_once_and_a_good_answer_ends_it() -> None:
    bench = AgentBench(edge(1))
    bench.link.answer = edge(os_profile_update_source=image_source(2, os_image_sha=""))
    for _ in range(3):
        bench.run()
    assert bench.link.statuses.count("STARTED") == 1

    bench.link.answer = edge()
    bench.run()

    assert bench.state == "updated"
    assert bench.agent.record.refused == ""


def test_answers_that_are_refused_by_turns_do_not_keep_the_agent() -> None:
    bench = AgentBench(edge(1))
    bad = [answer for answer, _ in BAD_ANSWERS]
    bench.link.answers = lambda call: bad[call % 5]

    for _ in range(20):
        bench.run()

    assert bench.link.calls <= 20 * 6
    assert len(bench.agent.record.outbox) <= 2


def test_a_refusal_during_an_update_repeats_its_status_with_the_reason() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    assert bench.state == "checking"

    bench.link.answer = edge(update_source=UpdateSource(kernel_command="a;b"))
    bench.agent.tick()

    detail = parse_detail(bench.link.heard[-1].status_detail)
    assert bench.link.statuses[-1] == "STARTED"
    assert detail is not None
    assert "answer refused: kernel_command" in detail.message
    assert bench.agent.explain() == "update in progress: checking"
    bench.run()
    assert bench.state == "updated"


def test_a_stored_answer_that_the_policy_does_not_allow_any_more_is_dropped() -> None:
    bench = AgentBench(edge(update_source=UpdateSource(kernel_command="quiet")))
    bench.agent.tick()
    bench.policy = AgentPolicy(kernel_command_line=re.compile("[a-p]*"))

    bench.start()

    assert bench.agent.record.answer is None
    bench.link.unreachable = set(range(100))
    bench.agent.tick()
    assert bench.state == "checking"


def test_a_desired_os_that_vanishes_fails_the_update_and_is_reported() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    bench.link.answer = edge(None)

    bench.run()

    assert bench.state == "failed"
    assert bench.reported()[-1] == "FAILED"
    assert "names no desired OS any more" in bench.failure_logs()[-1]
    assert bench.agent.explain() == "not updated: the orchestrator names no desired OS"


def test_a_desired_os_that_comes_back_is_installed() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    bench.link.answer = edge(None)
    bench.run()
    bench.link.answer = edge()

    bench.run()
    bench.run()

    assert bench.state == "updated"
