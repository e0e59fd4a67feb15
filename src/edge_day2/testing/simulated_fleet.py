"""A fleet of simulated nodes on one virtual clock. The same seed gives the same history, byte for byte."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from edge_day2.adapters.in_process_link import InProcessLink
from edge_day2.application.maintenance_manager import MaintenanceManager
from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.resources import Host, Instance, OSResource, OSType
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.fault_plan import FaultPlan
from edge_day2.testing.simulated_node import HistoryEvent, HistoryKind, SimulatedNode, VirtualClock

_LOOK_FOR_LOST_EVERY: Final = timedelta(minutes=15)


class SimulatedFleet:
    """Nodes that report to a Maintenance Manager, and what an orchestrator does to them at set times.

    Args:
        manager: answers the nodes; its clock must be `clock`.
        clock: the fleet's time; `run` sets it.
        faults: what goes wrong, and the seed.
        policy: the agents'.
        report_every: the distance of two signs of life of a node.
    """

    def __init__(
        self,
        manager: MaintenanceManager,
        clock: VirtualClock,
        *,
        faults: FaultPlan = FaultPlan(),  # noqa: B008  # frozen
        policy: AgentPolicy = AgentPolicy(),  # noqa: B008  # frozen
        report_every: timedelta = timedelta(minutes=30),
    ) -> None:
        self.nodes: dict[str, SimulatedNode] = {}
        self.history: list[HistoryEvent] = []
        self._manager = manager
        self._clock = clock
        self._faults = faults
        self._policy = policy
        self._report_every = report_every
        self._guids: dict[str, str] = {}
        self._tenants: set[str] = set()
        self._queue: list[tuple[datetime, int, Callable[[], datetime | None]]] = []
        self._entries = 0

    def add_tenant(
        self, inventory: Inventory, tenant: str, *, packages: Mapping[str, str], repository: dict[str, str]
    ) -> None:
        """Add a node for every instance of the tenant, running the instance's current OS.

        Args:
            inventory: where the instances are.
            tenant: whose.
            packages: what is installed on mutable nodes.
            repository: what the repositories of mutable nodes hold; may be changed later.
        """
        with inventory.reading() as unit:
            systems = {system.resource_id: system for system in unit.all(OSResource, tenant)}
            hosts = {host.resource_id: host for host in unit.all(Host, tenant)}
            instances = list(unit.all(Instance, tenant))
        for instance in instances:
            guid = hosts[instance.host_id].guid
            self._guids[instance.resource_id] = guid
            self._add_node(guid, tenant, systems[instance.current_os_id], packages, repository)
        if tenant not in self._tenants:
            self._tenants.add(tenant)
            self._push(self._clock.now(), lambda: self._look_for_lost(tenant))

    def _add_node(
        self, guid: str, tenant: str, current: OSResource, packages: Mapping[str, str], repository: dict[str, str]
    ) -> None:
        image = Image(
            profile_name=current.profile_name,
            profile_version=current.profile_version,
            image_id=current.image_id,
            sha256=current.sha256,
            url=current.image_url,
        )
        node = SimulatedNode(
            guid,
            link=InProcessLink(self._manager, tenant),
            clock=self._clock,
            image=image if current.os_type is OSType.IMMUTABLE else None,
            packages=packages,
            repository=repository,
            faults=self._faults,
            policy=self._policy,
            report_every=self._report_every,
            on_event=self.history.append,
        )
        self.nodes[guid] = node
        # Agents don't all start in the same second.
        phase = timedelta(seconds=int(guid.replace("-", ""), 16) % max(1, int(self._report_every.total_seconds())))
        self._push(self._clock.now() + phase, node.advance)

    def at(self, instant: datetime, text: str, action: Callable[[], None]) -> None:
        """Let the orchestrator do something at `instant`; `text` is its line in the history."""

        def act() -> None:
            action()
            self.history.append(HistoryEvent(at=instant, guid="", kind=HistoryKind.ORCHESTRATOR, text=text))

        self._push(instant, act)

    def run(self, until: datetime, on_progress: Callable[[datetime], None] = lambda now: None) -> None:
        """Let time pass until `until`, telling `on_progress` the time now and then."""
        for now in iter(self._next_due, None):
            if now >= until:
                break
            _, _, action = heapq.heappop(self._queue)
            self._clock.instant = now
            again = action()
            if again is not None:
                self._push(again, action)
            if self._entries % 256 == 0:
                on_progress(now)
        self._clock.instant = until
        on_progress(until)

    def history_bytes(self) -> bytes:
        """Return the history as text, one JSON array a line."""
        lines = (
            [event.at.isoformat(), event.guid, event.kind.value, event.text, event.detail] for event in self.history
        )
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    def _next_due(self) -> datetime | None:
        return self._queue[0][0] if self._queue else None

    def _push(self, at: datetime, action: Callable[[], datetime | None]) -> None:
        self._entries += 1
        heapq.heappush(self._queue, (at, self._entries, action))

    def _look_for_lost(self, tenant: str) -> datetime:
        for instance in self._manager.find_lost(tenant):
            event = HistoryEvent(
                at=self._clock.now(),
                guid=self._guids.get(instance.resource_id, ""),
                kind=HistoryKind.LOST,
                text=instance.resource_id,
                detail=instance.update.text,
            )
            self.history.append(event)
        return self._clock.now() + _LOOK_FOR_LOST_EVERY
