"""Port: whoever starts the agent's process, and starts it again when it dies or hangs."""

from __future__ import annotations

from typing import Protocol


class ServiceManagerPort(Protocol):
    """What a service tells its manager. Nothing here ever fails: the agent goes on without a manager."""

    def ready(self) -> None:
        """Say that the service has begun its work."""
        ...

    def alive(self, seconds: float) -> None:
        """Say that the process lives, and is heard of again within `seconds`. If it isn't, it may be killed."""
        ...

    def status(self, text: str) -> None:
        """Say in one sentence what the service does."""
        ...

    def stopping(self) -> None:
        """Say that the service ends."""
        ...
