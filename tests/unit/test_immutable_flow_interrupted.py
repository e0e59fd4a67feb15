"""An immutable update whose window closes, or whose target changes or vanishes, at any point of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2.domain import immutable_events as ev
from edge_day2.domain.flow import Event, TargetWithdrawn, WindowClosed, WindowOpened, WindowTimedOut
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_events import ImmutableTarget
from edge_day2.domain.observation import BootEntry, Observation
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import FailureReason, UpdateStatusType
from edge_day2.testing.flow_walks import (
    AB_ARMING,
    AB_CHECKING,
    AB_CLEARING,
    AB_COMMITTING,
    AB_DOWNLOADING,
    AB_INSTALLING,
    AB_REBOOTING,
    AB_RESTORING_DEFAULT,
    AB_ROLLING_BACK,
    AB_SETTLING,
    AB_VERIFYING,
    NEW,
    NOW,
    SLOT_A,
    SLOT_B,
    WINDOW,
    ab_walk,
    failure,
)

NEWER = evolve(NEW, image_id="3.0.3", sha256="3" * 64)
TARGET = ImmutableTarget(image=NEW)
FAILED = UpdateStatusType.FAILED


def node(active: BootEntry = SLOT_A, boot_id: str = "first", **changes: Any) -> Observation:
    return Observation(at=NOW, boot_id=boot_id, active=active, **changes)


def test_an_image_downloaded_ahead_is_installed_when_the_window_opens() -> None:
    walk = ab_walk().on(ev.PrefetchDue(NOW))
    assert walk.command == ev.PrefetchImage(NEW)

    walk.on(ev.ImageFetched(NOW))
    assert walk.command is None
    walk.on(*AB_DOWNLOADING)

    assert walk.command == ev.DownloadImage(NEW, SLOT_B, WINDOW)
    assert walk.said == ["DOWNLOADING", "DOWNLOADED", "STARTED"]


def test_a_window_that_opens_during_the_download_ahead_does_not_wait_for_it() -> None:
    walk = ab_walk().on(ev.PrefetchDue(NOW), WindowOpened(NOW, WINDOW))

    assert walk.command == ev.CompareImages(TARGET)


def test_a_failed_download_ahead_is_told_and_waits() -> None:
    walk = ab_walk().on(ev.PrefetchDue(NOW), ev.FetchFailed(NOW, failure(FailureReason.DOWNLOAD_FAIL, "no route")))

    assert walk.state.name == "scheduled"
    assert walk.state.data.retries == 1
    assert walk.said == ["DOWNLOADING", "DOWNLOADING"]
    assert "no route" in walk.detail(UpdateStatusType.DOWNLOADING).message


BEFORE_ARMING = [AB_CLEARING, AB_DOWNLOADING, AB_INSTALLING]


@pytest.mark.parametrize("way", BEFORE_ARMING)
def test_a_window_that_closes_before_arming_pauses_until_the_next_one(way: tuple[Event, ...]) -> None:
    walk = ab_walk().on(*way, WindowClosed(NOW))
    assert walk.command is None
    assert "paused" in walk.detail(UpdateStatusType.STARTED).message

    later = Window(NOW + timedelta(days=1), NOW + timedelta(days=1, hours=2))
    walk.on(WindowOpened(NOW, later))

    assert walk.command == ev.CompareImages(TARGET)
    assert walk.state.data.window == later


@pytest.mark.parametrize("way", [AB_ARMING, AB_REBOOTING])
def test_a_window_that_closes_after_arming_disarms_before_it_pauses(way: tuple[Event, ...]) -> None:
    walk = ab_walk().on(*way, WindowClosed(NOW))
    assert walk.command == ev.RestoreDefault(SLOT_A)

    walk.on(ev.DefaultRestored(NOW, "first"))

    assert walk.state.name == "paused"
    assert "paused" in walk.detail(UpdateStatusType.STARTED).message


def test_an_update_that_cannot_be_disarmed_for_a_pause_fails() -> None:
    walk = ab_walk().on(*AB_REBOOTING, WindowClosed(NOW), ev.RestoreFailed(NOW, failure(FailureReason.BOOTLOADER_FAIL)))

    assert walk.command == ev.RestoreDefault(SLOT_A)
    assert walk.on(ev.DefaultRestored(NOW, "first")).state.name == "failed"
    assert walk.said.count("FAILED") == 1


@pytest.mark.parametrize("way", BEFORE_ARMING)
def test_a_window_that_closes_fails_the_update_where_the_policy_says_so(way: tuple[Event, ...]) -> None:
    walk = ab_walk().on(*way, WindowTimedOut(NOW))

    assert walk.state.name == "failed"
    assert walk.detail(FAILED).reasons == (FailureReason.WINDOW_CLOSED,)


@pytest.mark.parametrize("way", [AB_ARMING, AB_REBOOTING])
def test_a_window_that_closes_after_arming_disarms_before_it_fails(way: tuple[Event, ...]) -> None:
    walk = ab_walk().on(*way, WindowTimedOut(NOW))

    assert walk.command == ev.RestoreDefault(SLOT_A)
    assert walk.on(ev.DefaultRestored(NOW, "first")).state.name == "failed"


@pytest.mark.parametrize("way", [AB_VERIFYING, AB_COMMITTING, AB_RESTORING_DEFAULT, AB_ROLLING_BACK, AB_SETTLING])
def test_after_the_trial_boot_no_window_and_no_target_stops_the_flow(way: tuple[Event, ...]) -> None:
    accepted = IMMUTABLE_FLOW.accepts(ab_walk().on(*way).state)

    assert not {"window_closed", "window_timed_out", "target_changed", "target_withdrawn"} & set(accepted)


@pytest.mark.parametrize("way", [*BEFORE_ARMING, AB_CHECKING])
def test_a_target_that_changes_before_arming_starts_over(way: tuple[Event, ...]) -> None:
    walk = ab_walk().on(*way, ev.TargetChanged(NOW, ImmutableTarget(image=NEWER)))

    assert walk.command == ev.CompareImages(ImmutableTarget(image=NEWER))
    assert walk.said[-1] == "STARTED"


@pytest.mark.parametrize("way", [(), (ev.PrefetchDue(NOW),), (ev.PrefetchDue(NOW), ev.ImageFetched(NOW))])
def test_a_target_that_changes_before_the_window_is_not_reported(way: tuple[Event, ...]) -> None:
    walk = ab_walk().on(*way)
    said = list(walk.said)

    walk.on(ev.TargetChanged(NOW, ImmutableTarget(image=NEWER)))

    assert walk.state.name == "scheduled"
    assert walk.said == said
    assert walk.state.data.target.image == NEWER


def test_a_target_that_changes_right_before_the_reboot_stands_down_and_takes_the_new_one() -> None:
    walk = ab_walk().on(*AB_REBOOTING, ev.TargetChanged(NOW, ImmutableTarget(image=NEWER)))
    assert walk.command == ev.RestoreDefault(SLOT_A)

    walk.on(ev.DefaultRestored(NOW, "first"), WindowOpened(NOW, WINDOW))

    assert walk.command == ev.CompareImages(ImmutableTarget(image=NEWER))


def test_a_trial_that_boots_while_standing_down_is_finished_first() -> None:
    walk = ab_walk().on(*AB_REBOOTING, ev.TargetChanged(NOW, ImmutableTarget(image=NEWER)))

    walk.restarted(node(SLOT_B, "second"))

    assert walk.command == ev.VerifyTrial(TARGET, SLOT_B)
    assert walk.state.data.next_target is None


def test_a_target_that_changes_while_paused_is_taken_in_the_next_window() -> None:
    walk = ab_walk().on(*AB_INSTALLING, WindowClosed(NOW), ev.TargetChanged(NOW, ImmutableTarget(image=NEWER)))

    assert walk.command is None
    assert walk.on(WindowOpened(NOW, WINDOW)).command == ev.CompareImages(ImmutableTarget(image=NEWER))


@pytest.mark.parametrize("way", [*BEFORE_ARMING, AB_CHECKING, (*AB_INSTALLING, WindowClosed(NOW))])
def test_a_target_that_is_withdrawn_ends_the_update(way: tuple[Event, ...]) -> None:
    walk = ab_walk().on(*way, TargetWithdrawn(NOW))

    assert walk.state.name == "failed"
    assert walk.detail(FAILED).reasons == (FailureReason.WITHDRAWN,)


def test_a_target_that_is_withdrawn_right_before_the_reboot_disarms_first() -> None:
    walk = ab_walk().on(*AB_REBOOTING, TargetWithdrawn(NOW))

    assert walk.command == ev.RestoreDefault(SLOT_A)
    assert walk.on(ev.DefaultRestored(NOW, "first")).state.name == "failed"


def test_a_target_that_is_withdrawn_before_the_window_was_never_an_update() -> None:
    walk = ab_walk().on(ev.PrefetchDue(NOW), TargetWithdrawn(NOW))

    assert walk.state.name == "up_to_date"
    assert walk.state.data.target == ImmutableTarget()
    assert walk.said == ["DOWNLOADING", "UP_TO_DATE"]
