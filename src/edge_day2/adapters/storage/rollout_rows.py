"""A rollout's policy as the JSON text of one column: it is read and written as a whole, and nothing is searched by it.

Durations are whole microseconds. A blackout is `[start, end]` in microseconds since 1970 (end may be null), or the five
cron fields, duration in seconds and time zone of a repeated schedule.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from edge_day2.domain.rollout import RolloutPolicy
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, SingleSchedule

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PLAIN: Final = (
    "settled_share", "max_in_flight", "max_per_site", "max_per_region", "max_failed", "max_failed_share",
)  # fmt: skip
_CRON: Final = ("minutes", "hours", "day_month", "month", "day_week", "duration_seconds", "time_zone")


def encode_policy(policy: RolloutPolicy) -> str:
    """Return the policy as a column holds it."""
    document = {
        "waves": policy.waves,
        "soak": policy.soak // _MICROSECOND,
        "jitter": policy.jitter // _MICROSECOND,
        **{name: getattr(policy, name) for name in _PLAIN},
        "blackouts": [_encode_schedule(schedule) for schedule in policy.blackouts],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def decode_policy(text: str) -> RolloutPolicy:
    """Return the policy that a column holds.

    Raises:
        ValueError, KeyError, TypeError, InvalidValue: no version of this library has written it.
    """
    document: dict[str, Any] = json.loads(text)
    return RolloutPolicy(
        waves=tuple(document["waves"]),
        soak=document["soak"] * _MICROSECOND,
        jitter=document["jitter"] * _MICROSECOND,
        **{name: document[name] for name in _PLAIN},
        blackouts=tuple(_decode_schedule(fields) for fields in document["blackouts"]),
    )


def _encode_schedule(schedule: Schedule) -> list[object]:
    if isinstance(schedule, SingleSchedule):
        end = None if schedule.end is None else (schedule.end - _EPOCH) // _MICROSECOND
        return [(schedule.start - _EPOCH) // _MICROSECOND, end]
    return [getattr(schedule, name) for name in _CRON]


def _decode_schedule(fields: Sequence[Any]) -> Schedule:
    if len(fields) == len(_CRON):
        return RepeatedSchedule(**dict(zip(_CRON, fields, strict=True)))
    start, end = fields
    return SingleSchedule(_EPOCH + start * _MICROSECOND, None if end is None else _EPOCH + end * _MICROSECOND)
