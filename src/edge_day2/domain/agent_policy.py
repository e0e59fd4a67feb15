"""Limits and choices of an agent, which whoever runs it may set."""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime, timedelta

from attrs import fields, frozen

from edge_day2.domain.node_windows import DOWNLOAD_SPREAD, ClockRules
from edge_day2.domain.resources import KERNEL_COMMAND_LINE
from edge_day2.errors import InvalidValue


class WindowClose(enum.Enum):
    """What happens to an update whose window closes between two steps."""

    PAUSE = "pause, and go on in the next window"
    FAIL = "fail, as the original does"


@frozen(kw_only=True)
class AgentPolicy:
    """Limits and choices of an agent.

    Attributes:
        window_close: what a closing window does to a running update.
        kernel_command_line: the characters that a kernel command line may have.
        trial_boots: how many trial boots may fall back without proof of why before the image counts as bad. The first
            may have been a power cut, which the node can't tell from an image that doesn't boot.
        interruptions: how many trial boots of one image may be ended by power cuts.
        retries: how many failures before the trial boot are tried again.
        rollback_pause: how long a mutable node that failed `trial_boots` times in a row, and was rolled back the last
            time, waits for its repositories to bring something else.
        retry_after: distance to the first retry; it doubles with each, up to `retry_at_most`.
        prefetch: over how long before the window the fleet's downloads ahead of it are spread.
        salt: another one deals the moments of these downloads anew.
        time_to_update: a window that stays open for less isn't used to begin an update or to go on with one.
        time_to_reboot: what is left of the window at the reboot must be enough for it and the verification.
        daily: in a window that never closes, how often a mutable node looks for upgrades.
        describe_every: how long the agent keeps what the node says of itself (available updates) while nothing changes.
        clock: when the node's clock is believed.

    Raises:
        InvalidValue: a number or a time is below zero, or `trial_boots` is zero.
    """

    window_close: WindowClose = WindowClose.PAUSE
    kernel_command_line: re.Pattern[str] = KERNEL_COMMAND_LINE
    trial_boots: int = 2
    interruptions: int = 3
    retries: int = 10
    rollback_pause: timedelta = timedelta(days=7)
    retry_after: timedelta = timedelta(minutes=10)
    retry_at_most: timedelta = timedelta(days=1)
    prefetch: timedelta = DOWNLOAD_SPREAD
    salt: str = ""
    time_to_update: timedelta = timedelta(0)
    time_to_reboot: timedelta = timedelta(0)
    daily: timedelta = timedelta(days=1)
    describe_every: timedelta = timedelta(hours=1)
    clock: ClockRules = ClockRules(earliest=datetime(2026, 1, 1, tzinfo=UTC))

    def __attrs_post_init__(self) -> None:
        if self.trial_boots < 1:
            raise InvalidValue("AgentPolicy.trial_boots", self.trial_boots, "a number from 1")
        for one in fields(AgentPolicy):
            value = getattr(self, one.name)
            if (isinstance(value, int) and value < 0) or (isinstance(value, timedelta) and value < timedelta(0)):
                raise InvalidValue(f"AgentPolicy.{one.name}", value, "nothing below zero")

    @property
    def time_needed(self) -> timedelta:
        """What must be left of a window to begin in it: an update that can't reboot would start over and over."""
        return max(self.time_to_update, self.time_to_reboot)
