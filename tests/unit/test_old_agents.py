"""Peers in the field: what the agents of the original need from our answers, and what our agent makes of theirs.

An old agent skips an answer that lacks one of the things below, without a word: its node then never updates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2 import InventoryService, MaintenanceManager, RepeatedSchedule, SingleSchedule
from edge_day2.adapters.grpc import maintmgr_pb2 as wire
from edge_day2.adapters.grpc.conversion import decode_response, encode_response
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.immutable_events import ImmutableTarget
from edge_day2.domain.messages import UpdateSchedule
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.resources import OSType, ScheduleTarget, TargetLevel
from edge_day2.domain.schedules import Schedule
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.domain.targets import target_of
from edge_day2.errors import InvalidMessage
from edge_day2.testing import VirtualClock
from wire_server import TENANT, guid, image, says

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
IMMUTABLE = wire.PlatformUpdateStatusResponse.OS_TYPE_IMMUTABLE
KERNEL_COMMAND = re.compile(r"[A-Za-z0-9\-_=.,/ ]*")
NIGHTS = RepeatedSchedule(hours="2", day_week="*")
WARSAW_NIGHTS = RepeatedSchedule(hours="2", day_week="*", time_zone="Europe/Warsaw")
EVENING = SingleSchedule(NOW + timedelta(hours=8), NOW + timedelta(hours=9))
DEB822 = "Types: deb\nURIs: https://example.org\nSuites: jammy\nComponents: main\nSigned-By: /keys/one.gpg"


class Orchestrator:
    """A Maintenance Manager with one node, asked as an old agent asks it."""

    def __init__(self, os_type: OSType) -> None:
        self.inventory = open_inventory("memory://")
        self.admin = InventoryService(self.inventory, clock=VirtualClock(NOW))
        self.manager = MaintenanceManager(self.inventory, clock=VirtualClock(NOW))
        self.os_type = os_type
        first, second = (evolve(image(number), os_type=os_type) for number in (1, 2))
        with self.inventory.writing() as unit:
            unit.add_all([first, second])
        self.host = self.admin.add_host(TENANT, guid(0), "node")
        instance = self.admin.add_instance(TENANT, self.host.resource_id, first.resource_id)
        if os_type is OSType.IMMUTABLE:
            self.admin.link_desired_os(TENANT, instance.resource_id, second.resource_id)
        else:
            self.admin.patch_mutable_os(
                TENANT,
                first.resource_id,
                update_sources=[DEB822],
                update_packages=["curl", "vim"],
                kernel_command_line="quiet hugepages=16",
            )

    def schedule(self, schedule: Schedule) -> None:
        target = ScheduleTarget(level=TargetLevel.HOST, resource_id=self.host.resource_id)
        self.admin.add_schedule(TENANT, "window", schedule, target=target)

    def ask(self, kind: UpdateStatusType) -> wire.PlatformUpdateStatusResponse:
        answer = self.manager.platform_update_status(says(kind), tenant=TENANT)
        return wire.PlatformUpdateStatusResponse.FromString(encode_response(answer))


@pytest.fixture(params=list(OSType), ids=lambda kind: str(kind.name))
def orchestrator(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    made = Orchestrator(request.param)
    with made.inventory:
        yield made


def taken(answer: wire.PlatformUpdateStatusResponse, os_type: OSType) -> bool:
    """Return whether an old agent on such a node takes the answer, and doesn't skip it."""
    present = answer.HasField("update_schedule")
    if os_type is OSType.IMMUTABLE:
        present = present and answer.HasField("os_profile_update_source")
        # It reads update_source without asking whether it is there.
        return present and answer.HasField("update_source") and answer.os_type == IMMUTABLE
    source = answer.HasField("update_source") and KERNEL_COMMAND.fullmatch(answer.update_source.kernel_command)
    return present and bool(source) and answer.os_type != IMMUTABLE


@pytest.mark.parametrize("kind", list(UpdateStatusType), ids=lambda kind: str(kind.name))
def test_an_old_agent_takes_the_answer_to_every_report_without_any_schedule(
    orchestrator: Orchestrator, kind: UpdateStatusType
) -> None:
    assert taken(orchestrator.ask(kind), orchestrator.os_type)


@pytest.mark.parametrize("schedule", [NIGHTS, WARSAW_NIGHTS, EVENING, SingleSchedule(NOW - timedelta(hours=1))])
def test_an_old_agent_takes_the_answer_with_every_kind_of_schedule(
    orchestrator: Orchestrator, schedule: Schedule
) -> None:
    orchestrator.schedule(schedule)

    assert taken(orchestrator.ask(UpdateStatusType.UP_TO_DATE), orchestrator.os_type)


