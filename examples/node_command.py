"""The command line of a node's agent: run it, or ask what it would do. What kind of node it is, the caller says."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from attrs import frozen

from edge_day2 import PlatformUpdateAgent
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.service_manager import SystemdServiceManager
from edge_day2.adapters.watched_link import WatchedLink
from edge_day2.application.agent_service import run
from edge_day2.domain.agent import AgentRecord
from edge_day2.domain.resources import OSType
from edge_day2.errors import AgentRunning, InvalidValue
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.health import HealthPort
from edge_day2.ports.journal import Journal
from edge_day2.ports.node import NodePort
from node_settings import NodeSettings, SettingsError, read_settings

# sysexits.h: the unit doesn't start the agent again for these.
EX_CONFIG: Final = 78
_FAILED: Final = 1
_S = TypeVar("_S", bound=NodeSettings)


@frozen(kw_only=True)
class Surroundings:
    """What a node is given besides its settings.

    Attributes:
        health: checks whether the node is well.
        stop: is set when the agent is to end; long steps look at it.
        progress: is called by long steps that get on.
    """

    health: HealthPort
    stop: threading.Event
    progress: Callable[[], None]


@frozen
class _ReadOnlyJournal:
    """Shows what is stored, and stores nothing."""

    journal: Journal

    def load(self) -> AgentRecord | None:
        """See `Journal.load`."""
        return self.journal.load()

    def store(self, record: AgentRecord) -> None:
        """Do nothing."""


def main(kind: type[_S], os_type: OSType, make_node: Callable[[_S, Surroundings], NodePort], description: str) -> int:
    """Do what the command line says; return the exit status."""
    options = _options(description)
    stop, manager = threading.Event(), SystemdServiceManager()
    try:
        settings = read_settings(options.config, kind)
        logging.basicConfig(level=settings.agent.log_level.name, format="%(levelname)s %(name)s: %(message)s")
        times, link = settings.times(), settings.maintenance_manager.link()
        watched = WatchedLink(link)
        surroundings = Surroundings(
            health=settings.health.checks(watched),
            stop=stop,
            progress=lambda: manager.alive(times.longest_command),
        )
        node, journal, policy = make_node(settings, surroundings), settings.journal(os_type), settings.policy.policy()
        if options.check_config:
            # Where the file doesn't say it, it is this machine's, and the settings may be another's.
            if settings.host_guid:
                settings.guid()
            print(f"{options.config}: good")
            return 0
        agent = PlatformUpdateAgent(
            host_guid=settings.guid(),
            node=node,
            journal=_ReadOnlyJournal(journal) if options.status else journal,
            link=watched,
            clock=SystemClock(),
            policy=policy,
        )
    except (SettingsError, InvalidValue) as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    try:
        if options.status:
            print(_status(agent, node))
            return 0
        with link, settings.lock():
            if options.forget_failure:
                agent.resume()
                agent.forget_failure()
                print(agent.explain())
                return 0
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            run(agent, stop=stop, service_manager=manager, times=times)
            return 0
    except (AgentRunning, NodeFailure, OSError) as error:
        print(error, file=sys.stderr)
        return _FAILED


def _status(agent: PlatformUpdateAgent, node: NodePort) -> str:
    agent.resume()
    record, seen = agent.record, node.observe(SystemClock().now())
    flow = record.flow
    lines = [
        agent.explain(),
        f"update        {flow.name if flow is not None else 'none yet'}",
        f"failure       {flow.data.failure.log}" if flow is not None and flow.data.failure is not None else "",
        f"reports       {len(record.outbox)} wait to be delivered",
        f"boot          {seen.boot_id}",
        f"runs          {seen.active}, default {seen.default}, next boot alone {seen.one_shot or 'none'}"
        if node.os_type is OSType.IMMUTABLE
        else f"packages      {seen.packages.value}",
    ]
    return "\n".join(line for line in lines if line)


def _options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, help="the settings, a TOML file")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check-config", action="store_true", help="say whether the settings can be used, and end")
    what.add_argument("--status", action="store_true", help="say what the agent does or waits for, and end")
    what.add_argument("--forget-failure", action="store_true", help="let a held back target be tried again, and end")
    return parser.parse_args()
