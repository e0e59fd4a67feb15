"""The messages of maintmgr.v1: what is refused before it is sent or answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from edge_day2.domain.messages import (
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

GUID = "12345678-1234-1234-1234-123456789abc"
IDLE = UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE)


@pytest.mark.parametrize("guid", [GUID, GUID.upper()])
def test_a_report_names_its_node_by_a_uuid(guid: str) -> None:
    assert PlatformUpdateStatusRequest(host_guid=guid, update_status=IDLE).host_guid == guid


@pytest.mark.parametrize(
    "guid", ["", "node-1", GUID[:-1], GUID + "0", GUID.replace("-", ""), f"{{{GUID}}}", GUID + "\n", None, 7]
)
def test_a_report_of_no_uuid_is_refused_with_the_value_and_what_is_expected(guid: Any) -> None:
    with pytest.raises(InvalidMessage, match=r"host_guid: found .*, expected a UUID") as refused:
        PlatformUpdateStatusRequest(host_guid=guid, update_status=IDLE)

    assert refused.value.field == "host_guid"
    assert refused.value.value == guid


def test_an_old_agent_finds_the_first_repeated_schedule_in_the_deprecated_field() -> None:
    first, second = RepeatedSchedule(hours="1"), RepeatedSchedule(hours="2")

    assert UpdateSchedule(repeated_schedules=(first, second)).repeated_schedule is first
    assert UpdateSchedule().repeated_schedule is None


def test_an_answer_says_nothing_but_the_os_type_where_there_is_nothing_to_say() -> None:
    answer = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE)

    assert answer.update_source == UpdateSource(kernel_command="", custom_repos=())
    assert answer.update_schedule == UpdateSchedule()
    assert answer.installed_packages == ""
    assert answer.os_profile_update_source is None


def test_messages_are_values() -> None:
    single = SingleSchedule(datetime(2026, 3, 1, tzinfo=UTC))

    assert UpdateSchedule(single_schedule=single) == UpdateSchedule(single_schedule=single)
    assert hash(UpdateSchedule(single_schedule=single)) == hash(UpdateSchedule(single_schedule=single))
    assert len({IDLE, UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE)}) == 1