def test_an_old_agent_finds_a_repeated_schedule_in_both_fields(orchestrator: Orchestrator) -> None:
    orchestrator.schedule(NIGHTS)
    schedule = orchestrator.ask(UpdateStatusType.UP_TO_DATE).update_schedule

    assert schedule.repeated_schedule == schedule.repeated_schedules[0]
    assert schedule.repeated_schedule.cron_hours == "2"
    assert schedule.repeated_schedule.duration_seconds == 3600


def test_an_old_agent_that_knows_no_time_zones_gets_the_next_window_as_a_single_schedule(
    orchestrator: Orchestrator,
) -> None:
    orchestrator.schedule(WARSAW_NIGHTS)
    schedule = orchestrator.ask(UpdateStatusType.UP_TO_DATE).update_schedule

    assert not schedule.repeated_schedules
    assert schedule.single_schedule.start_seconds == datetime(2026, 3, 3, 1, 0, tzinfo=UTC).timestamp()
    assert schedule.single_schedule.end_seconds == datetime(2026, 3, 3, 2, 0, tzinfo=UTC).timestamp()


def test_an_old_agent_on_an_ab_node_learns_which_image_to_run() -> None:
    with (made := Orchestrator(OSType.IMMUTABLE)).inventory:
        source = made.ask(UpdateStatusType.UP_TO_DATE).os_profile_update_source

    wanted = image(2)
    assert source.os_image_url == wanted.image_url
    assert source.os_image_id == wanted.image_id
    assert source.os_image_sha == wanted.sha256
    assert source.profile_name == wanted.profile_name
    assert source.profile_version == wanted.profile_version


def test_an_old_agent_on_an_apt_node_learns_what_to_apply() -> None:
    with (made := Orchestrator(OSType.MUTABLE)).inventory:
        answer = made.ask(UpdateStatusType.UP_TO_DATE)

    assert list(answer.update_source.custom_repos) == [DEB822]
    assert answer.update_source.kernel_command == "quiet hugepages=16"
    assert answer.installed_packages == "curl\nvim"
    assert answer.update_source.os_repo_url == ""


def original(**fields: Any) -> bytes:
    """Return an answer as the original server writes it: both sources always there, the schedule too."""
    whole = {
        "update_source": wire.UpdateSource(),
        "update_schedule": wire.UpdateSchedule(),
        "os_profile_update_source": wire.OSProfileUpdateSource(),
    }
    return wire.PlatformUpdateStatusResponse(**{**whole, **fields}).SerializeToString()


def test_our_agent_sees_nothing_to_do_in_an_original_answer_without_a_policy() -> None:
    answer = decode_response(original(os_type="OS_TYPE_IMMUTABLE"))

    assert answer.update_schedule == UpdateSchedule()
    assert target_of(answer, OSType.IMMUTABLE, AgentPolicy()) is None


def test_our_agent_reads_an_original_answer_for_an_apt_node() -> None:
    nights = wire.RepeatedSchedule(
        duration_seconds=3600,
        cron_minutes="0",
        cron_hours="2",
        cron_day_month="*",
        cron_month="*",
        cron_day_week="*",
    )
    answer = decode_response(
        original(
            os_type="OS_TYPE_MUTABLE",
            update_source=wire.UpdateSource(kernel_command="quiet", custom_repos=[DEB822]),
            installed_packages="curl\nvim\n",
            update_schedule=wire.UpdateSchedule(
                single_schedule=wire.SingleSchedule(start_seconds=1_800_000_000),
                repeated_schedule=nights,
                repeated_schedules=[nights],
            ),
        )
    )

    assert target_of(answer, OSType.MUTABLE, AgentPolicy()) == PackageTarget(
        update_sources=(DEB822,), update_packages=("curl", "vim"), kernel_command_line="quiet"
    )
    assert answer.update_schedule.repeated_schedules == (NIGHTS,)
    assert answer.update_schedule.single_schedule == SingleSchedule(datetime.fromtimestamp(1_800_000_000, UTC))


def test_our_agent_reads_an_original_answer_for_an_ab_node() -> None:
    wanted = wire.OSProfileUpdateSource(
        os_image_url="files/edge.raw.gz", os_image_id="3.2", os_image_sha="2" * 64, profile_name="microvisor-nonrt"
    )
    answer = decode_response(original(os_type="OS_TYPE_IMMUTABLE", os_profile_update_source=wanted))

    target = target_of(answer, OSType.IMMUTABLE, AgentPolicy())
    assert isinstance(target, ImmutableTarget)
    assert target.image is not None
    assert target.image.image_id == "3.2"


def test_our_agent_refuses_an_answer_that_names_no_os_type_it_knows() -> None:
    answer = decode_response(original(os_type="OS_TYPE_UNSPECIFIED"))

    with pytest.raises(InvalidMessage, match="os_type: found None"):
        target_of(answer, OSType.IMMUTABLE, AgentPolicy())
