"""Writes docs/flows.md from the charts: a diagram and tables of each flow, so that the document can't lie.

Run: python -m edge_day2.testing.flow_diagrams docs/flows.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from edge_day2.domain.flow import Failure, Flow, FlowState
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.immutable_events import Image, ImmutableTarget
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate
from edge_day2.domain.mutable_events import PackageTarget, Snapshot
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import FailureReason

_HEAD: Final = """\
# The update flows

Generated from the charts by `make docs`; a test fails when this file is stale.

An update is a walk through one of the two diagrams below. A state is a pending command: the one thing that the agent
does next. Its outcome is an event, and the event leads to the next state. Where a state has no command, the update
waits for the outside (a window, a new target), or it has ended.

Nothing else decides about order. A diagram is the chart that the code runs, and the tables say what each state does
and what may come of it. The agent stores the state before it carries out the command, so after a crash it carries out
the same command again; every command is made so that this does no harm.

Some events can come at almost any time:

- `window_closed`: the window closed before the next thing that disturbs the node. The update pauses, and goes on in the
  next window. With the policy "fail" the event is `window_timed_out`, and the update fails.
- `target_changed`, `target_withdrawn`: the orchestrator wants something else, or nothing. Before the trial boot is
  armed the update starts over or ends; afterwards it stands down first.
- after a restart of the agent or of the node, what the node sees of itself becomes an event as well (`trial_booted`,
  `origin_booted`, `node_rebooted`, `packages_interrupted`).
"""

_INTRODUCTIONS: Final = {
    "immutable": """\
## A/B: a whole image at a time

The image goes to the slot that doesn't run. The node boots it once, on trial; a second boot would lead back. If the
trial is healthy it becomes the default, else the node goes back to where it came from and says so. A new kernel command
line alone takes the same way, with a second boot entry of the same slot instead of a second image.
""",
    "mutable": """\
## apt: package by package

The OS is patched in place. What is installed is recorded first, and the report in the end is the difference to it, so
that a crash in the middle loses nothing. A package database that was left in the middle of a change is repaired before
anything else. What is installed is what was planned and downloaded. If something changed, the node reboots, and the
result is verified afterwards. A node with snapshots takes one before it changes anything but its own agent, and goes
back to it where the verification fails.
""",
}

_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_IMAGE: Final = Image(profile_name="profile", image_id="1.0", sha256="0" * 64, url="image.raw.gz")
# Updates that have come far enough for any state to have a command.
_UPDATES: Final[dict[str, Any]] = {
    "immutable": ImmutableUpdate(
        target=ImmutableTarget(image=_IMAGE),
        window=Window(_AT, _AT + timedelta(hours=1)),
        origin=BootEntry(Slot.A),
        trial=BootEntry(Slot.B),
        failure=Failure(at=_AT, reason=FailureReason.UNSPECIFIED),
    ),
    "mutable": MutableUpdate(
        target=PackageTarget(),
        window=Window(_AT, _AT + timedelta(hours=1)),
        opened=_AT,
        snapshot=Snapshot(identifier="1", packages=""),
        failure=Failure(at=_AT, reason=FailureReason.UNSPECIFIED),
    ),
}


def flows_document() -> str:
    """Return the text of docs/flows.md."""
    return "\n".join([_HEAD, *(_section(flow) for flow in (IMMUTABLE_FLOW, MUTABLE_FLOW))])


def _section(flow: Flow[Any]) -> str:
    diagram = f"```mermaid\n{format(flow.chart, 'mermaid').strip()}\n```\n"
    states = "\n".join(["| state | command | then |", "| --- | --- | --- |", *_states(flow)])
    events = "\n".join(["| event | what happened |", "| --- | --- |", *_events(flow)])
    return "\n".join((_INTRODUCTIONS[flow.name], diagram, "### States\n", states, "\n### Events\n", f"{events}\n"))


def _states(flow: Flow[Any]) -> Iterator[str]:
    for name in flow.states:
        command = flow.command(FlowState(flow.name, name, _UPDATES[flow.name]))
        if command is not None:
            does = f"`{type(command).__name__}`: {_sentence(type(command))}"
        else:
            does = "has ended" if name in flow.final_states else "waits"
        leads = [f"`{event}` → {target}" for (state, event), target in flow.table.items() if state == name]
        yield f"| {name} | {does} | {'<br>'.join(leads)} |"


def _events(flow: Flow[Any]) -> Iterator[str]:
    for name, event in flow.events.items():
        yield f"| `{name}` | {_sentence(event)} |"


def _sentence(described: type) -> str:
    return " ".join((inspect.getdoc(described) or "").split()).replace("|", "\\|")


def main() -> None:
    """Write the document to the path of the first argument, or to the standard output."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(flows_document(), encoding="utf-8")
    else:
        sys.stdout.write(flows_document())


if __name__ == "__main__":
    main()
