"""An agent on an apt node: killed in its own upgrade, locked out, repaired, rolled back, and what it says of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve

from edge_day2.domain.agent_policy import AgentPolicy, WindowClose
from edge_day2.domain.messages import UpdateSchedule
from edge_day2.domain.mutable_effects import MAX_DETAIL
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import EntryStatus, FailureReason, parse_detail
from edge_day2.testing.agent_bench import AgentBench, ubuntu
from edge_day2.testing.faults import AgentKilled, Calls, Fault, PlannedFault

HOUR = timedelta(hours=1)


def step_to(bench: AgentBench, state: str) -> None:
    bench.agent.tick()
    while bench.state != state:
        bench.agent.run_pending()


def test_an_agent_that_its_own_upgrade_kills_goes_on_from_there() -> None:
    bench = AgentBench(ubuntu())
    bench.node.available["agent"] = "2"
    step_to(bench, "updating_agent")
    bench.node.calls = Calls(PlannedFault(1, Fault.KILLED_AFTER))

    with pytest.raises(AgentKilled):
        bench.agent.run_pending()
    bench.node.calls = Calls()
    bench.start()

    assert bench.state == "updating_agent"
    bench.agent.run_pending()
    assert bench.state == "taking_snapshot"
    bench.run()
    assert bench.state == "updated"
    assert [name for name, _ in bench.node.calls.possible].count("restart agent") == 0
    assert bench.reported() == ["UP_TO_DATE", "STARTED", "UPDATED", "UP_TO_DATE"]


def test_an_agent_that_is_killed_in_the_middle_of_its_own_upgrade_repairs_it_and_goes_on() -> None:
    bench = AgentBench(ubuntu())
    bench.node.available["agent"] = "2"
    step_to(bench, "updating_agent")
    bench.node.calls = Calls(PlannedFault(1, Fault.KILLED_DURING))

    with pytest.raises(AgentKilled):
        bench.agent.run_pending()
    bench.node.calls = Calls()
    bench.start()
    bench.run()

    assert bench.state == "updated"
    assert bench.node.packages == {"agent": "2", "helper": "2", "curl": "7"}
    bench.reported()
    detail = parse_detail(bench.link.heard[-2].status_detail)
    assert detail is not None
    assert detail.message == "the package database was interrupted and repaired: dpkg --configure -a: agent"
    assert sorted(entry.package_name for entry in detail.update_log) == ["agent", "curl", "helper"]
    assert bench.node.calls.possible[0][0] == "dpkg --configure"


def node_that_keeps_its_old_kernel() -> AgentBench:
    """Return a bench with snapshots, whose boot loader doesn't take the kernel that every update brings."""
    bench = AgentBench(ubuntu())
    bench.port = evolve(bench.port, snapshots=bench.node)
    bench.start()
    bench.node.depends = {"curl": ("linux-image-2",)}
    bench.node.available["linux-image-2"] = "1"
    return bench


def roll_back(bench: AgentBench) -> None:
    """Go through an update until it was rolled back."""
    step_to(bench, "rebooting")
    bench.agent.run_pending()
    bench.node.come_up(bench.node.boot + 1, "an older kernel")
    bench.start()
    bench.run()
    assert bench.state == "rolled_back"
    bench.reported()


def next_day(bench: AgentBench) -> None:
    bench.clock.later(timedelta(days=1))
    start = bench.clock.now()
    schedule = UpdateSchedule(single_schedule=SingleSchedule(start, start + 2 * HOUR))
    bench.link.answer = evolve(bench.link.answer, update_schedule=schedule)


def test_an_update_that_was_rolled_back_twice_waits_for_other_packages() -> None:
    bench = node_that_keeps_its_old_kernel()
    roll_back(bench)
    next_day(bench)
    roll_back(bench)

    for _ in range(6):
        next_day(bench)
        bench.agent.tick()
        bench.agent.tick()
        assert bench.state == "rolled_back"
        assert bench.agent.explain().startswith("not updated: the update failed 2 times and was rolled back (kernel an")
    next_day(bench)
    bench.agent.tick()
    bench.agent.tick()

    assert bench.state == "recording"


def test_an_update_that_was_rolled_back_is_tried_again_at_once_when_its_failure_is_forgotten() -> None:
    bench = node_that_keeps_its_old_kernel()
    roll_back(bench)
    next_day(bench)
    roll_back(bench)
    (snapshot,) = bench.node.snapshots

    bench.clock.later(timedelta(minutes=1))
    bench.agent.forget_failure()
    bench.agent.tick()

    assert bench.state == "recording"
    step_to(bench, "updating_helper")
    assert len(bench.node.snapshots) == 1
    assert snapshot not in bench.node.snapshots


