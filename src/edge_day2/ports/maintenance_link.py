"""Port: the way from an agent to its Maintenance Manager."""

from __future__ import annotations

from typing import Protocol

from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse


class MaintenanceLink(Protocol):
    """One call at a time, each with a deadline of the adapter's."""

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        """Deliver a report and return the answer.

        Raises:
            RequestError: the report wasn't taken (Unavailable: it may have been, and may be sent again).
        """
        ...
