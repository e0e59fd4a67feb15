"""When an agent begins, tries again, leaves an update alone, downloads ahead; and what it says of all that."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest

from edge_day2.domain.agent_policy import AgentPolicy, WindowClose
from edge_day2.domain.messages import UpdateSchedule, UpdateSource
from edge_day2.domain.observation import BootEntry, Slot, TrialEvidence
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure, OutOfTime
from edge_day2.testing.agent_bench import NOW, SHUT, AgentBench, edge, image, image_source, ubuntu
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import ModelABNode

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
FOREVER = UpdateSchedule(single_schedule=SingleSchedule(NOW - HOUR))
HOURLY = UpdateSchedule(repeated_schedules=(RepeatedSchedule("0", "*", day_week="*", duration_seconds=1800),))


def breaks(monkeypatch: pytest.MonkeyPatch, node: type, call: str, *, conclusive: bool = False) -> None:
    def fail(*_: object) -> None:
        raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{call}: no", conclusive=conclusive)

    monkeypatch.setattr(node, call, fail)


def fall_back(bench: AgentBench, evidence: TrialEvidence = TrialEvidence.UNKNOWN) -> None:
    """Run until the trial boot, and let it come up in the default entry instead."""
    bench.agent.tick()
    while bench.node.running:
        assert bench.agent.run_pending() or not bench.node.running
    bench.node.next_entry()
    bench.node.boot_into(bench.node.default, bench.node.boot + 1)
    bench.node.evidence = evidence
    bench.start()
    while bench.agent.run_pending():
        pass


def test_the_distance_between_tries_doubles_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, ModelABNode, "write")
    policy = AgentPolicy(retry_after=10 * MINUTE, retry_at_most=HOUR)
    bench = AgentBench(edge(schedule=FOREVER), policy)
    moments = []

    for _ in range(5 * 60):
        retries = tries_of(bench)
        bench.run()
        if tries_of(bench) != retries:
            moments.append((bench.clock.now() - NOW) // MINUTE)
        bench.clock.later(MINUTE)

    assert moments == [0, 10, 30, 70, 130, 190, 250]


def tries_of(bench: AgentBench) -> int:
    state = bench.agent.record.flow
    found: int = state.data.retries if state is not None else 0
    return found


def test_an_agent_that_may_try_for_months_does(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, ModelABNode, "write")
    bench = AgentBench(edge(schedule=FOREVER), AgentPolicy(retries=60))

    for _ in range(70):
        bench.run()
        bench.clock.later(DAY)

    assert tries_of(bench) == 60


def test_a_failure_of_a_clock_that_was_far_ahead_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        breaks(broken, ModelABNode, "write")
        bench = AgentBench(edge(schedule=FOREVER))
        bench.clock.later(400 * DAY)
        bench.run()
    assert bench.state == "failed"

    bench.clock.later(-400 * DAY)
    bench.run()
    bench.clock.later(HOUR)
    bench.run()

    assert bench.state == "updated"


def test_an_update_begun_by_a_clock_that_was_far_ahead_does_not_put_off_the_next() -> None:
    bench = AgentBench(ubuntu(schedule=FOREVER))
    bench.clock.later(400 * DAY)
    bench.run()
    assert bench.state == "updated"
    bench.node.available["curl"] = "8"

    bench.clock.later(-400 * DAY)
    for _ in range(2):
        bench.run()
        bench.clock.later(DAY)

    assert bench.node.packages["curl"] == "8"


def test_tries_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, ModelABNode, "write")
    bench = AgentBench(edge(schedule=FOREVER), AgentPolicy(retries=3))

    for _ in range(20):
        bench.run()
        bench.clock.later(DAY)

    assert tries_of(bench) == 3
    assert bench.agent.explain() == (
        "not updated: 3.0.2 failed 3 times (write: no): "
        "not tried again until the desired OS changes or the failure is forgotten"
    )


def test_while_a_retry_is_held_the_agent_says_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, ModelABNode, "write")
    bench = AgentBench(edge(schedule=FOREVER))

    bench.run()

    assert bench.agent.explain() == "not updated: 3.0.2 failed (write: no): tried again after 2026-03-02 12:10 UTC"


def test_one_fall_back_may_have_been_a_power_cut_two_are_an_image_that_does_not_boot() -> None:
    bench = AgentBench(edge(schedule=FOREVER))
    fall_back(bench)
    bench.clock.later(DAY)
    assert bench.agent.explain() == "a window is open"

    fall_back(bench)
    for _ in range(5):
        bench.clock.later(DAY)
        bench.run()

    assert bench.state == "rolled_back"
    assert bench.agent.explain().startswith("not updated: 3.0.2 was rolled back (the trial entry was to boot")


def test_an_image_that_was_proven_bad_is_held_at_once() -> None:
    bench = AgentBench(edge(schedule=FOREVER))
    fall_back(bench, TrialEvidence.BAD_IMAGE)
    bench.clock.later(DAY)

    bench.run()

    assert bench.state == "rolled_back"


def test_an_image_that_is_unhealthy_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, ModelABNode, "check")
    bench = AgentBench(edge(schedule=FOREVER))

    for _ in range(3):
        bench.run()
        bench.clock.later(DAY)

    assert bench.state == "rolled_back"
    assert bench.link.statuses.count("STARTED") == 3
    assert "not tried again" in bench.agent.explain()


def test_power_cuts_during_the_trial_are_counted_apart_and_limited() -> None:
    bench = AgentBench(edge(schedule=FOREVER), AgentPolicy(interruptions=2))
    for _ in range(2):
        fall_back(bench, TrialEvidence.POWER_CUT)
        bench.clock.later(DAY)

    bench.run()

    assert bench.state == "rolled_back"
    assert bench.agent.explain().startswith("not updated: 2 trial boots of 3.0.2 were interrupted")


def test_another_desired_os_is_installed_although_the_last_one_is_held() -> None:
    bench = AgentBench(edge(schedule=FOREVER))
    fall_back(bench, TrialEvidence.BAD_IMAGE)

    bench.link.answer = edge(3, schedule=FOREVER)
    bench.run()
    bench.run()

    assert bench.state == "updated"
    assert bench.node.contents[Slot.B] == image(3)


def test_a_failure_that_is_forgotten_is_tried_again() -> None:
    bench = AgentBench(edge(schedule=FOREVER))
    fall_back(bench, TrialEvidence.BAD_IMAGE)
    bench.agent.tick()

    bench.agent.forget_failure()
    bench.run()

    assert bench.state == "updated"


def test_a_running_update_is_not_forgotten() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()

    bench.agent.forget_failure()

    assert bench.state == "checking"


def test_a_kernel_command_line_that_fails_is_held_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, ModelABNode, "write_entry", conclusive=True)
    quiet = UpdateSource(kernel_command="quiet")
    bench = AgentBench(edge(None, schedule=FOREVER, update_source=quiet))

    bench.run()

    assert bench.agent.explain().startswith("not updated: the kernel command line was rolled back")


def test_a_kernel_command_line_alone_is_tried_and_committed() -> None:
    bench = AgentBench(edge(1, update_source=UpdateSource(kernel_command="quiet")))

    bench.run()

    assert bench.state == "updated"
    assert bench.node.active == bench.node.default == BootEntry(Slot.A, 1)
    assert bench.node.entries[bench.node.active] == "quiet"


def in_a_window(start: timedelta, length: timedelta = HOUR) -> UpdateSchedule:
    return UpdateSchedule(single_schedule=SingleSchedule(NOW + start, NOW + start + length))


def test_an_image_is_downloaded_ahead_of_the_window_and_installed_in_it() -> None:
    bench = AgentBench(edge(schedule=in_a_window(10 * HOUR)))
    moments = []

    for _ in range(11 * 60):
        before = bench.node.prefetched
        bench.run()
        if bench.node.prefetched != before:
            moments.append(bench.clock.now() - NOW)
            assert bench.state == "fetched"
            assert bench.agent.explain() == "fetched: waits for the window at 2026-03-02 22:00 UTC"
        bench.clock.later(MINUTE)

    (moment,) = moments
    assert 10 * HOUR - 6 * HOUR - 10 * MINUTE <= moment < 10 * HOUR
    assert bench.state == "updated"
    told = [name for name, _ in groupby(bench.link.statuses)]
    assert told == ["UP_TO_DATE", "DOWNLOADING", "DOWNLOADED", "STARTED", "UPDATED", "UP_TO_DATE"]


def test_a_download_ahead_that_fails_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, ModelABNode, "prefetch")
    bench = AgentBench(edge(schedule=in_a_window(5 * MINUTE)))
    bench.run()
    assert (bench.state, tries_of(bench)) == ("scheduled", 1)

    bench.run()
    assert tries_of(bench) == 1
    bench.clock.later(6 * MINUTE)
    bench.run()

    assert bench.state == "updated"


def test_a_kernel_command_line_alone_has_nothing_to_download() -> None:
    quiet = UpdateSource(kernel_command="quiet")
    bench = AgentBench(edge(None, schedule=in_a_window(5 * MINUTE), update_source=quiet))

    bench.run()

    assert bench.state == ""
    assert bench.agent.explain() == "waits for the window at 2026-03-02 12:05 UTC"


def test_a_mutable_node_is_updated_once_per_window() -> None:
    bench = AgentBench(ubuntu(schedule=HOURLY))

    for _ in range(3 * 60):
        bench.run()
        bench.clock.later(MINUTE)

    assert bench.link.statuses.count("STARTED") == 3


def test_in_a_window_that_never_closes_a_mutable_node_is_updated_once_a_day() -> None:
    bench = AgentBench(ubuntu(schedule=FOREVER))

    for _ in range(3 * 24 * 4):
        bench.run()
        bench.clock.later(15 * MINUTE)

    assert bench.link.statuses.count("STARTED") == 3


def test_a_patched_os_is_applied_in_the_same_window() -> None:
    bench = AgentBench(ubuntu())
    bench.run()
    bench.node.available["vim"] = "9"

    bench.link.answer = ubuntu("curl\nvim")
    bench.run()
    bench.run()

    assert bench.node.packages["vim"] == "9"


def test_a_target_that_is_patched_during_the_update_is_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(ubuntu())
    bench.node.available["vim"] = "9"
    bench.agent.tick()
    bench.agent.run_pending()

    bench.link.answer = ubuntu("vim")
    bench.run()

    assert bench.state == "updated"
    assert "vim" in bench.node.packages
    assert "curl" not in bench.node.packages


def test_a_mutable_node_whose_agent_is_newer_restarts_it_and_goes_on() -> None:
    bench = AgentBench(ubuntu())
    bench.node.available["agent"] = "2"
    bench.agent.tick()
    while bench.state != "restarting":
        bench.agent.run_pending()
    assert not bench.agent.run_pending()
    assert not bench.agent.run_pending()
    assert [name for name, _ in bench.node.calls.possible].count("restart agent") == 1

    bench.start()

    assert bench.state == "taking_snapshot"


def test_a_closing_window_fails_the_update_where_the_policy_says_so() -> None:
    bench = AgentBench(ubuntu(), AgentPolicy(window_close=WindowClose.FAIL))
    bench.agent.tick()
    bench.agent.run_pending()
    bench.clock.later(3 * HOUR)

    bench.run()

    assert bench.state == "failed"
    assert bench.reported()[-1] == "FAILED"
    assert "partial success" in bench.failure_logs()[-1]


@pytest.mark.parametrize(("close", "state"), [(WindowClose.PAUSE, "paused"), (WindowClose.FAIL, "failed")])
def test_a_download_that_the_window_ends_is_paused_or_failed(
    monkeypatch: pytest.MonkeyPatch, close: WindowClose, state: str
) -> None:
    bench = AgentBench(edge(), AgentPolicy(window_close=close))

    def give_up(node: ModelABNode, *_: object) -> None:
        bench.clock.later(3 * HOUR)
        raise OutOfTime("half of it")

    monkeypatch.setattr(ModelABNode, "write", give_up)

    bench.run()

    assert bench.state == state


def test_a_step_that_can_only_be_repeated_waits_for_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(edge())
    breaks(monkeypatch, ModelABNode, "arm")
    breaks(monkeypatch, ModelABNode, "set_default")
    bench.agent.tick()

    steps = 0
    while bench.agent.run_pending():
        steps += 1

    assert bench.state == "disarming"
    assert steps < 10


@pytest.mark.parametrize("policy", [AgentPolicy(time_to_update=3 * HOUR), AgentPolicy(time_to_reboot=3 * HOUR)])
def test_a_window_that_is_too_short_is_left_alone_and_said(policy: AgentPolicy) -> None:
    bench = AgentBench(edge(), policy)
    bench.clock.later(MINUTE)

    bench.run()

    assert bench.state == ""
    assert bench.agent.explain() == "not started: the update needs 3:00:00, the window closes at 14:00 UTC"
    assert "not started" in bench.agent.record.outbox[-1].status_detail


def test_what_is_left_of_a_window_must_be_enough_for_the_reboot() -> None:
    bench = AgentBench(edge(), AgentPolicy(time_to_reboot=HOUR))
    bench.agent.tick()
    while bench.state != "rebooting":
        bench.agent.run_pending()
    bench.clock.later(90 * MINUTE)

    bench.run()

    assert bench.state == "paused"
    assert bench.node.one_shot is None
    assert "isn't enough for the reboot" in bench.agent.record.outbox[-1].status_detail


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (edge(2, schedule=SHUT), "no window is scheduled"),
        (edge(2, schedule=in_a_window(30 * HOUR)), "waits for the window at 2026-03-03 18:00 UTC"),
        (edge(1), "up to date, a window is open"),
        (ubuntu(), "up to date, a window is open"),
        (edge(None), "not updated: the orchestrator names no desired OS"),
    ],
)
def test_an_agent_explains_what_it_does(answer: Any, sentence: str) -> None:
    bench = AgentBench(answer)
    assert bench.agent.explain() == "waits for the Maintenance Manager's first answer"

    bench.run()

    assert bench.agent.explain() == sentence


def test_an_agent_explains_where_an_update_is() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    bench.agent.run_pending()

    assert bench.agent.explain() == "update in progress: clearing"


def test_an_image_of_another_profile_never_runs_on_the_node() -> None:
    bench = AgentBench(edge())
    bench.link.answer = edge(os_profile_update_source=image_source(2, profile_name="another"))

    bench.run()

    assert bench.state == "failed"
    bench.reported()
    assert "doesn't fit a node of profile 'edge'" in bench.failure_logs()[-1]


def test_an_interrupted_package_database_is_repaired_on_the_way() -> None:
    bench = AgentBench(ubuntu())
    bench.node.half = (("helper", "1"),)

    bench.run()

    assert bench.state == "updated"
    assert isinstance(bench.node, ModelAptNode)
    assert bench.node.half == ()
