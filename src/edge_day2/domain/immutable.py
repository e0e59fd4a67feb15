"""The A/B flow: a whole new image goes to the inactive slot, is booted once on trial, then committed or rolled back.

Rules of this room:
- the chart below is the only place where order is decided;
- the running slot is never written; the default entry changes only after the trial booted and was verified;
- before the first byte goes to a slot, its one-shot and boot entry are cleared;
- from the trial boot on the window doesn't count any more: verify, commit and rollback always finish;
- after a restart the flow goes by the entry that really runs, never by what it meant to do.

The arrows are those of the description's "Immutable OS Update Flow". What a transition does to the data and what it
reports is in `immutable_effects.py`; events and commands are in `immutable_events.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve
from statemachine import State, StateMachine

from edge_day2.domain import immutable_events as ev
from edge_day2.domain.flow import (
    Command,
    Event,
    Failure,
    Flow,
    FlowState,
    TargetWithdrawn,
    WindowClosed,
    WindowOpened,
    WindowTimedOut,
    loops,
)
from edge_day2.domain.immutable_effects import EFFECTS, ImmutableUpdate
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import BootEntry, Observation, TrialEvidence
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import FailureReason

# Reboots into a default that the boot loader doesn't take: more would be a loop, fewer would give up on one power cut.
MAX_ROLLBACKS: Final = 3


class ImmutableChart(StateMachine):
    """States and transitions of an update of an immutable node."""

    scheduled = State(initial=True)
    prefetching = State()
    fetched = State()
    checking = State()
    clearing = State()
    downloading = State()
    installing = State()
    clearing_entry = State()
    staging_entry = State()
    arming = State()
    rebooting = State()
    standing_down = State()
    paused = State()
    disarming = State()
    verifying = State()
    committing = State()
    restoring_default = State()
    rolling_back = State()
    settling = State()
    up_to_date = State(final=True)
    updated = State(final=True)
    rolled_back = State(final=True)
    failed = State(final=True)

    prefetch_due = scheduled.to(prefetching)
    image_fetched = prefetching.to(fetched)
    fetch_failed = prefetching.to(scheduled)
    window_opened = checking.from_(scheduled, prefetching, fetched, paused)

    images_equal = checking.to(up_to_date)
    images_differ = checking.to(clearing)
    kernel_command_line_differs = checking.to(clearing_entry)
    trial_running = checking.to(restoring_default)
    comparison_failed = checking.to(failed)

    trial_cleared = clearing.to(downloading) | clearing_entry.to(staging_entry)
    clearing_failed = failed.from_(clearing, clearing_entry)
    image_downloaded = downloading.to(installing)
    download_failed = downloading.to(failed)
    image_installed = arming.from_(installing, staging_entry)
    installation_failed = failed.from_(installing, staging_entry)
    trial_armed = arming.to(rebooting)
    arming_failed = arming.to(disarming)
    reboot_failed = rebooting.to(disarming) | loops(rolling_back)

    trial_booted = verifying.from_(arming, rebooting, standing_down) | restoring_default.from_(
        disarming, rolling_back, settling
    )
    origin_booted = settling.from_(rebooting, verifying, committing, restoring_default, rolling_back)
    trial_healthy = verifying.to(committing)
    trial_unhealthy = verifying.to(restoring_default)
    trial_committed = committing.to(updated)
    commit_failed = committing.to(restoring_default)
    rollback_exhausted = failed.from_(rolling_back)

    default_restored = (
        restoring_default.to(rolling_back) | settling.to(rolled_back) | disarming.to(failed) | standing_down.to(paused)
    )
    restore_failed = loops(restoring_default, settling, disarming) | standing_down.to(disarming)

    _before_arming = (clearing, downloading, installing, clearing_entry, staging_entry)
    _before_window = (scheduled, prefetching, fetched)
    other_entry_booted = checking.from_(*_before_arming)
    window_closed = paused.from_(*_before_arming) | standing_down.from_(arming, rebooting)
    window_timed_out = failed.from_(*_before_arming) | disarming.from_(arming, rebooting)
    target_changed = (
        scheduled.from_(*_before_window)
        | checking.from_(checking, *_before_arming)
        | loops(paused)
        | standing_down.from_(rebooting)
    )
    target_withdrawn = (
        up_to_date.from_(*_before_window) | failed.from_(checking, *_before_arming, paused) | disarming.from_(rebooting)
    )


def _wanted_image(data: ImmutableUpdate) -> Image:
    assert data.target.image is not None
    return data.target.image


def _trial(data: ImmutableUpdate) -> BootEntry:
    assert data.trial is not None
    return data.trial


def _origin(data: ImmutableUpdate) -> BootEntry:
    assert data.origin is not None
    return data.origin


def _window(data: ImmutableUpdate) -> Window:
    assert data.window is not None
    return data.window


_REBOOT_INTO_TRIAL: Final = ev.RebootIntoTrial()
_REBOOT_INTO_ORIGIN: Final = ev.RebootIntoOrigin()

_COMMANDS: Final[dict[str, Callable[[ImmutableUpdate], Command | None]]] = {
    "prefetching": lambda data: ev.PrefetchImage(_wanted_image(data)),
    "checking": lambda data: ev.CompareImages(data.target),
    "clearing": lambda data: ev.ClearTrial(_origin(data), _trial(data)),
    "downloading": lambda data: ev.DownloadImage(_wanted_image(data), _trial(data), _window(data)),
    "installing": lambda data: ev.InstallImage(_wanted_image(data), _trial(data), data.target.kernel_command_line),
    "clearing_entry": lambda data: ev.ClearTrial(_origin(data), _trial(data)),
    "staging_entry": lambda data: ev.StageKernelCommandLine(_trial(data), data.target.kernel_command_line),
    "arming": lambda data: ev.ArmTrial(_trial(data)),
    "rebooting": lambda data: _REBOOT_INTO_TRIAL,
    "standing_down": lambda data: ev.RestoreDefault(_origin(data)),
    "disarming": lambda data: ev.RestoreDefault(_origin(data)),
    "verifying": lambda data: ev.VerifyTrial(data.target, _trial(data)),
    "committing": lambda data: ev.CommitTrial(_trial(data)),
    "restoring_default": lambda data: ev.RestoreDefault(_origin(data)),
    "rolling_back": lambda data: _REBOOT_INTO_ORIGIN,
    "settling": lambda data: ev.RestoreDefault(_origin(data)),
}

_BEFORE_ARMING: Final = frozenset({"clearing", "downloading", "installing", "clearing_entry", "staging_entry"})


def _fallback(seen: Observation) -> Failure:
    if seen.trial_evidence is TrialEvidence.POWER_CUT:
        log = "power was cut during the trial boot"
        return Failure(at=seen.at, reason=FailureReason.TRIAL_INTERRUPTED, log=log)
    log = f"the trial entry was to boot, but {seen.active} came up"
    conclusive = seen.trial_evidence is TrialEvidence.BAD_IMAGE
    return Failure(at=seen.at, reason=FailureReason.BOOTLOADER_FAIL, log=log, conclusive=conclusive)


def _interrupted(seen: Observation) -> Failure:
    log = "the node went down while the trial was being verified, and fell back"
    return Failure(at=seen.at, reason=FailureReason.TRIAL_INTERRUPTED, log=log)


def _observe(state: FlowState[ImmutableUpdate], seen: Observation) -> Event | None:
    data = state.data
    on_trial = seen.active == data.trial
    match state.name:
        case name if name in _BEFORE_ARMING:
            return ev.OtherEntryBooted(seen.at) if seen.active != data.origin else None
        case "arming" | "standing_down" | "disarming" | "settling":
            return ev.TrialBooted(seen.at, seen.boot_id) if on_trial else None
        case "rebooting" if seen.boot_id != data.boot_id:
            if on_trial:
                return ev.TrialBooted(seen.at, seen.boot_id)
            return ev.OriginBooted(seen.at, seen.boot_id, _fallback(seen))
        case "verifying" | "committing" if not on_trial:
            return ev.OriginBooted(seen.at, seen.boot_id, _interrupted(seen))
        case "restoring_default" | "rolling_back" if not on_trial:
            assert data.failure is not None
            return ev.OriginBooted(seen.at, seen.boot_id, data.failure)
        case "rolling_back" if seen.boot_id != data.boot_id:
            if data.rollbacks + 1 < MAX_ROLLBACKS:
                return ev.TrialBooted(seen.at, seen.boot_id)
            assert data.failure is not None
            log = f"{data.failure.log}; {MAX_ROLLBACKS} reboots didn't lead back to {data.origin}"
            return ev.RollbackExhausted(seen.at, seen.boot_id, evolve(data.failure, log=log))
        case _:
            return None


IMMUTABLE_FLOW: Final = Flow[ImmutableUpdate](
    name="immutable",
    chart=ImmutableChart,
    events=(
        WindowOpened, WindowClosed, WindowTimedOut, TargetWithdrawn, ev.TargetChanged, ev.PrefetchDue, ev.ImageFetched,
        ev.FetchFailed, ev.ImagesEqual, ev.ImagesDiffer, ev.KernelCommandLineDiffers, ev.TrialRunning,
        ev.ComparisonFailed, ev.TrialCleared, ev.ClearingFailed, ev.ImageDownloaded, ev.DownloadFailed,
        ev.ImageInstalled, ev.InstallationFailed, ev.TrialArmed, ev.ArmingFailed, ev.RebootFailed, ev.TrialBooted,
        ev.OriginBooted, ev.OtherEntryBooted, ev.TrialHealthy, ev.TrialUnhealthy, ev.TrialCommitted, ev.CommitFailed,
        ev.DefaultRestored, ev.RestoreFailed, ev.RollbackExhausted,
    ),
    effects=EFFECTS,
    commands=_COMMANDS,
    observe=_observe,
)  # fmt: skip
