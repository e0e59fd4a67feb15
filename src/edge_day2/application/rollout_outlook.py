"""What a rollout means for one host: read from one transaction, explained by `domain/rollout_explanation.py`."""

from __future__ import annotations

from datetime import datetime

from edge_day2.application.rollout_linking import count
from edge_day2.domain.maintenance import ReportContext
from edge_day2.domain.resources import OSResource, OSType, Site
from edge_day2.domain.rollout import Rollout, uncounted
from edge_day2.domain.rollout_explanation import RolloutExplanation, explain_rollout
from edge_day2.domain.rollout_progress import PlacesInFlight, covers, latest_rollout
from edge_day2.ports.inventory import UnitOfWork


def rollout_outlook(unit: UnitOfWork, context: ReportContext, now: datetime) -> RolloutExplanation | None:
    """Return what the latest rollout that is about the host's OS means for the host; None where there is none."""
    instance, current = context.instance, context.current_os
    if instance is None or current is None or current.os_type is not OSType.IMMUTABLE:
        return None
    found = [rollout for rollout in unit.all(Rollout, context.host.tenant_id) if covers(rollout, current)]
    rollout = latest_rollout(found)
    if rollout is None:
        return None
    policy, places, region_id = rollout.policy, PlacesInFlight(sites={}, regions={}), None
    if context.host.site_id is not None:
        region_id = unit.get(Site, rollout.tenant_id, context.host.site_id).region_id
    if policy.max_per_site is not None or policy.max_per_region is not None:
        places = unit.places_in_flight(rollout)
    return explain_rollout(
        rollout,
        # Counting costs a look at every instance; of a rollout that is over there is nothing to count.
        count(unit, rollout).counts if rollout.state.is_open else uncounted(rollout),
        context,
        target=unit.get(OSResource, rollout.tenant_id, rollout.target_os_id),
        region_id=region_id,
        places=places,
        now=now,
    )
