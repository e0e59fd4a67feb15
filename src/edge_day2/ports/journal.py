"""Port: the agent's memory, which outlives crashes, power cuts and the OS itself."""

from __future__ import annotations

from typing import Protocol

from edge_day2.domain.agent import AgentRecord


class Journal(Protocol):
    """One record, replaced as a whole. It lies where both slots can read it."""

    def load(self) -> AgentRecord | None:
        """Return what was stored last, None where nothing ever was.

        Raises:
            UnreadableState: what is there is torn or foreign; it is kept aside for inspection.
            NewerFormat: a newer agent wrote it; it is left alone.
            OSError: it can't be read now; nothing is known of what it holds.
        """
        ...

    def store(self, record: AgentRecord) -> None:
        """Replace the record. Atomic and durable: a power cut finds the old one or the new one.

        Raises:
            OSError: it couldn't be stored; the old record stands.
        """
        ...
