"""What the gRPC server measures of its calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import InvalidArgument, NotFound, Unauthenticated
from edge_day2.ports.metrics import CALLS, CALLS_IN_WORK
from recorded_metrics import RecordedMetrics
from wire_server import IDLE, bearer, channel_of, says, serving, unary


def test_calls_are_counted_by_their_status(tmp_path: Path) -> None:
    metrics = RecordedMetrics()
    with serving(tmp_path, metrics=metrics) as server:
        with server.link() as link:
            for _ in range(2):
                link.platform_update_status(IDLE)
            with pytest.raises(NotFound):
                link.platform_update_status(says(UpdateStatusType.UP_TO_DATE, 1000))
        with server.link(token="none") as stranger, pytest.raises(Unauthenticated):
            stranger.platform_update_status(IDLE)
        with channel_of(server) as opened, pytest.raises(Exception, match="INVALID_ARGUMENT"):
            unary(opened)(b"\xff", metadata=bearer(server), timeout=60)

    assert {code: metrics.counted(CALLS, code=code) for code in _CODES} == _CODES
    assert metrics.values[CALLS_IN_WORK][-1] == 0
    assert max(metrics.values[CALLS_IN_WORK]) >= 1
    assert metrics.refused == []


_CODES = {"OK": 2, "NOT_FOUND": 1, "UNAUTHENTICATED": 1, InvalidArgument.code: 1}
