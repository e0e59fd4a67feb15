"""How many sequences of calls a stateful test makes, and that they are the same ones in every run."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings


def sequences(count: int) -> settings:
    """Return settings for `count` sequences, or as many new ones as EDGE_DAY2_EXAMPLES says."""
    wanted = os.environ.get("EDGE_DAY2_EXAMPLES")
    return settings(
        max_examples=count if wanted is None else int(wanted),
        stateful_step_count=30,
        derandomize=wanted is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Shortening a sequence of calls takes minutes: ask for it (EDGE_DAY2_EXAMPLES) where one has been found.
        phases=(Phase.generate,),
    )
