"""What the two kinds of node make of commands, and of ports that fail: always an event, never an exception."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.application.mutable_node import MAX_REPAIRS, MAX_ROLLBACKS, MutableNode
from edge_day2.domain import immutable_events as ab
from edge_day2.domain import mutable_events as apt
from edge_day2.domain.flow import Command, FailedEvent, WindowClosed
from edge_day2.domain.mutable_effects import changes
from edge_day2.domain.observation import BootEntry, Observation, PackageDatabase, Slot, TrialEvidence
from edge_day2.domain.statuses import FailureReason, UpdateLogEntry, UpdateType
from edge_day2.ports.failures import Interrupted, NodeFailure, OutOfTime
from edge_day2.testing.faults import Calls, Fault, PlannedFault
from edge_day2.testing.flow_walks import NEW, NOW, OLD, SLOT_A, SLOT_B, WINDOW
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import ModelABNode, ModelNode

TARGET = ab.ImmutableTarget(image=NEW)


def ab_node(**changes: Any) -> tuple[ModelABNode, ImmutableNode]:
    model = evolve(ModelABNode.with_image(OLD), **changes)
    return model, ImmutableNode(slots=model, bootloader=model, health=model, system=model)


def apt_node(**changes: Any) -> tuple[ModelAptNode, MutableNode]:
    model = evolve(ModelAptNode(packages={"libc": "1"}, available={"libc": "2", "curl": "7"}), **changes)
    return model, MutableNode(apt=model, apt_sources=model, grub=model, health=model, system=model, snapshots=model)


def trial_node(**changes: Any) -> tuple[ModelABNode, ImmutableNode]:
    """Return a node that runs `NEW` on trial from slot B."""
    found = {"contents": {Slot.A: OLD, Slot.B: NEW}, "entries": {SLOT_A: "", SLOT_B: ""}, "active": SLOT_B}
    return ab_node(**{**found, **changes})


def test_an_immutable_node_sees_where_it_stands() -> None:
    _, node = trial_node(one_shot=SLOT_A, evidence=TrialEvidence.POWER_CUT, boot=3)

    assert node.observe(NOW) == Observation(
        at=NOW,
        boot_id="boot-3",
        active=SLOT_B,
        default=SLOT_A,
        one_shot=SLOT_A,
        trial_evidence=TrialEvidence.POWER_CUT,
    )


def test_a_mutable_node_sees_its_package_database() -> None:
    _, node = apt_node(half=(("libc", "2"),), boot=3)

    assert node.observe(NOW) == Observation(at=NOW, boot_id="boot-3", packages=PackageDatabase.INTERRUPTED)


@pytest.mark.parametrize("wanted", [evolve(NEW, sha256="3" * 64), evolve(NEW, image_id="3.0.9")])
def test_images_are_compared_by_version_and_digest(wanted: ab.Image) -> None:
    _, node = trial_node(default=SLOT_B)

    assert isinstance(node.carry_out(ab.CompareImages(TARGET), NOW), ab.ImagesEqual)
    assert isinstance(node.carry_out(ab.CompareImages(ab.ImmutableTarget(image=wanted)), NOW), ab.ImagesDiffer)


def test_a_running_image_of_unknown_digest_is_told_by_its_version() -> None:
    unknown = evolve(NEW, profile_name="", sha256="")
    _, node = trial_node(default=SLOT_B, contents={Slot.A: OLD, Slot.B: unknown})
    another = ab.ImmutableTarget(image=evolve(NEW, image_id="3.0.9"))

    assert isinstance(node.carry_out(ab.CompareImages(TARGET), NOW), ab.ImagesEqual)
    assert isinstance(node.carry_out(ab.CompareImages(another), NOW), ab.ImagesDiffer)


def test_a_wanted_image_without_a_digest_is_no_image_of_any_digest() -> None:
    _, node = trial_node(default=SLOT_B)
    wanted = ab.ImmutableTarget(image=evolve(NEW, sha256=""))

    assert isinstance(node.carry_out(ab.CompareImages(wanted), NOW), ab.ImagesDiffer)


def test_a_trial_of_unknown_digest_is_verified_by_its_version() -> None:
    _, node = trial_node(contents={Slot.A: OLD, Slot.B: evolve(NEW, sha256="")})

    assert isinstance(node.carry_out(ab.VerifyTrial(TARGET, SLOT_B), NOW), ab.TrialHealthy)


def test_an_image_of_another_profile_is_proven_bad_for_the_node() -> None:
    _, node = ab_node()
    wanted = ab.ImmutableTarget(image=evolve(NEW, profile_name="another"))

    event = node.carry_out(ab.CompareImages(wanted), NOW)

    assert isinstance(event, ab.ComparisonFailed)
    assert event.failure.conclusive


def test_an_image_is_taken_on_a_node_that_does_not_know_its_profile() -> None:
    _, node = ab_node(contents={Slot.A: evolve(OLD, profile_name="")})

    assert isinstance(node.carry_out(ab.CompareImages(TARGET), NOW), ab.ImagesDiffer)


@pytest.mark.parametrize(("wanted", "event"), [("quiet", ab.ImagesEqual), ("debug", ab.KernelCommandLineDiffers)])
def test_kernel_command_lines_are_compared_where_one_is_wanted(wanted: str, event: type) -> None:
    _, node = ab_node(entries={SLOT_A: "quiet"})

    assert isinstance(node.carry_out(ab.CompareImages(ab.ImmutableTarget(kernel_command_line=wanted)), NOW), event)


def test_a_trial_that_is_not_known_is_seen_by_its_default() -> None:
    _, node = trial_node()

    assert isinstance(node.carry_out(ab.CompareImages(TARGET), NOW), ab.TrialRunning)


@pytest.mark.parametrize(
    "command",
    [
        ab.ClearTrial(SLOT_A, SLOT_A),
        ab.DownloadImage(NEW, SLOT_A, WINDOW),
        ab.DownloadImage(NEW, BootEntry(Slot.A, 1), WINDOW),
    ],
)
def test_what_runs_is_not_touched_whoever_asks(command: Command) -> None:
    model, node = ab_node()
    before = model.key()

    event = node.carry_out(command, NOW)

    assert isinstance(event, FailedEvent)
    assert event.failure.reason is FailureReason.INSTALLATION_FAIL
    assert model.key() == before


def test_the_slot_of_the_default_entry_is_not_written_while_another_one_runs() -> None:
    model, node = trial_node()

    assert isinstance(node.carry_out(ab.DownloadImage(NEW, SLOT_A, WINDOW), NOW), ab.DownloadFailed)
    assert model.contents[Slot.A] == OLD


def test_a_slot_is_not_cleared_for_a_trial_while_the_origin_is_not_the_default() -> None:
    _, node = trial_node(proven=frozenset({SLOT_A, SLOT_B}), default=SLOT_A)

    event = node.carry_out(ab.ClearTrial(SLOT_B, SLOT_A), NOW)

    assert isinstance(event, ab.ClearingFailed)
    assert "B isn't the default boot entry" in event.failure.log


@pytest.mark.parametrize(
    ("changes", "target", "reason"),
    [
        ({"active": SLOT_A}, TARGET, FailureReason.BOOTLOADER_FAIL),
        ({"contents": {Slot.A: OLD, Slot.B: OLD}}, TARGET, FailureReason.OS_COMMIT_FAIL),
        ({}, ab.ImmutableTarget(kernel_command_line="quiet"), FailureReason.UT_BOOT_CONFIGURATION),
    ],
)
def test_a_trial_that_runs_something_else_is_not_healthy(
    changes: dict[str, Any], target: ab.ImmutableTarget, reason: FailureReason
) -> None:
    _, node = trial_node(**changes)

    event = node.carry_out(ab.VerifyTrial(target, SLOT_B), NOW)

    assert isinstance(event, ab.TrialUnhealthy)
    assert event.failure.reason is reason
    assert event.failure.conclusive


def test_only_the_entry_that_runs_is_committed() -> None:
    model, node = trial_node(active=SLOT_A)

    event = node.carry_out(ab.CommitTrial(SLOT_B), NOW)

    assert isinstance(event, ab.CommitFailed)
    assert model.default == SLOT_A


def test_a_boot_loader_that_fails_the_commit_is_a_failed_commit() -> None:
    model, node = trial_node(verified=frozenset({SLOT_B}))
    model.calls.planned = PlannedFault(2, Fault.FAILS)

    event = node.carry_out(ab.CommitTrial(SLOT_B), NOW)

    assert isinstance(event, ab.CommitFailed)
    assert event.failure.reason is FailureReason.OS_COMMIT_FAIL


def test_the_image_that_runs_is_not_downloaded_ahead() -> None:
    model, node = trial_node()

    assert isinstance(node.carry_out(ab.PrefetchImage(NEW), NOW), ab.ImageFetched)
    assert model.prefetched is None
    assert isinstance(node.carry_out(ab.PrefetchImage(OLD), NOW), ab.ImageFetched)
    assert model.prefetched == OLD


AB_COMMANDS: list[tuple[Command, type[FailedEvent]]] = [
    (ab.PrefetchImage(NEW), ab.FetchFailed),
    (ab.CompareImages(TARGET), ab.ComparisonFailed),
    (ab.ClearTrial(SLOT_A, SLOT_B), ab.ClearingFailed),
    (ab.DownloadImage(NEW, SLOT_B, WINDOW), ab.DownloadFailed),
    (ab.InstallImage(NEW, SLOT_B, ""), ab.InstallationFailed),
    (ab.StageKernelCommandLine(SLOT_B, "quiet"), ab.InstallationFailed),
    (ab.ArmTrial(SLOT_B), ab.ArmingFailed),
    (ab.RebootIntoTrial(), ab.RebootFailed),
    (ab.VerifyTrial(TARGET, SLOT_A), ab.TrialUnhealthy),
    (ab.CommitTrial(SLOT_A), ab.CommitFailed),
    (ab.RestoreDefault(SLOT_A), ab.RestoreFailed),
    (ab.RebootIntoOrigin(), ab.RebootFailed),
]
UPGRADE = (("libc", "2"),)
SNAPSHOT = apt.Snapshot(identifier="label", packages="fingerprint")
APT_COMMANDS: list[tuple[Command, type]] = [
    (apt.RepairPackages(1, WINDOW), apt.StepFailed),
    (apt.RecordPackages(), apt.StepFailed),
    (apt.UpdateAptSources(("Types: deb",), WINDOW), apt.StepFailed),
    (apt.UpdateAgent(WINDOW), apt.StepFailed),
    (apt.RestartAgent(), apt.StepFailed),
    (apt.TakeSnapshot("label", ""), apt.StepFailed),
    (apt.UpdateHelper(WINDOW), apt.StepFailed),
    (apt.SetKernelCommandLine("quiet"), apt.StepFailed),
    (apt.DownloadPackages(("curl",), WINDOW), apt.StepFailed),
    (apt.InstallPackages(("libc",), UPGRADE, WINDOW), apt.StepFailed),
    (apt.DownloadUpgrade(WINDOW), apt.StepFailed),
    (apt.InstallUpgrade(UPGRADE, WINDOW), apt.StepFailed),
    (apt.ComparePackages((), "", False), apt.StepFailed),
    (apt.RebootNode(), apt.StepFailed),
    (apt.VerifyUpdate(apt.PackageTarget(), (), ()), apt.VerificationFailed),
    (apt.VerifyUpdate(apt.PackageTarget(), (), (), SNAPSHOT), apt.RollbackDue),
    (apt.RepairPackages(1, None, SNAPSHOT), apt.RollbackDue),
    (apt.RecordFailure((("libc", "1"),)), apt.FailureRecorded),
    (apt.RollBack(SNAPSHOT, 1), apt.RollbackFailed),
    (apt.RollBack(SNAPSHOT, MAX_ROLLBACKS), apt.RollbackExhausted),
    (apt.RebootIntoSnapshot(), apt.RollbackFailed),
    (apt.RecordRollback((), SNAPSHOT), apt.RollbackFailed),
]


def name_of(value: object) -> str:
    return type(value).__name__ if isinstance(value, Command) else ""


@pytest.mark.parametrize(("command", "event"), AB_COMMANDS, ids=name_of)
def test_a_failing_port_of_an_immutable_node_is_the_failure_of_its_command(
    command: Command, event: type[FailedEvent]
) -> None:
    _, node = ab_node(
        contents={Slot.A: OLD, Slot.B: NEW}, entries={SLOT_A: "", SLOT_B: ""}, calls=Calls(PlannedFault(1, Fault.FAILS))
    )

    found = node.carry_out(command, NOW)

    assert type(found) is event
    assert isinstance(found, FailedEvent)
    assert "simulated fault" in found.failure.log


@pytest.mark.parametrize(("command", "event"), APT_COMMANDS, ids=name_of)
def test_a_failing_port_of_a_mutable_node_is_the_failure_of_its_command(command: Command, event: type) -> None:
    archive = frozenset({("libc", "2")})
    _, node = apt_node(archive=archive, calls=Calls(PlannedFault(1, Fault.FAILS)))

    assert type(node.carry_out(command, NOW)) is event


class Surprise(RuntimeError):
    pass


@pytest.fixture
def surprises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[type[Exception]]:
    def explode(*_: object) -> None:
        raise Surprise("a defect of an adapter")

    for model in (ModelNode, ModelABNode, ModelAptNode):
        for name in list(vars(model)):
            if not name.startswith("_") and name not in ("with_image", "copy", "key") and callable(vars(model)[name]):
                monkeypatch.setattr(model, name, explode)
    with caplog.at_level(logging.CRITICAL + 1):
        yield Surprise


@pytest.mark.parametrize(("command", "event"), AB_COMMANDS, ids=name_of)
def test_whatever_an_adapter_of_an_immutable_node_raises_is_an_event(
    surprises: type[Exception], command: Command, event: type[FailedEvent]
) -> None:
    _, node = ab_node()

    found = node.carry_out(command, NOW)

    assert type(found) is event
    assert isinstance(found, FailedEvent)
    assert found.failure.log == "Surprise: a defect of an adapter"


@pytest.mark.parametrize(("command", "event"), APT_COMMANDS, ids=name_of)
def test_whatever_an_adapter_of_a_mutable_node_raises_is_an_event(
    surprises: type[Exception], command: Command, event: type
) -> None:
    _, node = apt_node()

    assert type(node.carry_out(command, NOW)) is event


@pytest.mark.parametrize("node", [ab_node()[1], apt_node()[1]], ids=["immutable", "mutable"])
def test_whatever_an_adapter_raises_the_node_cannot_be_observed(
    surprises: type[Exception], node: ImmutableNode | MutableNode
) -> None:
    with pytest.raises(NodeFailure, match="Surprise: a defect of an adapter"):
        node.observe(NOW)


@pytest.mark.parametrize(("command", "event"), AB_COMMANDS, ids=name_of)
def test_only_what_depends_on_the_window_of_an_immutable_node_is_paused_by_it(
    monkeypatch: pytest.MonkeyPatch, command: Command, event: type[FailedEvent]
) -> None:
    def give_up(*_: object) -> None:
        raise OutOfTime

    monkeypatch.setattr(ImmutableNode, "_carry_out", give_up)
    _, node = ab_node()

    assert type(node.carry_out(command, NOW)) is (WindowClosed if command.disruptive else event)


@pytest.mark.parametrize(("command", "event"), APT_COMMANDS, ids=name_of)
def test_only_what_depends_on_the_window_of_a_mutable_node_is_paused_by_it(
    monkeypatch: pytest.MonkeyPatch, command: Command, event: type
) -> None:
    def give_up(*_: object) -> None:
        raise OutOfTime

    monkeypatch.setattr(MutableNode, "_carry_out", give_up)
    _, node = apt_node()
    pauses = command.disruptive and command != apt.RepairPackages(1, None, SNAPSHOT)

    assert type(node.carry_out(command, NOW)) is (WindowClosed if pauses else event)


@pytest.mark.parametrize(
    "command",
    [
        apt.RecordPackages(),
        apt.UpdateAgent(WINDOW),
        apt.UpdateHelper(WINDOW),
        apt.InstallPackages(("libc",), UPGRADE, WINDOW),
        apt.InstallUpgrade(UPGRADE, WINDOW),
        apt.ComparePackages((), "", False),
        apt.VerifyUpdate(apt.PackageTarget(), (), ()),
    ],
    ids=name_of,
)
def test_an_interrupted_package_database_asks_for_a_repair(command: Command) -> None:
    _, node = apt_node(half=(("libc", "2"),), archive=frozenset({("libc", "2")}))

    assert node.carry_out(command, NOW) == apt.PackagesInterrupted(NOW)


def test_a_failure_that_cannot_be_compared_is_recorded_without_changes() -> None:
    _, node = apt_node(half=(("libc", "2"),))

    assert node.carry_out(apt.RecordFailure((("libc", "1"),)), NOW) == apt.FailureRecorded(
        NOW, (), "boot-0", untold=True
    )


def test_a_repair_that_finds_the_database_interrupted_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    _, node = apt_node(half=(("libc", "2"),))
    monkeypatch.setattr(ModelAptNode, "repair", lambda model: model.installed())

    assert isinstance(node.carry_out(apt.RepairPackages(1, WINDOW), NOW), apt.StepFailed)


def test_repairs_are_limited() -> None:
    _, node = apt_node(half=(("libc", "2"),))

    assert isinstance(node.carry_out(apt.RepairPackages(MAX_REPAIRS, WINDOW), NOW), apt.PackagesRepaired)
    event = node.carry_out(apt.RepairPackages(MAX_REPAIRS + 1, WINDOW), NOW)

    assert isinstance(event, apt.StepFailed)
    assert "was interrupted 11 times in this update" in event.failure.log


def test_nothing_to_install_calls_no_tool() -> None:
    model, node = apt_node()

    for command in (
        apt.DownloadPackages((), WINDOW),
        apt.InstallPackages((), (), WINDOW),
        apt.SetKernelCommandLine(""),
    ):
        assert not isinstance(node.carry_out(command, NOW), FailedEvent)

    assert model.calls.possible == []


def test_a_kernel_command_line_needs_a_reboot_until_the_kernel_runs_with_it() -> None:
    model, node = apt_node()
    command = apt.SetKernelCommandLine("debug")

    assert isinstance(node.carry_out(command, NOW), apt.KernelCommandLineUpdated)
    assert isinstance(node.carry_out(command, NOW), apt.KernelCommandLineUpdated)
    model.come_up(1)

    assert isinstance(node.carry_out(command, NOW), apt.KernelCommandLineCurrent)


def test_a_kernel_command_line_that_the_kernel_does_not_run_with_is_a_change() -> None:
    _, node = apt_node()

    event = node.carry_out(apt.ComparePackages((("libc", "1"),), "debug", False), NOW)

    assert isinstance(event, apt.ChangesFound)
    (entry,) = event.update_log
    assert entry.update_type is UpdateType.CONFIGURATION


def test_what_was_installed_must_still_be_there_after_the_reboot() -> None:
    _, node = apt_node(packages={"libc": "1", "vim": "9"}, kernel_started_with="quiet")
    log = changes((("libc", "0"),), (("libc", "1"), ("vim", "9")), NOW)
    configuration = UpdateLogEntry(package_name="x", update_time=NOW, update_type=UpdateType.CONFIGURATION)

    verified = node.carry_out(apt.VerifyUpdate(apt.PackageTarget(), (), (*log, configuration)), NOW)
    older = node.carry_out(apt.VerifyUpdate(apt.PackageTarget(), (), (evolve(log[0], version="2"),)), NOW)
    gone = node.carry_out(apt.VerifyUpdate(apt.PackageTarget(), (), (evolve(log[0], package_name="curl"),)), NOW)
    other = node.carry_out(apt.VerifyUpdate(apt.PackageTarget(kernel_command_line="debug"), (), ()), NOW)

    assert verified == apt.UpdateVerified(NOW)
    assert isinstance(older, apt.VerificationFailed)
    assert older.failure.log == "libc: found 1 after the reboot, 2 was installed"
    assert isinstance(gone, apt.VerificationFailed)
    assert "found nothing after the reboot" in gone.failure.log
    assert isinstance(other, apt.VerificationFailed)
    assert other.failure.log == "the kernel runs without debug, its command line is 'quiet quiet'"


def test_a_failure_before_anything_was_recorded_changed_nothing_that_is_known() -> None:
    _, node = apt_node()

    assert node.carry_out(apt.RecordFailure(()), NOW) == apt.FailureRecorded(NOW, (), "")


def test_a_command_of_the_other_kind_of_node_is_no_command() -> None:
    _, immutable = ab_node()
    _, mutable = apt_node()

    with pytest.raises(TypeError, match="not a command of the immutable flow"):
        immutable.carry_out(apt.RebootNode(), NOW)
    with pytest.raises(TypeError, match="not a command of the mutable flow"):
        mutable.carry_out(ab.RebootIntoTrial(), NOW)


def test_a_failure_says_when_it_happened_and_why() -> None:
    error = NodeFailure(FailureReason.SIGNATURE_CHECK, "gpg: no key")
    later = NOW + timedelta(minutes=1)
    _, node = ab_node(calls=Calls(PlannedFault(2, Fault.FAILS)))

    event = node.carry_out(ab.PrefetchImage(NEW), later)

    assert str(error) == "signaturecheck: gpg: no key"
    assert isinstance(event, ab.FetchFailed)
    assert (event.failure.at, event.failure.reason) == (later, FailureReason.DOWNLOAD_FAIL)


@pytest.mark.parametrize("command", [command for command, _ in AB_COMMANDS + APT_COMMANDS], ids=repr)
def test_what_is_told_to_stop_has_no_outcome(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    def stop(*_: object) -> None:
        raise Interrupted

    immutable = command in [one for one, _ in AB_COMMANDS]
    monkeypatch.setattr(ImmutableNode if immutable else MutableNode, "_carry_out", stop)
    _, node = ab_node() if immutable else apt_node()

    assert node.carry_out(command, NOW) is None
