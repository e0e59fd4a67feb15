"""After a restart in any state, whatever the node sees: an answer, and never a harmful one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import product

import pytest
from attrs import evolve

from edge_day2.domain import immutable_events as ab
from edge_day2.domain import mutable_events as apt
from edge_day2.domain.flow import Command, FlowState
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate
from edge_day2.domain.observation import BootEntry, Observation, PackageDatabase, Slot, TrialEvidence
from edge_day2.domain.statuses import FailureReason, UpdateStatusType
from edge_day2.testing.flow_walks import BEFORE, NEW, NOW, OLD, SNAPSHOT, WINDOW, failure

ENTRIES = [BootEntry(slot, variant) for slot in Slot for variant in (0, 1)]
LATER = NOW + timedelta(minutes=5)


def everything_that_can_be_seen() -> Iterator[Observation]:
    seen = product(ENTRIES, ENTRIES, (None, *ENTRIES), ("this", "another"), PackageDatabase, TrialEvidence)
    for active, default, one_shot, boot_id, packages, evidence in seen:
        yield Observation(
            at=LATER,
            boot_id=boot_id,
            active=active,
            default=default,
            one_shot=one_shot,
            packages=packages,
            trial_evidence=evidence,
        )


def immutable_updates(state: str) -> Iterator[FlowState[ImmutableUpdate]]:
    image_alone = state in ("downloading", "installing", "clearing")
    command_line_alone = state in ("clearing_entry", "staging_entry")
    for origin in ENTRIES:
        trials = [] if command_line_alone else [origin.opposite()]
        for trial in [*trials, *([] if image_alone else [origin.beside()])]:
            for rollbacks in (0, 2):
                data = ImmutableUpdate(
                    target=ab.ImmutableTarget(image=NEW),
                    window=WINDOW,
                    running=OLD,
                    origin=origin,
                    trial=trial,
                    boot_id="this",
                    failure=failure(FailureReason.OS_COMMIT_FAIL),
                    rollbacks=rollbacks,
                )
                yield FlowState(IMMUTABLE_FLOW.name, state, data)


def harms(command: Command | None, seen: Observation) -> bool:
    match command:
        case ab.DownloadImage(trial=trial) | ab.InstallImage(trial=trial):
            return trial.slot is seen.active.slot
        case ab.ClearTrial(trial=trial) | ab.StageKernelCommandLine(trial=trial):
            return trial == seen.active
        case ab.CommitTrial(trial=trial) | ab.VerifyTrial(trial=trial):
            return trial != seen.active
        case ab.RebootIntoTrial():
            return seen.boot_id != "this"
        case _:
            return False


@pytest.mark.parametrize("state", IMMUTABLE_FLOW.states)
def test_an_immutable_update_goes_on_without_harm_from_everything_that_can_be_seen(state: str) -> None:
    for update in immutable_updates(state):
        for seen in everything_that_can_be_seen():
            resumed = IMMUTABLE_FLOW.resume(update, seen)

            assert not harms(resumed.command, seen), (update, seen)
            assert (resumed.command is None) == (IMMUTABLE_FLOW.command(resumed.state) is None)
            assert IMMUTABLE_FLOW.is_final(update) <= (resumed.state == update)


@pytest.mark.parametrize("state", IMMUTABLE_FLOW.states)
def test_an_immutable_update_says_of_a_restart_only_what_is_new(state: str) -> None:
    allowed = {UpdateStatusType.STARTED, UpdateStatusType.FAILED}
    for update in immutable_updates(state):
        for seen in everything_that_can_be_seen():
            resumed = IMMUTABLE_FLOW.resume(update, seen)

            assert {report.status_type for report in resumed.reports} <= allowed
            assert resumed.state != update or not resumed.reports


def mutable_updates(state: str) -> Iterator[FlowState[MutableUpdate]]:
    for interrupted, before in product((False, True), (None, BEFORE)):
        data = MutableUpdate(
            target=apt.PackageTarget(update_packages=("curl",)),
            window=WINDOW,
            opened=NOW,
            before=before,
            interrupted=interrupted,
            snapshot=SNAPSHOT,
            boot_id="this",
            failure=failure(FailureReason.UPDATE_TOOL),
        )
        yield FlowState(MUTABLE_FLOW.name, state, data)


UNREPAIRED = {"restarting", "rolling_back", "rebooting_back", "recording_rollback"}


@pytest.mark.parametrize("state", MUTABLE_FLOW.states)
def test_a_mutable_update_goes_on_from_everything_that_can_be_seen(state: str) -> None:
    waits = {"scheduled", "paused", "recording_failure"} | MUTABLE_FLOW.final_states
    for update in mutable_updates(state):
        for seen in everything_that_can_be_seen():
            resumed = MUTABLE_FLOW.resume(update, seen)

            interrupted = seen.packages is PackageDatabase.INTERRUPTED or update.data.interrupted
            if interrupted and state not in {*waits, *UNREPAIRED}:
                assert isinstance(resumed.command, apt.RepairPackages)
            if state in waits:
                assert resumed.state == update
            assert resumed.reports == ()


@pytest.mark.parametrize("boot_id", ["this", "another"])
def test_a_reboot_that_is_pending_has_happened_where_the_boot_is_another(boot_id: str) -> None:
    (update, *_) = mutable_updates("rebooting")

    resumed = MUTABLE_FLOW.resume(update, Observation(at=LATER, boot_id=boot_id))

    assert resumed.state.name == ("rebooting" if boot_id == "this" else "verifying")


def test_a_reboot_and_an_interrupted_package_database_are_seen_at_once() -> None:
    (update, *_) = mutable_updates("rebooting")
    seen = Observation(at=LATER, boot_id="another", packages=PackageDatabase.INTERRUPTED)

    resumed = MUTABLE_FLOW.resume(update, seen)

    assert resumed.state.name == "verifying"
    assert resumed.command == apt.RepairPackages(1, None, SNAPSHOT)


def test_an_agent_that_restarted_goes_on_with_the_next_step() -> None:
    (update, *_) = mutable_updates("restarting")

    resumed = MUTABLE_FLOW.resume(update, Observation(at=LATER, boot_id="this"))

    assert isinstance(resumed.command, apt.TakeSnapshot)


def test_a_database_that_is_known_to_be_interrupted_is_not_counted_again() -> None:
    (update, *_) = mutable_updates("installing_upgrade")
    update = evolve(update, data=evolve(update.data, interrupted=True, repairs=3))

    resumed = MUTABLE_FLOW.resume(update, Observation(at=LATER, boot_id="this", packages=PackageDatabase.INTERRUPTED))

    assert resumed.command == apt.RepairPackages(3, WINDOW)
