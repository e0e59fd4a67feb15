"""maintmgr.v1: the numbers on the wire, what an answer must hold, and what is refused on either side."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from edge_day2.adapters.grpc import maintmgr_pb2 as wire
from edge_day2.adapters.grpc.conversion import decode_request, decode_response, encode_request, encode_response
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import InvalidMessage

SRC = Path(__file__).parents[2] / "src"
PROTO = SRC / "edge_day2" / "adapters" / "grpc" / "maintmgr.proto"
GUID = "12345678-1234-1234-1234-123456789ABC"

FIELDS = {
    "UpdateStatus": {
        "status_type": 1, "status_detail": 2, "profile_name": 3, "profile_version": 4, "os_image_id": 5,
        "os_update_available": 6,
    },
    "PlatformUpdateStatusRequest": {"host_guid": 1, "update_status": 2},
    "SingleSchedule": {"start_seconds": 1, "end_seconds": 2},
    "RepeatedSchedule": {
        "duration_seconds": 1, "cron_minutes": 2, "cron_hours": 3, "cron_day_month": 4, "cron_month": 5,
        "cron_day_week": 6,
    },
    "UpdateSchedule": {"single_schedule": 1, "repeated_schedule": 2, "repeated_schedules": 3},
    "PlatformUpdateStatusResponse": {
        "update_source": 1, "update_schedule": 2, "installed_packages": 3, "os_type": 4, "os_profile_update_source": 5,
    },
    "UpdateSource": {"kernel_command": 1, "os_repo_url": 2, "custom_repos": 3},
    "OSProfileUpdateSource": {
        "os_image_url": 1, "os_image_id": 2, "os_image_sha": 3, "profile_name": 4, "profile_version": 5,
    },
}  # fmt: skip


def answer(**fields: Any) -> bytes:
    """Return the bytes of an answer as another server may write it."""
    return wire.PlatformUpdateStatusResponse(**{"update_source": wire.UpdateSource(), **fields}).SerializeToString()


def nightly(**fields: Any) -> wire.RepeatedSchedule:
    """Return a repeated schedule of the protocol, for 02:00 on every day."""
    whole = {
        "duration_seconds": 3600, "cron_minutes": "0", "cron_hours": "2", "cron_day_month": "*", "cron_month": "*",
        "cron_day_week": "*",
    }  # fmt: skip
    return wire.RepeatedSchedule(**{**whole, **fields})


def test_generated_code_is_what_protoc_makes_of_the_proto(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SRC}", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", str(PROTO)], check=True)
    made = tmp_path / "edge_day2" / "adapters" / "grpc"

    for name in ("maintmgr_pb2.py", "maintmgr_pb2.pyi"):
        assert (PROTO.parent / name).read_text() == (made / name).read_text(), "stale: run `make proto`"


def test_messages_and_fields_have_the_names_and_numbers_of_the_protocol() -> None:
    messages = wire.DESCRIPTOR.message_types_by_name
    found = {name: {field.name: field.number for field in kind.fields} for name, kind in messages.items()}

    assert wire.DESCRIPTOR.package == "maintmgr.v1"
    assert found == FIELDS


def test_enums_have_the_names_and_numbers_of_the_protocol_and_the_domain() -> None:
    assert dict(wire.UpdateStatus.StatusType.items()) == {
        f"STATUS_TYPE_{one.name}": one.value for one in UpdateStatusType
    }
    os_types = {"OS_TYPE_UNSPECIFIED": 0, "OS_TYPE_MUTABLE": 1, "OS_TYPE_IMMUTABLE": 2}
    assert dict(wire.PlatformUpdateStatusResponse.OSType.items()) == os_types


def test_the_service_has_one_unary_call() -> None:
    service = wire.DESCRIPTOR.services_by_name["MaintmgrService"]
    (method,) = service.methods

    assert service.full_name == "maintmgr.v1.MaintmgrService"
    assert (method.name, method.client_streaming, method.server_streaming) == ("PlatformUpdateStatus", False, False)
    assert method.input_type.name == "PlatformUpdateStatusRequest"
    assert method.output_type.name == "PlatformUpdateStatusResponse"


def test_a_report_is_these_bytes() -> None:
    status = UpdateStatus(status_type=UpdateStatusType.UPDATED, profile_name="rt", os_image_id="3.0.1")
    request = PlatformUpdateStatusRequest(host_guid=GUID, update_status=status)

    assert encode_request(request) == b"\x0a\x24" + GUID.encode() + b"\x12\x0d\x08\x03\x1a\x02rt\x2a\x053.0.1"


def test_a_report_that_says_nothing_has_a_status_all_the_same() -> None:
    request = PlatformUpdateStatusRequest(
        host_guid=GUID, update_status=UpdateStatus(status_type=UpdateStatusType.UNSPECIFIED)
    )

    assert wire.PlatformUpdateStatusRequest.FromString(encode_request(request)).HasField("update_status")


@pytest.mark.parametrize("guid", ["", "node-1", GUID + "0", GUID.replace("-", "")])
def test_a_report_of_no_uuid_is_refused_by_the_server(guid: str) -> None:
    message = wire.PlatformUpdateStatusRequest(host_guid=guid, update_status=wire.UpdateStatus())

    with pytest.raises(InvalidMessage, match="host_guid"):
        decode_request(message.SerializeToString())


def test_a_report_without_a_status_is_refused_by_the_server() -> None:
    with pytest.raises(InvalidMessage, match="update_status"):
        decode_request(wire.PlatformUpdateStatusRequest(host_guid=GUID).SerializeToString())


@pytest.mark.parametrize("content", [b"\xff\xff\xff\xff", b"\x0a\x24short", b"\x0a\x02\xc3\x28"])
def test_bytes_that_are_no_report_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidMessage, match=r"request: .*expected the bytes of a maintmgr"):
        decode_request(content)


@pytest.mark.parametrize(
    "name", ["status_detail", "profile_name", "profile_version", "os_image_id", "os_update_available"]
)
def test_a_text_that_the_wire_can_not_carry_is_refused_by_its_name(name: str) -> None:
    texts: dict[str, Any] = {name: "\ud800"}
    status = UpdateStatus(status_type=UpdateStatusType.STARTED, **texts)

    with pytest.raises(InvalidMessage, match=name):
        encode_request(PlatformUpdateStatusRequest(host_guid=GUID, update_status=status))


def test_every_sub_message_of_an_answer_is_there_even_when_empty() -> None:
    message = wire.PlatformUpdateStatusResponse.FromString(
        encode_response(PlatformUpdateStatusResponse(os_type=OSType.IMMUTABLE))
    )

    present = {field.name for field, _ in message.ListFields()}
    assert present == {"update_source", "update_schedule", "os_type", "os_profile_update_source"}


def test_the_deprecated_schedule_is_the_first_of_the_list() -> None:
    schedule = UpdateSchedule(repeated_schedules=(RepeatedSchedule(hours="3"), RepeatedSchedule(hours="1")))
    content = encode_response(PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_schedule=schedule))
    message = wire.PlatformUpdateStatusResponse.FromString(content).update_schedule

    assert message.repeated_schedule == message.repeated_schedules[0]
    assert message.repeated_schedule.cron_hours == "3"


def test_the_deprecated_schedule_of_an_older_server_counts_where_there_is_no_list() -> None:
    found = decode_response(answer(update_schedule=wire.UpdateSchedule(repeated_schedule=nightly())))

    assert found.update_schedule.repeated_schedules == (RepeatedSchedule(hours="2", day_week="*"),)


def test_an_answer_without_an_update_source_is_refused_by_the_agent() -> None:
    with pytest.raises(InvalidMessage, match="update_source"):
        decode_response(wire.PlatformUpdateStatusResponse(os_type="OS_TYPE_MUTABLE").SerializeToString())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cron_minutes", "60"),
        ("cron_minutes", ""),
        ("cron_hours", "*/2"),
        ("cron_day_month", "0"),
        ("cron_month", "JAN"),
        ("cron_day_week", "7"),
        ("duration_seconds", 86_401),
    ],
)
def test_a_schedule_that_breaks_the_protocols_rules_is_refused_by_the_agent(name: str, value: object) -> None:
    content = answer(update_schedule=wire.UpdateSchedule(repeated_schedules=[nightly(**{name: value})]))

    with pytest.raises(InvalidMessage, match=name):
        decode_response(content)


@pytest.mark.parametrize("never", [{"duration_seconds": 0}, {"cron_day_month": "31", "cron_month": "2"}])
def test_a_repeated_schedule_that_never_opens_is_left_out(never: dict[str, Any]) -> None:
    schedules = [nightly(**never), nightly()]
    found = decode_response(answer(update_schedule=wire.UpdateSchedule(repeated_schedules=schedules)))

    assert found.update_schedule.repeated_schedules == (RepeatedSchedule(hours="2", day_week="*"),)


@pytest.mark.parametrize(("start", "end"), [(10, 10), (10, 9), (2**64 - 1, 0), (2**63, 2**64 - 1)])
def test_a_single_schedule_that_never_opens_is_left_out(start: int, end: int) -> None:
    single = wire.SingleSchedule(start_seconds=start, end_seconds=end)
    found = decode_response(answer(update_schedule=wire.UpdateSchedule(single_schedule=single)))

    assert found.update_schedule == UpdateSchedule()


@pytest.mark.parametrize("end", [0, 2**64 - 1])
def test_a_single_schedule_without_an_end_that_a_calendar_has_is_open_ended(end: int) -> None:
    single = wire.SingleSchedule(start_seconds=60, end_seconds=end)
    found = decode_response(answer(update_schedule=wire.UpdateSchedule(single_schedule=single)))

    assert found.update_schedule.single_schedule == SingleSchedule(datetime(1970, 1, 1, 0, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "schedule",
    [
        UpdateSchedule(single_schedule=SingleSchedule(datetime(1969, 12, 31, tzinfo=UTC))),
        UpdateSchedule(repeated_schedules=(RepeatedSchedule(time_zone="Europe/Warsaw"),)),
    ],
)
def test_a_schedule_that_the_protocol_can_not_say_is_refused_by_the_server(schedule: UpdateSchedule) -> None:
    with pytest.raises(InvalidMessage, match="schedule"):
        encode_response(PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_schedule=schedule))


def test_a_window_of_less_than_a_second_is_not_said() -> None:
    start = datetime(2026, 3, 1, 0, 0, 0, 100, tzinfo=UTC)
    schedule = UpdateSchedule(single_schedule=SingleSchedule(start, start.replace(microsecond=900)))
    content = encode_response(PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_schedule=schedule))

    assert decode_response(content).update_schedule == UpdateSchedule()


def test_an_image_without_content_is_no_image() -> None:
    assert (
        decode_response(answer(os_profile_update_source=wire.OSProfileUpdateSource())).os_profile_update_source is None
    )


@pytest.mark.parametrize("bad", ["kernel_command", "custom_repos", "installed_packages", "os_image_url"])
def test_an_answers_text_that_the_wire_can_not_carry_is_refused_by_its_name(bad: str) -> None:
    image = OSProfileUpdateSource(os_image_url="u", os_image_id="i", os_image_sha="s", profile_name="p")
    texts: dict[str, Any] = {bad: "\ud800"}
    match bad:
        case "kernel_command":
            response = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_source=UpdateSource(**texts))
        case "custom_repos":
            source = UpdateSource(custom_repos=("\ud800",))
            response = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_source=source)
        case "installed_packages":
            response = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, **texts)
        case _:
            image = evolve(image, **texts)
            response = PlatformUpdateStatusResponse(os_type=OSType.IMMUTABLE, os_profile_update_source=image)

    with pytest.raises(InvalidMessage, match=bad):
        encode_response(response)
