"""How the nodes of a fleet stand at the end, and the tables that tell it. Every node stands in exactly one way."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from attrs import frozen
from rich import box
from rich.console import Console
from rich.table import Table

from edge_day2 import Instance, OSResource, OSType
from edge_day2.domain.resources import OSUpdateRun
from edge_day2.domain.statuses import EntryStatus, InventoryStatus, UpdateRecord, parse_detail

# A date makes every reason one of its own: "window Mon 2026-03-09 01:00-04:00 UTC from region Europe".
_DATE: Final = re.compile(r" (?:since |until |from )?(?:[A-Z][a-z]{2} )?\d{4}-\d\d-\d\d.*?(?: UTC|(?= from )|$)")
_UNDER_WAY: Final = (InventoryStatus.UPDATE_IN_PROGRESS, InventoryStatus.DOWNLOADING, InventoryStatus.DOWNLOADED)


class Standing(enum.Enum):
    """How a node stands; the value is the column of the table."""

    UPDATED = "updated"
    CURRENT = "current"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    WAITING = "waiting"
    LOST = "lost"


@frozen(kw_only=True)
class Outcome:
    """How a node stands, what it runs, and why it isn't updated ("" where there is nothing to say)."""

    system: OSResource
    standing: Standing
    reason: str = ""


def outcome_of(
    instance: Instance, system: OSResource, runs: Sequence[OSUpdateRun], why: str, wanted: datetime | None
) -> Outcome:
    """Return how a node stands.

    Args:
        instance: the node's instance.
        system: what it runs.
        runs: its update runs, newest first. A node is updated when one of them was completed.
        why: the Inventory's sentence on why it is, or isn't, being updated.
        wanted: when something newer was last wanted of the node, None where nothing was.
    """
    standing, reason = _stands(instance, runs, why, wanted)
    return Outcome(system=system, standing=standing, reason=reason)


def _stands(instance: Instance, runs: Sequence[OSUpdateRun], why: str, wanted: datetime | None) -> tuple[Standing, str]:
    recorded = instance.update
    waiting = Standing.WAITING, _DATE.sub("", why).removeprefix("not updated: ")
    if recorded.status is InventoryStatus.LOST:
        return Standing.LOST, "silent since its update began"
    if recorded.status is InventoryStatus.FAILED:
        return failure_of(recorded)
    if recorded.status in _UNDER_WAY:
        detail = parse_detail(recorded.detail)
        return Standing.WAITING, (detail.message if detail is not None else "") or recorded.text.lower()
    if instance.current_os_id != instance.desired_os_id:
        return waiting
    if any(run.update.status is InventoryStatus.DONE for run in runs):
        return Standing.UPDATED, ""
    if instance.os_type is OSType.IMMUTABLE:
        return Standing.CURRENT, "a newer image is there, nobody linked it" if instance.os_update_available else ""
    looked = wanted is None or any(run.start_time >= wanted for run in runs)
    return (Standing.CURRENT, "") if looked else waiting


def failure_of(recorded: UpdateRecord) -> tuple[Standing, str]:
    """Return how a node stands whose last update failed, and the reason: the description's word and the node's."""
    detail = parse_detail(recorded.detail)
    entry = next(iter(reversed(detail.update_log)), None) if detail is not None else None
    if entry is None:
        return Standing.FAILED, "no reason given"
    coarse, fine = entry.failure_reason.summary, entry.failure_reason.value
    standing = Standing.ROLLED_BACK if entry.status is EntryStatus.ROLLED_BACK else Standing.FAILED
    return standing, coarse if fine in coarse.lower() else f"{coarse} ({fine})"


def standing_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a table of how many nodes stand how, per kind, profile and version."""
    table = Table(
        title="How the fleet stands at the end",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        show_footer=True,
        padding=0,
    )
    table.add_column("OS profile and\nversion that runs", footer="all", no_wrap=True)
    table.add_column("\nnodes", footer=str(len(outcomes)), justify="right", no_wrap=True)
    everything = _counts(outcomes)
    for standing, text in zip(Standing, everything, strict=True):
        label = standing.value.replace(" ", "\n")
        table.add_column(label if "\n" in label else f"\n{label}", footer=text, justify="right", no_wrap=True)
    for os_type in (OSType.IMMUTABLE, OSType.MUTABLE):
        of_type = [outcome for outcome in outcomes if outcome.system.os_type is os_type]
        if not of_type:
            continue
        table.add_section()
        table.add_row(os_type.name.lower(), str(len(of_type)), *_counts(of_type), style="bold")
        for profile in sorted({outcome.system.profile_name for outcome in of_type}):
            of_profile = [outcome for outcome in of_type if outcome.system.profile_name == profile]
            table.add_row(f" {profile}")
            versions = {outcome.system.image_version: outcome.system.image_id for outcome in of_profile}
            for version in sorted(versions):
                found = [outcome for outcome in of_profile if outcome.system.image_version == version]
                table.add_row(f"   {versions[version]}", str(len(found)), *_counts(found))
    return table


def _counts(outcomes: Iterable[Outcome]) -> list[str]:
    found = Counter(outcome.standing for outcome in outcomes)
    return [str(found[standing]) if found[standing] else "·" for standing in Standing]


def reason_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a table of the reasons why nodes aren't updated, and of how many nodes each is true."""
    table = Table(
        title="Why the others aren't updated",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    table.add_column("nodes", justify="right")
    table.add_column("stand", min_width=11)
    table.add_column("reason")
    found = Counter((outcome.standing, outcome.reason) for outcome in outcomes if outcome.reason)
    order = list(Standing)
    for (standing, reason), nodes in sorted(found.items(), key=lambda item: (order.index(item[0][0]), -item[1])):
        table.add_row(str(nodes), standing.value, reason)
    return table


def print_tables(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print how the nodes stand, and why."""
    console.print(standing_table(outcomes))
    if any(outcome.reason for outcome in outcomes):
        console.print()
        console.print(reason_table(outcomes))
    console.print()
