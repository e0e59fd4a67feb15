"""Log records: what an operator reads once, with the ids under their stable names, and without a secret."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import edge_day2
from edge_day2 import OSResource
from edge_day2.adapters.grpc.answers import Answers
from edge_day2.adapters.grpc.conversion import encode_request
from edge_day2.adapters.grpc.tokens import Caller
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.notice_log import NOTICE_LEVELS
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.log_fields import LOG_FIELDS, log_fields
from edge_day2.domain.maintenance_notices import NoticeKind
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    StatusDetail,
    UpdateLogEntry,
    UpdateStatusType,
)
from edge_day2.errors import Conflict, NotFound
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.agent_bench import AgentBench, edge
from edge_day2.testing.model_nodes import ModelABNode
from orchestrator import EDGE as EDGE_PROFILE
from orchestrator import NEW_EDGE, OLD_EDGE, change, install, manager, os_id
from report_fleet import EDGE, NOW, TENANT, Fleet
from vm.node_bench import states
from wire_server import says

S = UpdateStatusType
GUID = "12345678-1234-1234-1234-123456789abc"
NEW = {"profile_name": "edge", "os_image_id": "3.0.2"}


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "edge_day2")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with open_inventory("memory://") as inventory:
        yield Fleet(inventory)


def fields(record: logging.LogRecord) -> dict[str, str]:
    return {name: value for name, value in record.__dict__.items() if name in LOG_FIELDS}


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, fields(record).get("event", "")) for record in caplog.records]


def failed(status: EntryStatus) -> str:
    entry = UpdateLogEntry(
        package_name="os",
        update_time=NOW,
        status=status,
        failure_reason=FailureReason.CRITICAL_SERVICES,
        failure_log="the kiosk\ndidn't start",
    )
    return StatusDetail(update_log=(entry,)).to_json()


def test_an_update_is_told_from_its_beginning_to_its_end_with_all_ids(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in (S.DOWNLOADING, S.DOWNLOADED, S.STARTED, S.STARTED, S.UPDATED, S.UPDATED, S.UP_TO_DATE, S.UP_TO_DATE):
        words = NEW if kind in (S.UPDATED, S.UP_TO_DATE) else {}
        fleet.report(EDGE, kind, **words)
        fleet.clock.later(minutes=1)

    (run,) = fleet.runs(EDGE)
    ids = {
        "tenant_id": TENANT,
        "host_guid": EDGE,
        "host_id": "host-edge-node-of-a-long-name",
        "instance_id": "instance-edge-node-of-a-long-name",
        "os_resource_id": "os-2",
        "update_run_id": run.resource_id,
    }
    assert [fields(record) for record in caplog.records] == [
        {"event": "update_began", "status_type": "DOWNLOADING", **ids},
        {k: v for k, v in {"event": "update_done", "status_type": "UPDATED", **ids}.items() if k != "os_resource_id"},
        {"event": "current_os_recorded", "status_type": "UPDATED", "image_id": "3.0.2", **ids},
    ]
    assert caplog.messages == [
        f"instance {ids['instance_id']} on host {EDGE}: {text}"
        for text in (
            "an update to edge 3.0.2 (3.0.2) began",
            "the update is done: Update completed",
            "current OS is os-2 (image '3.0.2'), it was os-1",
        )
    ]


@pytest.mark.parametrize(
    ("status", "event", "text"),
    [
        (EntryStatus.FAILED, "update_failed", "the update failed: criticalservices: "),
        (EntryStatus.ROLLED_BACK, "update_rolled_back", "the update failed and was rolled back: criticalservices: "),
    ],
)
def test_a_failure_is_told_with_its_reason_on_one_line(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, status: EntryStatus, event: str, text: str
) -> None:
    fleet.report(EDGE, S.STARTED)
    for _ in range(2):
        fleet.report(EDGE, S.FAILED, status_detail=failed(status))

    assert events(caplog) == [("INFO", "update_began"), ("WARNING", event)]
    assert fields(caplog.records[1])["failure_reason"] == "criticalservices"
    assert text + repr("the kiosk\ndidn't start") in caplog.messages[1]


def test_a_node_that_is_lost_and_comes_back_is_told_once_each(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.clock.later(hours=2)
    for _ in range(2):
        fleet.manager.find_lost(TENANT)
    for _ in range(2):
        fleet.report(EDGE, S.STARTED)

    assert events(caplog) == [("INFO", "update_began"), ("WARNING", "update_lost"), ("INFO", "came_back")]
    lost = fields(caplog.records[1])
    (run,) = fleet.runs(EDGE)
    assert (lost["host_guid"], lost["update_run_id"]) == (EDGE, run.resource_id)


def test_what_is_repeated_after_a_conflict_is_told_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.inventory.failures = [Conflict("in the way")] * 3

    fleet.report(EDGE, S.STARTED)

    assert events(caplog) == [("INFO", "update_began")]


def test_what_is_not_stored_is_not_told(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.inventory.failures = [Conflict("in the way")] * 5

    with pytest.raises(Conflict):
        fleet.report(EDGE, S.STARTED)

    assert events(caplog) == []


def test_a_late_report_is_told_to_those_who_look_for_it(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.report(EDGE, S.UPDATED, **NEW)
    caplog.clear()

    fleet.report(EDGE, S.STARTED, profile_name="edge", os_image_id="3.0.1")

    assert events(caplog) == [("DEBUG", "late_report")]


def test_a_run_of_linking_tells_what_it_did_and_what_it_found(caplog: pytest.LogCaptureFixture) -> None:
    with open_inventory("memory://") as inventory:
        created = manager(inventory, revision="0.9.0").reconcile("tenant").created
        install(inventory, 2)
        told = [fields(record) for record in caplog.records]
        assert {said["os_resource_id"] for said in told if said["event"] == "os_resource_created"} == set(created)
        caplog.clear()
        change(inventory, OSResource, os_id(EDGE_PROFILE, OLD_EDGE), sha256="f" * 64)

        manager(inventory, revision="0.9.0").reconcile("tenant")
        manager(inventory, mode=LinkingMode.AUTOMATIC).reconcile("tenant")

    conflict = next(record for record in caplog.records if fields(record)["event"] == "image_conflict")
    assert (conflict.levelname, fields(conflict)) == (
        "WARNING",
        {"event": "image_conflict", "tenant_id": "tenant", "os_resource_id": os_id(EDGE_PROFILE, OLD_EDGE)},
    )
    linked = [fields(record) for record in caplog.records if fields(record)["event"] == "instances_linked"]
    assert linked == [
        {"event": "instances_linked", "tenant_id": "tenant", "os_resource_id": os_id(EDGE_PROFILE, NEW_EDGE)}
    ]


def test_a_run_of_linking_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with open_inventory("memory://") as inventory, pytest.raises(NotFound):
        manager(inventory, revision="9.9.9").reconcile("tenant")

    (record,) = caplog.records
    assert fields(record) == {"event": "reconcile_failed", "tenant_id": "tenant", "code": "NOT_FOUND"}


def test_a_refused_call_is_told_with_host_and_code(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    request = says(S.STARTED, 99)

    Answers(fleet.manager).answer([(Caller(tenant=TENANT), encode_request(request))])

    (record,) = caplog.records
    assert fields(record) == {
        "tenant_id": TENANT,
        "host_guid": request.host_guid,
        "status_type": "STARTED",
        "code": "NOT_FOUND",
    }


def test_an_agent_tells_its_updates_with_its_guid(caplog: pytest.LogCaptureFixture) -> None:
    bench = AgentBench(edge())
    bench.run()
    bench.reported()

    assert {fields(record)["host_guid"] for record in caplog.records} == {GUID}
    told = [event for _, event in events(caplog) if event]
    assert told == ["update_began", "update_done"]
    assert f"{GUID}: an update to image '3.0.2' begins" in caplog.messages


def test_an_agent_tells_why_an_update_failed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NodeFailure(FailureReason.DOWNLOAD_FAIL, "no route\nto host")

    monkeypatch.setattr(ModelABNode, "write", fail)
    bench = AgentBench(edge())
    bench.run()

    assert events(caplog)[-1] == ("WARNING", "update_failed")
    assert fields(caplog.records[-1])["failure_reason"] == "download"
    assert "\n" not in caplog.messages[-1]


def test_the_firmware_bench_reads_the_states_of_an_update(caplog: pytest.LogCaptureFixture) -> None:
    bench = AgentBench(edge())
    bench.run()

    way = "checking clearing downloading installing arming rebooting verifying committing updated"
    assert states("\n".join(caplog.messages)) == way.split()


def test_an_agent_that_is_not_heard_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = AgentBench(edge(1))
    bench.link.unreachable = {2, 3, 4}
    for _ in range(6):
        bench.agent.tick()
        bench.clock.later(timedelta(minutes=1))

    told = [event for _, event in events(caplog) if event.startswith("report")]
    assert told == ["report_undelivered", "reports_delivered_again"]


def test_every_kind_of_notice_has_a_level() -> None:
    assert set(NOTICE_LEVELS) == set(NoticeKind)


def test_a_field_that_is_not_declared_is_refused() -> None:
    with pytest.raises(KeyError):
        log_fields(password="secret")
    assert log_fields(tenant_id="t", host_guid=None, code="") == {"tenant_id": "t"}
    assert not LOG_FIELDS.keys() & logging.makeLogRecord({}).__dict__.keys()


# Records of these modules are about the process or its files: there is no id to carry.
_WITHOUT_IDS = {
    "adapters/grpc/server.py",
    "adapters/grpc/tls.py",
    "adapters/grpc/keys.py",
    "adapters/grpc/report_workers.py",
    "application/reconcile_service.py",
}
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def test_every_record_that_can_carry_ids_does() -> None:
    root = Path(edge_day2.__file__).parent
    bare = []
    for path in (*root.glob("application/*.py"), *root.glob("adapters/grpc/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS):
                continue
            logger = node.func.value
            if isinstance(logger, ast.Name) and logger.id in ("_log", "logger"):
                name = path.relative_to(root).as_posix()
                if name not in _WITHOUT_IDS and "extra" not in {keyword.arg for keyword in node.keywords}:
                    bare.append(name)
    # One record about many reports at once, which are answered one by one then.
    assert bare == ["adapters/grpc/answers.py"]
