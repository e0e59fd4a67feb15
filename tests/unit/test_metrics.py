"""What is measured: as declared, with labels of few values, and without harm to anybody."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from edge_day2.adapters.opentelemetry_metrics import OpenTelemetryMetrics
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.maintenance_manager import MaintenanceManager, Report
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateSchedule, UpdateStatus
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import FailureReason, UpdateStatusType
from edge_day2.errors import Conflict, NotFound, StorageError
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.metrics import (
    AGENT_BEGUN,
    AGENT_ENDED,
    AGENT_OUTBOX,
    AGENT_REPORTS,
    BATCH_SIZE,
    INSTANCES_LINKED,
    METRICS,
    NODES_LOST,
    OS_RESOURCES_WRITTEN,
    RECONCILE_DURATION,
    RECONCILES,
    REPORT_DURATION,
    REPORT_REPEATS,
    REPORTS,
    HarmlessMetrics,
    MetricKind,
)
from edge_day2.testing.agent_bench import NOW, AgentBench, edge, ubuntu
from edge_day2.testing.model_nodes import ModelABNode
from orchestrator import install, manager
from recorded_metrics import RecordedMetrics
from report_fleet import EDGE, TENANT, UBUNTU, Fleet

S = UpdateStatusType
NOBODY = "00000000-0000-0000-0000-0000000000ff"


@pytest.fixture
def metrics() -> Iterator[RecordedMetrics]:
    recorded = RecordedMetrics()
    yield recorded
    assert recorded.refused == []


@pytest.fixture
def fleet(metrics: RecordedMetrics) -> Iterator[Fleet]:
    with open_inventory("memory://") as inventory:
        yield Fleet(inventory, metrics)


def request(guid: str, kind: UpdateStatusType) -> PlatformUpdateStatusRequest:
    return PlatformUpdateStatusRequest(host_guid=guid, update_status=UpdateStatus(status_type=kind))


def test_reports_are_counted_by_what_became_of_them(fleet: Fleet, metrics: RecordedMetrics) -> None:
    for _ in range(3):
        fleet.report(EDGE, S.STARTED)
    with pytest.raises(NotFound):
        fleet.report(NOBODY, S.FAILED)
    fleet.inventory.failures = [StorageError("disk full")]
    with pytest.raises(StorageError):
        fleet.report(EDGE, S.FAILED)

    assert metrics.counted(REPORTS, status_type="started", outcome="recorded") == 1
    assert metrics.counted(REPORTS, status_type="started", outcome="unchanged") == 2
    assert metrics.counted(REPORTS, status_type="failed", outcome="not_found") == 1
    assert metrics.counted(REPORTS, status_type="failed", outcome="unavailable") == 1
    assert len(metrics.values[REPORT_DURATION]) == 5
    assert all(0 <= seconds < 600 for seconds in metrics.values[REPORT_DURATION])


def test_a_mistake_in_the_inventory_is_counted_as_an_error(fleet: Fleet, metrics: RecordedMetrics) -> None:
    fleet.inventory.failures = [ZeroDivisionError()]

    with pytest.raises(ZeroDivisionError):
        fleet.report(EDGE, S.STARTED)

    assert metrics.counted(REPORTS, outcome="error") == 1


def test_repeats_after_a_conflict_are_counted(fleet: Fleet, metrics: RecordedMetrics) -> None:
    fleet.inventory.failures = [Conflict("in the way")] * 3

    fleet.report(EDGE, S.STARTED)

    assert metrics.counted(REPORT_REPEATS) == 3
    assert metrics.counted(REPORTS, outcome="recorded") == 1


def test_lost_nodes_are_counted_once(fleet: Fleet, metrics: RecordedMetrics) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.report(UBUNTU, S.STARTED)
    fleet.clock.later(hours=2)
    for _ in range(2):
        fleet.manager.find_lost(TENANT)

    assert metrics.counted(NODES_LOST) == 2


@pytest.mark.parametrize("call", ["answer_each", "platform_update_statuses"])
def test_reports_of_a_batch_are_counted_one_by_one(fleet: Fleet, metrics: RecordedMetrics, call: str) -> None:
    fleet.report(UBUNTU, S.UP_TO_DATE)
    reports = [
        Report(tenant=TENANT, request=one)
        for one in (request(EDGE, S.STARTED), request(NOBODY, S.STARTED), request(UBUNTU, S.UP_TO_DATE))
    ]
    metrics.counts.clear()

    getattr(fleet.manager, call)(reports)

    found = [(dict(labels)["status_type"], dict(labels)["outcome"], by) for (_, labels), by in metrics.counts.items()]
    assert sorted(found) == [("started", "not_found", 1), ("started", "recorded", 1), ("up_to_date", "unchanged", 1)]
    assert metrics.values[BATCH_SIZE] == [3]


def test_a_batch_that_is_not_stored_counts_nothing(fleet: Fleet, metrics: RecordedMetrics) -> None:
    fleet.inventory.failures = [Conflict("in the way")]

    with pytest.raises(Conflict):
        fleet.manager.platform_update_statuses([Report(tenant=TENANT, request=request(EDGE, S.STARTED))])

    assert not metrics.counts


def test_only_the_tenants_that_a_deployment_names_are_said(fleet: Fleet, metrics: RecordedMetrics) -> None:
    named = MaintenanceManager(fleet.inventory, clock=fleet.clock, metrics=metrics, named_tenants=[TENANT])
    fleet.report(EDGE, S.STARTED)
    assert metrics.counted(REPORTS, tenant_id=TENANT) == 0

    named.platform_update_status(request(UBUNTU, S.STARTED), tenant=TENANT)

    assert metrics.counted(REPORTS, tenant_id=TENANT) == 1


def test_no_label_has_a_value_for_each_node(fleet: Fleet, metrics: RecordedMetrics) -> None:
    fleet.report(EDGE, S.STARTED)
    with pytest.raises(NotFound):
        fleet.report(NOBODY, S.STARTED)

    values = {value for _, labels in metrics.counts for _, value in labels}
    assert values == {"started", "recorded", "not_found"}


def test_runs_of_linking_are_measured(metrics: RecordedMetrics) -> None:
    with open_inventory("memory://") as inventory:
        report = manager(inventory, revision="0.9.0", metrics=metrics).reconcile("tenant")
        install(inventory, 3)
        automatic = manager(inventory, metrics=metrics, mode=LinkingMode.AUTOMATIC, named_tenants=["tenant"])
        newer = automatic.reconcile("tenant")

    written = len(report.created) + len(newer.created)
    assert metrics.counted(OS_RESOURCES_WRITTEN, change="created") == written > len(report.created)
    assert metrics.counted(INSTANCES_LINKED, tenant_id="tenant") == 3
    assert metrics.counted(RECONCILES, mode="manual", outcome="done") == 1
    assert metrics.counted(RECONCILES, mode="automatic", outcome="done", tenant_id="tenant") == 1
    assert len(metrics.values[RECONCILE_DURATION]) == 2


def test_a_run_that_fails_is_measured(metrics: RecordedMetrics) -> None:
    with open_inventory("memory://") as inventory, pytest.raises(NotFound):
        manager(inventory, metrics=metrics, revision="9.9.9").reconcile("tenant")

    assert metrics.counted(RECONCILES, outcome="not_found") == 1
    assert len(metrics.values[RECONCILE_DURATION]) == 1


def test_an_agents_updates_and_reports_are_measured(metrics: RecordedMetrics) -> None:
    bench = AgentBench(edge(), metrics=metrics)
    bench.link.unreachable = {3}
    bench.run()
    for _ in range(2):
        bench.reported()

    assert metrics.counted(AGENT_BEGUN, attempt="first") == metrics.counted(AGENT_ENDED, outcome="updated") == 1
    assert metrics.counted(AGENT_REPORTS, outcome="delivered") == len(bench.link.heard)
    assert metrics.counted(AGENT_REPORTS, outcome="unavailable") == 1
    assert max(metrics.values[AGENT_OUTBOX]) > metrics.values[AGENT_OUTBOX][-1] == 0


def test_another_try_of_what_failed_is_a_retry(metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NodeFailure(FailureReason.DOWNLOAD_FAIL, "no")

    monkeypatch.setattr(ModelABNode, "write", fail)
    bench = AgentBench(edge(), metrics=metrics)
    for _ in range(3):
        bench.run()
        bench.clock.later(timedelta(minutes=15))

    assert metrics.counted(AGENT_BEGUN, attempt="first") == 1
    assert metrics.counted(AGENT_BEGUN, attempt="retry") == metrics.counted(AGENT_ENDED, outcome="failed") - 1 > 0


def test_the_same_target_again_after_a_success_is_no_retry(metrics: RecordedMetrics) -> None:
    forever = UpdateSchedule(single_schedule=SingleSchedule(NOW - timedelta(hours=1)))
    bench = AgentBench(ubuntu(schedule=forever), metrics=metrics)
    for _ in range(2):
        bench.run()
        bench.reported()
        bench.clock.later(timedelta(days=2))

    assert metrics.counted(AGENT_BEGUN, attempt="first") == metrics.counted(AGENT_BEGUN) > 1


class Broken:
    """Metrics of somebody else that fail."""

    calls = 0

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        self.calls += 1
        raise RuntimeError("no collector")

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.calls += 1
        raise RuntimeError("no collector")


def test_metrics_that_fail_harm_no_report_and_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    with open_inventory("memory://") as inventory, caplog.at_level(logging.ERROR):
        fleet = Fleet(inventory, broken)
        fleet.report(EDGE, S.STARTED)
        fleet.report(EDGE, S.STARTED)
        manager(inventory, metrics=Broken()).reconcile("tenant")
        bench = AgentBench(edge(), metrics=Broken())
        bench.run()

    assert broken.calls == 4
    assert bench.state == "updated"
    lost = [record.getMessage() for record in caplog.records]
    # One for each actor, and the agent was started again by its reboot.
    assert lost == ["metrics are lost, which is said once: Broken"] * 4


def test_metrics_that_fail_in_several_threads_at_once_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    harmless, together = HarmlessMetrics(Broken()), threading.Barrier(4)

    def count() -> None:
        together.wait(60)
        harmless.count(REPORTS, {})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(caplog.records) == 1


def test_what_is_declared_is_in_opentelemetrys_style_and_has_few_labels() -> None:
    for name, metric in METRICS.items():
        assert name == metric.name
        assert name.startswith("edge_day2.")
        assert metric.unit == "s" or (metric.unit[0], metric.unit[-1]) == ("{", "}")
        assert set(metric.labels) <= {"status_type", "outcome", "mode", "change", "reason", "code", "attempt"}
        assert metric.meaning.endswith(".")


def test_opentelemetry_gets_every_metric_with_unit_and_meaning() -> None:
    reader = InMemoryMetricReader()
    with_provider = MeterProvider(metric_readers=[reader])
    metrics = OpenTelemetryMetrics(with_provider)
    for name, metric in METRICS.items():
        labels = dict.fromkeys(metric.labels, "word")
        if metric.kind is MetricKind.COUNTER:
            metrics.count(name, labels, 2)
            metrics.count(name, labels)
        else:
            metrics.record(name, 2.5, labels)

    data = reader.get_metrics_data()
    with_provider.shutdown()
    assert data is not None
    found: dict[str, Any] = {
        one.name: one for resource in data.resource_metrics for scope in resource.scope_metrics for one in scope.metrics
    }

    assert {name: (one.unit, one.description) for name, one in found.items()} == {
        name: (metric.unit, metric.meaning) for name, metric in METRICS.items()
    }
    (reports,) = found[REPORTS].data.data_points
    assert (reports.value, dict(reports.attributes)) == (3, {"status_type": "word", "outcome": "word"})
    (outbox,) = found[AGENT_OUTBOX].data.data_points
    assert outbox.value == 2.5
    (duration,) = found[REPORT_DURATION].data.data_points
    assert (duration.sum, duration.count, duration.explicit_bounds[0]) == (2.5, 1, 0.001)


def test_opentelemetry_without_a_provider_drops_what_it_is_told() -> None:
    OpenTelemetryMetrics().count(REPORTS, {"status_type": "started", "outcome": "recorded"})


def test_opentelemetry_that_is_not_installed_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from edge_day2.adapters.opentelemetry_metrics import OpenTelemetryMetrics\n"
        "from edge_day2.errors import MissingExtra\n"
        "try: OpenTelemetryMetrics()\n"
        "except MissingExtra as error: print(error.extra)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "opentelemetry\n"
