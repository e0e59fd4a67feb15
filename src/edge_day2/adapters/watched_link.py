"""A link that remembers whether the Maintenance Manager has answered since this process started."""

from __future__ import annotations

import threading
from typing import Final

from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse
from edge_day2.errors import Unavailable
from edge_day2.ports.maintenance_link import MaintenanceLink

# Longer than a link takes with all its attempts: beyond it the call before this one hangs.
_LONGEST_CALL_SECONDS: Final = 300.0


class WatchedLink:
    """A `MaintenanceLink` around another one, whose calls are made one at a time.

    A process starts after its node has booted, so an answer proves that the OS that runs now can reach the Maintenance
    Manager.

    Args:
        link: does the work.
        longest_call_seconds: how long a call waits for the one before it.
    """

    def __init__(self, link: MaintenanceLink, *, longest_call_seconds: float = _LONGEST_CALL_SECONDS) -> None:
        self._link = link
        self._longest_call = longest_call_seconds
        self._one_at_a_time = threading.Lock()
        self._sent_last: PlatformUpdateStatusRequest | None = None
        self._answered = False

    @property
    def answered(self) -> bool:
        """Whether there has been an answer. A refusal is none: it may be meant for what the new OS says wrongly."""
        return self._answered

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        """See `MaintenanceLink.platform_update_status`.

        Raises:
            Unavailable: an earlier call doesn't end.
        """
        if not self._one_at_a_time.acquire(timeout=self._longest_call):
            raise Unavailable(f"an earlier report hasn't been answered or refused for {self._longest_call:g} seconds")
        try:
            self._sent_last = request
            answer = self._link.platform_update_status(request)
            self._answered = True
            return answer
        finally:
            self._one_at_a_time.release()

    def ask_again(self) -> None:
        """Send the last report once more and wait for an answer.

        The Maintenance Manager hears what it hears anyway: a report that isn't answered is sent until it is, and
        without news the last one is repeated. A double that follows its twin changes nothing there.

        Raises:
            RequestError: as for a report; Unavailable also where none has been sent since the start.
        """
        if self._sent_last is None:
            raise Unavailable("no report has been sent since the start")
        self.platform_update_status(self._sent_last)
