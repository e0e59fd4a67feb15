"""Port: a node as a flow sees it. It can be observed, and it carries out commands."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from edge_day2.domain.flow import Command, Event
from edge_day2.domain.messages import NodeDescription
from edge_day2.domain.observation import Observation
from edge_day2.domain.resources import OSType


class NodePort(Protocol):
    """What `ImmutableNode` and `MutableNode` of the application are to the agent."""

    @property
    def os_type(self) -> OSType:
        """The kind of OS that the node runs."""
        ...

    def observe(self, at: datetime) -> Observation:
        """Return what is true on the node now.

        Raises:
            NodeFailure: the node can't be observed; nothing may be done to it before it can.
        """
        ...

    def describe(self) -> NodeDescription:
        """Return what every report says of the node besides its status.

        Never raises: what can't be told is left empty. Costs up to seconds; callers keep the answer for a while.
        """
        ...

    def carry_out(self, command: Command, at: datetime) -> Event | None:
        """Do what `command` says and return the outcome, None where the process is about to end (a reboot, a stop).

        Never raises: whatever goes wrong is an event.
        """
        ...
