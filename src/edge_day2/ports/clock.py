"""Port: the time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """Return the present instant, aware. It may be wrong: a node's clock can stand at 1970 until NTP has run."""
        ...
