"""The Maintenance Manager: answers reports, records their outcome, and notices nodes that went silent."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from attrs import frozen

from edge_day2.application.notice_log import log_notices
from edge_day2.application.tenant_rounds import TenantRound, each_tenant
from edge_day2.domain.maintenance import (
    MaintenancePlan,
    MaintenancePolicy,
    ReportContext,
    amend,
    lost_notice,
    mark_lost,
    plan_maintenance,
)
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse
from edge_day2.domain.resources import Host, Instance, OSResource, record_cves
from edge_day2.errors import AlreadyExists, Conflict, NotFound, RequestError, Unavailable, shown
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.ports.metrics import (
    BATCH_DURATION,
    BATCH_SIZE,
    NO_METRICS,
    NODES_LOST,
    REPORT_DURATION,
    REPORT_REPEATS,
    REPORTS,
    HarmlessMetrics,
    Metrics,
)

_log: Final = logging.getLogger(__name__)

_Answer: TypeAlias = PlatformUpdateStatusResponse | RequestError
_UNCHANGED: Final = "unchanged"
_RECORDED: Final = "recorded"
_ERROR: Final = "error"

# Two writers of one instance are rare; more than a few collisions in a row mean that something else is wrong.
_ATTEMPTS: Final = 5

# A run is named by the instant of its start: where the clock stood still between two of them, the second begins later.
_TICK: Final = timedelta(microseconds=1)


@frozen(kw_only=True)
class Report:
    """A report of a batch, and the tenant whose node sent it."""

    tenant: str
    request: PlatformUpdateStatusRequest


class MaintenanceManager:
    """Safe to use from several threads and processes on one Inventory.

    Args:
        inventory: where hosts, instances, schedules and runs are.
        clock: the server's time; a node's own is never recorded.
        policy: which schedules open windows, and when a silent node counts as lost.
        metrics: is told of every report, once it is stored or refused.
        named_tenants: tenants that metrics name.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        clock: Clock,
        policy: MaintenancePolicy = MaintenancePolicy(),  # noqa: B008  # frozen
        metrics: Metrics = NO_METRICS,
        named_tenants: Collection[str] = (),
    ) -> None:
        self._inventory = inventory
        self._clock = clock
        self._policy = policy
        self._metrics = HarmlessMetrics(metrics, named_tenants=named_tenants)

    def platform_update_status(
        self, request: PlatformUpdateStatusRequest, *, tenant: str
    ) -> PlatformUpdateStatusResponse:
        """Record one report and return the answer. Status, current OS and update run are stored together or not at all.

        A report that changes nothing costs one read and writes nothing.

        Raises:
            InvalidArgument: the report breaks a rule of the protocol.
            NotFound: the tenant has no such host, or nothing is installed on it.
            Unauthenticated: the host isn't trusted.
            FailedPrecondition: the instance isn't provisioned.
            Conflict, AlreadyExists: others wrote the same again and again; the node will say it again.
            StorageError: the Inventory failed; nothing was recorded, the node will say it again.
        """
        begun, outcome = time.perf_counter(), _ERROR
        try:
            with self._inventory.reading() as unit:
                context = unit.report_context(tenant, request.host_guid)
            plan = plan_maintenance(request, context, self._clock.now(), self._policy)
            if plan.instance is None and plan.run is None:
                log_notices(_log, plan.notices)
                outcome = _UNCHANGED
                return plan.response
            answer, outcome = self._store(request, tenant, context)
            return answer
        except RequestError as error:
            outcome = _kind(error)
            raise
        finally:
            self._measure(Report(tenant=tenant, request=request), outcome)
            labels = {"outcome": outcome, **self._metrics.tenant_label(tenant)}
            self._metrics.record(REPORT_DURATION, time.perf_counter() - begun, labels)

    def answer_each(self, reports: Iterable[Report]) -> list[_Answer]:
        """Answer several reports as `platform_update_status` does, each on its own; return the answer or refusal.

        All are read in one transaction, which is cheaper; each that changes something is stored in one of its own.

        Raises:
            StorageError: the Inventory can't be read; nothing was recorded.
        """
        begun, reports = time.perf_counter(), list(reports)
        now = self._clock.now()
        with self._inventory.reading() as unit:
            contexts = _contexts(unit, reports)
        answers: list[_Answer | ReportContext | None] = []
        changing: set[tuple[str, str]] = set()
        for report in reports:
            host = (report.tenant, report.request.host_guid.lower())
            # What was read doesn't count any more for a host of which something is to be stored first.
            answer = None if host in changing else self._unchanged(report, contexts[report.tenant], now)
            answers.append(answer)
            if answer is None or isinstance(answer, ReportContext):
                changing.add(host)
        answered = [
            self._refusable(report, answer) if answer is None or isinstance(answer, ReportContext) else answer
            for report, answer in zip(reports, answers, strict=True)
        ]
        self._measure_batch(len(reports), time.perf_counter() - begun)
        return answered

    def _unchanged(
        self, report: Report, contexts: Mapping[str, ReportContext], now: datetime
    ) -> _Answer | ReportContext:
        """Return the answer to a report that changes nothing, or its refusal; else the context in which it does."""
        guid = report.request.host_guid
        context = contexts.get(guid.lower())
        try:
            if context is None:
                raise NotFound(f"tenant {shown(report.tenant)} has no host with GUID {shown(guid)}")
            plan = plan_maintenance(report.request, context, now, self._policy)
        except RequestError as error:
            self._measure(report, _kind(error))
            return error
        if plan.instance is not None or plan.run is not None:
            return context
        log_notices(_log, plan.notices)
        self._measure(report, _UNCHANGED)
        return plan.response

    def _refusable(self, report: Report, context: ReportContext | None) -> _Answer:
        outcome = _ERROR
        try:
            answer, outcome = self._store(report.request, report.tenant, context)
            return answer
        except RequestError as error:
            outcome = _kind(error)
            return error
        finally:
            self._measure(report, outcome)

    def _store(
        self, request: PlatformUpdateStatusRequest, tenant: str, context: ReportContext | None
    ) -> tuple[PlatformUpdateStatusResponse, str]:
        """Store one report; return the answer, and whether something was recorded.

        `context`, if any, was read in an earlier transaction.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._inventory.writing() as unit:
                    known = context if attempt == 1 else None
                    plan = self._apply(unit, request, tenant, self._clock.now() + (attempt - 1) * _TICK, known)
            except (Conflict, AlreadyExists):
                if attempt == _ATTEMPTS:
                    raise
                self._metrics.count(REPORT_REPEATS, self._metrics.tenant_label(tenant))
            else:
                log_notices(_log, plan.notices)
                return plan.response, _outcome(plan)
        raise AssertionError

    def platform_update_statuses(self, reports: Iterable[Report]) -> list[_Answer]:
        """Record several reports in one transaction; return an answer, or why it was refused, for each in order.

        Raises:
            Conflict: somebody else's transaction was in the way; nothing was recorded, repeat.
            StorageError: the Inventory failed; nothing was recorded.
        """
        begun, reports = time.perf_counter(), list(reports)
        answers: list[_Answer] = []
        stored: list[tuple[Report, str]] = []
        plans: list[MaintenancePlan] = []
        with self._inventory.writing() as unit:
            contexts = _contexts(unit, reports)
            for report in reports:
                # Read in this transaction, it counts for the first report of a host.
                context = contexts[report.tenant].pop(report.request.host_guid.lower(), None)
                try:
                    plan = self._apply(unit, report.request, report.tenant, self._clock.now(), context)
                except (Conflict, Unavailable):
                    raise
                except RequestError as error:
                    answers.append(error)
                    stored.append((report, _kind(error)))
                else:
                    answers.append(plan.response)
                    stored.append((report, _outcome(plan)))
                    plans.append(plan)
        for plan in plans:
            log_notices(_log, plan.notices)
        for report, outcome in stored:
            self._measure(report, outcome)
        self._measure_batch(len(answers), time.perf_counter() - begun)
        return answers

    def find_lost(self, tenant: str) -> tuple[Instance, ...]:
        """Record as LOST every node of the tenant whose update is in progress and that was silent for too long.

        To be called periodically. Safe to run from several processes. Return the instances that were recorded.

        Raises:
            StorageError: the Inventory failed.
        """
        now = self._clock.now()
        with self._inventory.reading() as unit:
            silent = list(unit.unheard_since(tenant, now - self._policy.lost_after))
        recorded = []
        for instance in silent:
            try:
                with self._inventory.writing() as unit:
                    runs = unit.runs_of_instance(tenant, instance.resource_id)
                    run = next((run for run in runs if run.end_time is None), None)
                    host = unit.get(Host, tenant, instance.host_id)
                    lost, lost_run = mark_lost(instance, run, now)
                    unit.replace(instance, lost)
                    if run is not None and lost_run is not None:
                        unit.replace(run, lost_run)
            except (Conflict, NotFound):
                # It was heard of, or removed, in this very moment.
                continue
            recorded.append(lost)
            log_notices(_log, (lost_notice(lost, lost_run, host),))
            self._metrics.count(NODES_LOST, self._metrics.tenant_label(tenant))
        return tuple(recorded)

    def find_lost_everywhere(self) -> TenantRound[tuple[Instance, ...]]:
        """Call `find_lost` for every tenant that no other process is doing this for; return what came of each.

        Raises:
            StorageError: the tenants can't be read.
        """
        return each_tenant(self._inventory, "find lost", None, self.find_lost)

    def _measure(self, report: Report, outcome: str) -> None:
        kind = report.request.update_status.status_type.name.lower()
        labels = {"status_type": kind, "outcome": outcome, **self._metrics.tenant_label(report.tenant)}
        self._metrics.count(REPORTS, labels)

    def _measure_batch(self, size: int, seconds: float) -> None:
        self._metrics.record(BATCH_SIZE, size, {})
        self._metrics.record(BATCH_DURATION, seconds, {})

    def _apply(
        self,
        unit: UnitOfWork,
        request: PlatformUpdateStatusRequest,
        tenant: str,
        now: datetime,
        context: ReportContext | None,
    ) -> MaintenancePlan:
        """Store what a report changes; `context`, if any, may have been read in an earlier transaction."""
        plan = None if context is None else plan_maintenance(request, context, now, self._policy)
        # Everything that writes of a host's updates writes its instance. So where the instance is replaced, which
        # compares it, what was read still stands; else it is read again.
        if context is None or plan is None or plan.instance is None:
            context = unit.report_context(tenant, request.host_guid)
            plan = plan_maintenance(request, context, now, self._policy)
        # The run comes first: where it can't be added, a batch goes on with nothing recorded of this report.
        if plan.run is not None:
            if context.open_run is None:
                unit.add(plan.run)
            else:
                unit.replace(context.open_run, plan.run)
        if plan.instance is not None and context.instance is not None:
            changed = plan.instance
            if changed.current_os_id != context.instance.current_os_id:
                changed = record_cves(changed, unit.get(OSResource, changed.tenant_id, changed.current_os_id))
            unit.replace(context.instance, changed)
            if plan.amendment is not None:
                for last in unit.runs_of_instance(changed.tenant_id, changed.resource_id)[:1]:
                    unit.replace(last, amend(last, plan.amendment, now))
        return plan


def _outcome(plan: MaintenancePlan) -> str:
    return _UNCHANGED if plan.instance is None and plan.run is None else _RECORDED


def _kind(error: RequestError) -> str:
    return error.code.lower()


def _contexts(unit: UnitOfWork, reports: Iterable[Report]) -> dict[str, dict[str, ReportContext]]:
    """Return the context of each report whose host exists, by its tenant and its host's GUID in lower case."""
    guids: dict[str, set[str]] = {}
    for report in reports:
        guids.setdefault(report.tenant, set()).add(report.request.host_guid.lower())
    return {tenant: dict(unit.report_contexts(tenant, hosts)) for tenant, hosts in guids.items()}
