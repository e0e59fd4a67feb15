"""Port: metrics, numbers that an operator's monitoring adds up. What is measured is declared here, in METRICS.

Names and units are in OpenTelemetry's style. Every label has few values: no metric says a host or an instance. A tenant
is said only where the deployment names it (`named_tenants`), in the label `tenant_id`.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from attrs import frozen

_log: Final = logging.getLogger(__name__)


class MetricKind(enum.Enum):
    """How the values of a metric add up: a COUNTER is a sum, a HISTOGRAM a distribution, of a GAUGE the last counts."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@frozen(kw_only=True)
class Metric:
    """One metric: what it is called, in which unit (UCUM, as OpenTelemetry wants it), what it means, and its labels."""

    name: str
    kind: MetricKind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


def _declared(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


def _counter(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, kind=MetricKind.COUNTER, unit=unit, meaning=meaning, labels=labels)


def _histogram(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, kind=MetricKind.HISTOGRAM, unit=unit, meaning=meaning, labels=labels)


def _gauge(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, kind=MetricKind.GAUGE, unit=unit, meaning=meaning, labels=labels)


REPORTS: Final = "edge_day2.reports"
REPORT_DURATION: Final = "edge_day2.report.duration"
REPORT_REPEATS: Final = "edge_day2.report.repeats"
BATCH_SIZE: Final = "edge_day2.report_batch.size"
BATCH_DURATION: Final = "edge_day2.report_batch.duration"
NODES_LOST: Final = "edge_day2.nodes.lost"
RECONCILES: Final = "edge_day2.reconciles"
RECONCILE_DURATION: Final = "edge_day2.reconcile.duration"
OS_RESOURCES_WRITTEN: Final = "edge_day2.reconcile.os_resources"
INSTANCES_LINKED: Final = "edge_day2.reconcile.instances.linked"
INSTANCES_SKIPPED: Final = "edge_day2.reconcile.instances.skipped"
IMAGE_CONFLICTS: Final = "edge_day2.reconcile.conflicts"
MANIFESTS_REJECTED: Final = "edge_day2.reconcile.rejected"
CALLS: Final = "edge_day2.server.calls"
CALLS_IN_WORK: Final = "edge_day2.server.reports_in_work"
AGENT_REPORTS: Final = "edge_day2.agent.reports"
AGENT_OUTBOX: Final = "edge_day2.agent.outbox.length"
AGENT_BEGUN: Final = "edge_day2.agent.updates.begun"
AGENT_ENDED: Final = "edge_day2.agent.updates.ended"

TENANT_LABEL: Final = "tenant_id"
"""The label that any metric of the Maintenance Manager and the OS Resource Manager may have beside its own."""

METRICS: Final = _declared(
    _counter(REPORTS, "{report}", "Reports that the Maintenance Manager was given.", "status_type", "outcome"),
    _histogram(REPORT_DURATION, "s", "How long a report took that was given alone.", "outcome"),
    _counter(REPORT_REPEATS, "{transaction}", "Transactions repeated because another one was in the way."),
    _histogram(BATCH_SIZE, "{report}", "How many reports were given at once."),
    _histogram(BATCH_DURATION, "s", "How long reports took that were given at once."),
    _counter(NODES_LOST, "{node}", "Nodes recorded as LOST."),
    _counter(RECONCILES, "{run}", "Runs of the OS Resource Manager for a tenant.", "mode", "outcome"),
    _histogram(RECONCILE_DURATION, "s", "How long a run took.", "mode", "outcome"),
    _counter(OS_RESOURCES_WRITTEN, "{resource}", "OS Resources that runs created or patched.", "change"),
    _counter(INSTANCES_LINKED, "{instance}", "Instances that were given another desired OS."),
    _counter(INSTANCES_SKIPPED, "{instance}", "Instances that kept their desired OS, counted in every run.", "reason"),
    _counter(IMAGE_CONFLICTS, "{conflict}", "Images whose content changed under a known version, in every run."),
    _counter(MANIFESTS_REJECTED, "{manifest}", "Manifests and files that couldn't be used, counted in every run."),
    _counter(CALLS, "{call}", "Calls that the gRPC server answered, by the name of their gRPC status.", "code"),
    _gauge(CALLS_IN_WORK, "{report}", "Reports that wait or are being answered in this server."),
    _counter(AGENT_REPORTS, "{report}", "Attempts of an agent to deliver a report.", "outcome"),
    _gauge(AGENT_OUTBOX, "{report}", "Reports of an agent that the Maintenance Manager hasn't answered yet."),
    _counter(AGENT_BEGUN, "{update}", "Updates that an agent began; a retry has the target that failed.", "attempt"),
    _counter(AGENT_ENDED, "{update}", "Updates of an agent that ended.", "outcome"),
)
"""Every metric, by its name."""


class Metrics(Protocol):
    """Takes the numbers. Called from several threads, for every report: it must be quick, and wait for nothing.

    An exception is said once and forgotten: no report fails for its metrics.
    """

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """Add `by` to the counter `name`."""
        ...

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add `value` to the histogram `name`, or set the gauge `name` to it; in the metric's unit."""
        ...


class _NoMetrics:
    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """See `Metrics.count`."""

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """See `Metrics.record`."""


NO_METRICS: Final[Metrics] = _NoMetrics()
"""Measures nothing."""


class HarmlessMetrics:
    """Around a `Metrics` of somebody else's: what it raises is said once, and harms nobody.

    Args:
        metrics: does the work.
        named_tenants: the tenants that `tenant_label` names.
    """

    def __init__(self, metrics: Metrics, *, named_tenants: Collection[str] = ()) -> None:
        self._metrics = metrics
        self._named = frozenset(named_tenants)
        self._said = False
        self._saying = threading.Lock()

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        """See `Metrics.count`."""
        try:
            self._metrics.count(name, labels, by)
        except Exception:
            self._say_once()

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """See `Metrics.record`."""
        try:
            self._metrics.record(name, value, labels)
        except Exception:
            self._say_once()

    def tenant_label(self, tenant_id: str) -> dict[str, str]:
        """Return the label that names the tenant, or none."""
        return {TENANT_LABEL: tenant_id} if tenant_id in self._named else {}

    def _say_once(self) -> None:
        with self._saying:
            said, self._said = self._said, True
        if not said:
            _log.exception("metrics are lost, which is said once: %s", type(self._metrics).__name__)
