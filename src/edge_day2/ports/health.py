"""Port: is the node well?"""

from __future__ import annotations

from typing import Protocol


class HealthPort(Protocol):
    """Checks that decide about commit or rollback."""

    def check(self) -> None:
        """Return when the node is well; retries and deadlines are the adapter's.

        Raises:
            NodeFailure: it isn't; `reason` is CRITICAL_SERVICES as a rule.
        """
        ...
