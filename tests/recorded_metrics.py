"""Metrics that are kept, for tests: each call is checked against the table of the port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from edge_day2.ports.metrics import METRICS, TENANT_LABEL, MetricKind


class RecordedMetrics:
    """A `Metrics` that remembers, and refuses what isn't declared.

    `counts` is what was counted by name and labels (sorted pairs), `values` what was recorded by name.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.values: dict[str, list[float]] = {}
        self.refused: list[str] = []
        """Calls that the table doesn't allow."""

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """See `Metrics.count`."""
        self._check(name, labels, MetricKind.COUNTER)
        self.counts[name, tuple(sorted(labels.items()))] += by

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """See `Metrics.record`."""
        self._check(name, labels, MetricKind.HISTOGRAM, MetricKind.GAUGE)
        self.values.setdefault(name, []).append(value)

    def counted(self, name: str, **labels: str) -> int:
        """Return how much was counted under `name` with these labels among its own."""
        wanted = labels.items()
        return sum(by for (found, pairs), by in self.counts.items() if found == name and wanted <= dict(pairs).items())

    def _check(self, name: str, labels: Mapping[str, str], *kinds: MetricKind) -> None:
        metric = METRICS.get(name)
        if metric is None or metric.kind not in kinds or set(metric.labels) != labels.keys() - {TENANT_LABEL}:
            self.refused.append(f"{name} {dict(labels)}")