def test_a_failure_after_many_changes_is_short_enough_to_keep_its_reason() -> None:
    bench = AgentBench(ubuntu())
    names = [f"library-number-{number}" for number in range(2_000)]
    bench.node.packages |= dict.fromkeys(names, "1")
    bench.node.available |= dict.fromkeys(names, "2")
    step_to(bench, "rebooting")
    bench.agent.run_pending()
    bench.node.come_up(1)
    bench.start()
    bench.node.calls = Calls(PlannedFault(2, Fault.FAILS))
    bench.agent.run_pending()
    bench.node.calls = Calls()

    bench.reported()

    text = bench.link.heard[-1].status_detail
    detail = parse_detail(text)
    assert detail is not None
    assert 60_000 < len(text) < MAX_DETAIL + 5_000
    assert detail.update_log[-1].failure_log == "health: simulated fault"
    left_out = 2_002 - (len(detail.update_log) - 1)
    assert detail.message == f"{left_out} more packages were changed."


def test_a_node_with_snapshots_goes_back_where_the_verification_fails_and_says_so() -> None:
    bench = node_that_keeps_its_old_kernel()

    roll_back(bench)

    assert bench.node.packages == {"agent": "1", "helper": "1"}
    assert bench.link.statuses == ["UP_TO_DATE", "STARTED", "FAILED", "FAILED"]
    first, last = (parse_detail(status.status_detail) for status in bench.link.heard[-2:])
    assert first is not None
    assert last is not None
    assert [entry.status.value for entry in first.update_log] == ["installed", "installed", "installed", "failed"]
    (entry,) = last.update_log
    assert (entry.status, entry.failure_reason) == (EntryStatus.ROLLED_BACK, FailureReason.BOOTLOADER_FAIL)
    assert "kernel an older kernel runs after the reboot" in entry.failure_log


def test_the_snapshot_of_an_update_is_kept_until_the_next_one_takes_its_own() -> None:
    bench = AgentBench(ubuntu())
    bench.port = evolve(bench.port, snapshots=bench.node)
    bench.start()
    bench.run()
    assert bench.state == "updated"
    (first,) = bench.node.snapshots

    for day in range(1, 4):
        start = bench.clock.now() + timedelta(days=1)
        bench.clock.later(timedelta(days=1))
        schedule = UpdateSchedule(single_schedule=SingleSchedule(start, start + 2 * HOUR))
        bench.link.answer = ubuntu("curl" if day % 2 else "", schedule=schedule)
        bench.run()
        bench.run()
        assert bench.state == "up_to_date"

    assert len(bench.node.snapshots) == 1
    assert first not in bench.node.snapshots


def test_a_repair_that_found_nothing_new_is_said_all_the_same() -> None:
    bench = AgentBench(ubuntu(""))
    bench.node.packages = {"agent": "1", "helper": "2", "libc": "1"}
    bench.node.half = (("libc", "1"),)

    bench.run()

    assert bench.state == "up_to_date"
    bench.reported()
    detail = parse_detail(bench.link.heard[-1].status_detail)
    assert detail is not None
    assert detail.message == "the package database was interrupted and repaired: dpkg --configure -a: libc"


def test_an_update_that_fails_after_it_changed_packages_still_owes_the_reboot() -> None:
    bench = AgentBench(ubuntu())
    step_to(bench, "downloading_upgrade")
    bench.node.calls = Calls(PlannedFault(1, Fault.FAILS))
    bench.run()
    assert bench.state == "failed"
    assert bench.node.boot == 0

    bench.node.calls = Calls()
    bench.clock.later(timedelta(days=1))
    start = bench.clock.now()
    bench.link.answer = ubuntu(schedule=UpdateSchedule(single_schedule=SingleSchedule(start, start + 2 * HOUR)))
    bench.run()
    bench.run()

    assert bench.state == "updated"
    assert bench.node.boot == 1


def test_a_held_lock_pauses_the_update_and_says_who_holds_it() -> None:
    bench = AgentBench(ubuntu())
    step_to(bench, "updating_sources")
    bench.node.locked = True
    bench.agent.run_pending()

    assert bench.state == "paused"
    bench.run()
    bench.reported()
    messages = [detail.message for status in bench.link.heard if (detail := parse_detail(status.status_detail))]
    assert messages[0] == (
        "paused: the maintenance window closed (dpkg's lock is held by unattended-upgrades), "
        "the update goes on in the next one"
    )


def test_a_held_lock_fails_the_update_where_the_policy_says_so_and_says_who_holds_it() -> None:
    bench = AgentBench(ubuntu(), AgentPolicy(window_close=WindowClose.FAIL))
    step_to(bench, "updating_sources")
    bench.node.locked = True

    bench.run()
    bench.reported()

    assert bench.state == "failed"
    assert "partial success" in bench.failure_logs()[-1]
    assert "dpkg's lock is held by unattended-upgrades" in bench.failure_logs()[-1]
