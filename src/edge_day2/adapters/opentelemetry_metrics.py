"""Metrics through OpenTelemetry: instruments made of the table of the port (extra `opentelemetry`).

Without an SDK OpenTelemetry drops everything; which one exports, and where to, is the deployment's business. The SDK
adds up in memory and exports in a thread of its own, so that nothing waits for a collector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from edge_day2.errors import MissingExtra
from edge_day2.ports.metrics import METRICS, MetricKind

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

_SCOPE: Final = "edge_day2"
# OpenTelemetry's own defaults are made for milliseconds. A report takes some of them, a run of linking minutes.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class OpenTelemetryMetrics:
    """A `Metrics` on a meter `edge_day2`.

    Args:
        provider: where the meter comes from; None: OpenTelemetry's global one.

    Raises:
        MissingExtra: opentelemetry-api isn't installed.
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        try:
            from opentelemetry.metrics import get_meter
        except ModuleNotFoundError as error:
            raise MissingExtra("opentelemetry-api", "opentelemetry") from error
        meter = get_meter(_SCOPE, meter_provider=provider)
        self._add: dict[str, Callable[[int, Mapping[str, str]], None]] = {}
        self._record: dict[str, Callable[[float, Mapping[str, str]], None]] = {}
        for name, metric in METRICS.items():
            match metric.kind:
                case MetricKind.COUNTER:
                    self._add[name] = meter.create_counter(name, metric.unit, metric.meaning).add
                case MetricKind.GAUGE:
                    self._record[name] = meter.create_gauge(name, metric.unit, metric.meaning).set
                case MetricKind.HISTOGRAM:
                    self._record[name] = meter.create_histogram(
                        name,
                        metric.unit,
                        metric.meaning,
                        explicit_bucket_boundaries_advisory=_SECONDS if metric.unit == "s" else _SIZES,
                    ).record

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """See `Metrics.count`."""
        self._add[name](by, labels)

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """See `Metrics.record`."""
        self._record[name](value, labels)
