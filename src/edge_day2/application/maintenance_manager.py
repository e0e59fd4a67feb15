"""The Maintenance Manager: answers reports, records their outcome, and notices nodes that went silent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from attrs import evolve, frozen

from edge_day2.application.tenant_rounds import TenantRound, each_tenant
from edge_day2.domain.maintenance import MaintenancePlan, MaintenancePolicy, ReportContext, mark_lost, plan_maintenance
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse
from edge_day2.domain.resources import Instance, OSResource, record_cves
from edge_day2.errors import AlreadyExists, Conflict, NotFound, RequestError, Unavailable
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory, UnitOfWork

_log: Final = logging.getLogger(__name__)

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
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        clock: Clock,
        policy: MaintenancePolicy = MaintenancePolicy(),  # noqa: B008  # frozen
    ) -> None:
        self._inventory = inventory
        self._clock = clock
        self._policy = policy

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
        with self._inventory.reading() as unit:
            context = unit.report_context(tenant, request.host_guid)
        plan = plan_maintenance(request, context, self._clock.now(), self._policy)
        if plan.instance is None and plan.run is None:
            return plan.response
        return self._store(request, tenant, context)

    def answer_each(self, reports: Iterable[Report]) -> list[PlatformUpdateStatusResponse | RequestError]:
        """Answer several reports as `platform_update_status` does, each on its own; return the answer or refusal.

        All are read in one transaction, which is cheaper; each that changes something is stored in one of its own.

        Raises:
            StorageError: the Inventory can't be read; nothing was recorded.
        """
        reports = list(reports)
        now = self._clock.now()
        with self._inventory.reading() as unit:
            contexts = _contexts(unit, reports)
        answers: list[PlatformUpdateStatusResponse | RequestError | ReportContext | None] = []
        changing: set[tuple[str, str]] = set()
        for report in reports:
            host = (report.tenant, report.request.host_guid.lower())
            # What was read doesn't count any more for a host of which something is to be stored first.
            answer = None if host in changing else self._unchanged(report, contexts[report.tenant], now)
            answers.append(answer)
            if answer is None or isinstance(answer, ReportContext):
                changing.add(host)
        return [
            self._refusable(report, answer) if answer is None or isinstance(answer, ReportContext) else answer
            for report, answer in zip(reports, answers, strict=True)
        ]

    def _unchanged(
        self, report: Report, contexts: Mapping[str, ReportContext], now: datetime
    ) -> PlatformUpdateStatusResponse | RequestError | ReportContext:
        """Return the answer to a report that changes nothing, or its refusal; else the context in which it does."""
        guid = report.request.host_guid
        context = contexts.get(guid)
        if context is None:
            return NotFound(f"tenant {report.tenant!r} has no host with GUID {guid!r}")
        try:
            plan = plan_maintenance(report.request, context, now, self._policy)
        except RequestError as error:
            return error
        return plan.response if plan.instance is None and plan.run is None else context

    def _refusable(self, report: Report, context: ReportContext | None) -> PlatformUpdateStatusResponse | RequestError:
        try:
            return self._store(report.request, report.tenant, context)
        except RequestError as error:
            return error

    def _store(
        self, request: PlatformUpdateStatusRequest, tenant: str, context: ReportContext | None
    ) -> PlatformUpdateStatusResponse:
        """Store what a report changes; `context`, if any, was read in an earlier transaction."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._inventory.writing() as unit:
                    now = self._clock.now() + (attempt - 1) * _TICK
                    if context is not None and attempt == 1:
                        plan = plan_maintenance(request, context, now, self._policy)
                        # Everything that writes of a host's updates writes its instance. So where the instance is
                        # replaced, which compares it, what was read still stands; else it is read again.
                        if plan.instance is not None:
                            return self._carry_out(unit, plan, context, now)
                    return self._apply(unit, request, tenant, now)
            except (Conflict, AlreadyExists):
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def platform_update_statuses(self, reports: Iterable[Report]) -> list[PlatformUpdateStatusResponse | RequestError]:
        """Record several reports in one transaction; return an answer, or why it was refused, for each in order.

        Raises:
            Conflict: somebody else's transaction was in the way; nothing was recorded, repeat.
            StorageError: the Inventory failed; nothing was recorded.
        """
        reports = list(reports)
        answers: list[PlatformUpdateStatusResponse | RequestError] = []
        with self._inventory.writing() as unit:
            contexts = _contexts(unit, reports)
            heard: set[tuple[str, str]] = set()
            for report in reports:
                host, now = (report.tenant, report.request.host_guid.lower()), self._clock.now()
                context = contexts[report.tenant].get(report.request.host_guid)
                try:
                    if context is None or host in heard:
                        answers.append(self._apply(unit, report.request, report.tenant, now))
                    else:
                        heard.add(host)
                        plan = plan_maintenance(report.request, context, now, self._policy)
                        answers.append(self._carry_out(unit, plan, context, now))
                except (Conflict, Unavailable):
                    raise
                except RequestError as error:
                    answers.append(error)
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
                    lost, lost_run = mark_lost(instance, run, now)
                    unit.replace(instance, lost)
                    if run is not None and lost_run is not None:
                        unit.replace(run, lost_run)
            except (Conflict, NotFound):
                # It was heard of, or removed, in this very moment.
                continue
            recorded.append(lost)
        return tuple(recorded)

    def find_lost_everywhere(self) -> TenantRound[tuple[Instance, ...]]:
        """Call `find_lost` for every tenant that no other process is doing this for; return what came of each.

        Raises:
            StorageError: the tenants can't be read.
        """
        return each_tenant(self._inventory, "find lost", None, self.find_lost)

    def _apply(
        self, unit: UnitOfWork, request: PlatformUpdateStatusRequest, tenant: str, now: datetime
    ) -> PlatformUpdateStatusResponse:
        context = unit.report_context(tenant, request.host_guid)
        return self._carry_out(unit, plan_maintenance(request, context, now, self._policy), context, now)

    def _carry_out(
        self, unit: UnitOfWork, plan: MaintenancePlan, context: ReportContext, now: datetime
    ) -> PlatformUpdateStatusResponse:
        for problem in plan.problems:
            _log.warning("%s", problem)
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
                    unit.replace(last, evolve(last, update=plan.amendment, end_time=now))
        return plan.response


def _contexts(unit: UnitOfWork, reports: Iterable[Report]) -> dict[str, Mapping[str, ReportContext]]:
    """Return the context of each report whose host exists, by its tenant and its host's GUID as it was given."""
    guids: dict[str, set[str]] = {}
    for report in reports:
        guids.setdefault(report.tenant, set()).add(report.request.host_guid)
    return {tenant: unit.report_contexts(tenant, hosts) for tenant, hosts in guids.items()}
