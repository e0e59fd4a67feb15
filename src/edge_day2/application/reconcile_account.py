"""What a run of the OS Resource Manager tells metrics and the log, made of its report once it has ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from edge_day2.application.reconcile_report import ReconcileReport
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.resources import os_resource_id
from edge_day2.errors import RequestError, shown
from edge_day2.ports.metrics import (
    IMAGE_CONFLICTS,
    INSTANCES_LINKED,
    INSTANCES_SKIPPED,
    MANIFESTS_REJECTED,
    OS_RESOURCES_WRITTEN,
    RECONCILE_DURATION,
    RECONCILES,
    HarmlessMetrics,
)

_log: Final = logging.getLogger(__name__)


class ReconcileAccount:
    """Measures and logs the runs of one OS Resource Manager."""

    def __init__(self, metrics: HarmlessMetrics, mode: LinkingMode) -> None:
        self._metrics = metrics
        self._mode = mode.name.lower()

    def of(self, tenant_id: str, run: Callable[[], ReconcileReport]) -> ReconcileReport:
        """Carry out a run for the tenant and account for it; return its report, or raise what it raises."""
        begun, outcome = time.perf_counter(), "error"
        tenant = self._metrics.tenant_label(tenant_id)
        try:
            report = run()
            outcome = "done"
        except RequestError as error:
            outcome = error.code.lower()
            fields = log_fields(event="reconcile_failed", tenant_id=tenant_id, code=error.code)
            _log.warning("tenant %s isn't reconciled: %s", shown(tenant_id), error, extra=fields)
            raise
        finally:
            labels = {"mode": self._mode, "outcome": outcome, **tenant}
            self._metrics.count(RECONCILES, labels)
            self._metrics.record(RECONCILE_DURATION, time.perf_counter() - begun, labels)
        self._count(report, tenant)
        _say(report)
        return report

    def _count(self, report: ReconcileReport, tenant: dict[str, str]) -> None:
        for name, labels, by in (
            (OS_RESOURCES_WRITTEN, {"change": "created"}, len(report.created)),
            (OS_RESOURCES_WRITTEN, {"change": "patched"}, len(report.patched)),
            (INSTANCES_LINKED, {}, report.linked_instances),
            (IMAGE_CONFLICTS, {}, len(report.conflicts)),
            (MANIFESTS_REJECTED, {}, len(report.rejected)),
            *((INSTANCES_SKIPPED, {"reason": reason.name.lower()}, count) for reason, count in report.skipped),
        ):
            if by:
                self._metrics.count(name, {**labels, **tenant}, by)


def _say(report: ReconcileReport) -> None:
    tenant = report.tenant_id
    for event, found in (("os_resource_created", report.created), ("os_resource_patched", report.patched)):
        for resource_id in found:
            fields = log_fields(event=event, tenant_id=tenant, os_resource_id=resource_id)
            _log.info("tenant %s: OS Resource %s %s", tenant, resource_id, event.rpartition("_")[2], extra=fields)
    for resource_id, count in report.linked:
        fields = log_fields(event="instances_linked", tenant_id=tenant, os_resource_id=resource_id)
        _log.info("tenant %s: %d instances were linked to %s", tenant, count, resource_id, extra=fields)
    for conflict in report.conflicts:
        resource_id = os_resource_id(tenant, conflict.profile_name, conflict.image_id)
        fields = log_fields(event="image_conflict", tenant_id=tenant, os_resource_id=resource_id)
        _log.warning("tenant %s: %s", tenant, conflict, extra=fields)
