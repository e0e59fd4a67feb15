"""maintmgr.v1 messages as bytes, and back: one function each way for reports and for answers.

What is written can be read again without loss. What is read may come from an older or a newer peer:

- fields that this version doesn't know are ignored;
- a status type or OS type that it doesn't know is the unknown one (UNSPECIFIED, None);
- a schedule that is well formed but never opens anything (31 February, no duration, an end before its start, beyond
  the year 9999) is left out;
- an agent's or a server's mistake, an empty cron field for example, is refused with the field's name.

The protocol counts in seconds: a single schedule is narrowed to whole ones, so that it never opens too early and never
closes too late.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import DecodeError, Message

from edge_day2.adapters.grpc import maintmgr_pb2 as wire
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import CRON_FIELDS, RepeatedSchedule, SingleSchedule
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.domain.wire_schedules import repeated_schedule, single_schedule
from edge_day2.errors import InvalidMessage

_STATUS_TYPES: Final = {kind.value: kind for kind in UpdateStatusType}
_NO_IMAGE: Final = OSProfileUpdateSource(os_image_url="", os_image_id="", os_image_sha="", profile_name="")
_OS_TYPES: Final = {kind.value: kind for kind in OSType}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode_request(request: PlatformUpdateStatusRequest) -> bytes:
    """Return the bytes of a report.

    Raises:
        InvalidMessage: a text holds a lone surrogate.
    """
    status = request.update_status
    message = wire.PlatformUpdateStatusRequest(
        host_guid=request.host_guid,
        update_status=wire.UpdateStatus(
            status_type=f"STATUS_TYPE_{status.status_type.name}",
            status_detail=_text("status_detail", status.status_detail),
            profile_name=_text("profile_name", status.profile_name),
            profile_version=_text("profile_version", status.profile_version),
            os_image_id=_text("os_image_id", status.os_image_id),
            os_update_available=_text("os_update_available", status.os_update_available),
        ),
    )
    return message.SerializeToString()


def decode_request(content: bytes) -> PlatformUpdateStatusRequest:
    """Return the report that `content` says.

    Raises:
        InvalidMessage: it isn't a report, has no status, or `host_guid` isn't a UUID.
    """
    message = wire.PlatformUpdateStatusRequest()
    _parse(message, content, "request")
    if not message.HasField("update_status"):
        raise InvalidMessage("update_status", None, "a status")
    status = message.update_status
    return PlatformUpdateStatusRequest(
        host_guid=message.host_guid,
        update_status=UpdateStatus(
            status_type=_STATUS_TYPES.get(status.status_type, UpdateStatusType.UNSPECIFIED),
            status_detail=status.status_detail,
            profile_name=status.profile_name,
            profile_version=status.profile_version,
            os_image_id=status.os_image_id,
            os_update_available=status.os_update_available,
        ),
    )


def encode_response(response: PlatformUpdateStatusResponse) -> bytes:
    """Return the bytes of an answer.

    Sub-messages are there even where they are empty: agents skip an answer that lacks one of them.

    Raises:
        InvalidMessage: a text holds a lone surrogate, or a schedule can't be said: its time zone isn't UTC, or it
            starts before 1970.
    """
    source = response.update_source
    image = response.os_profile_update_source or _NO_IMAGE
    message = wire.PlatformUpdateStatusResponse(
        update_source=wire.UpdateSource(
            kernel_command=_text("kernel_command", source.kernel_command),
            custom_repos=[_text("custom_repos", repository) for repository in source.custom_repos],
        ),
        update_schedule=_schedule_message(response.update_schedule),
        installed_packages=_text("installed_packages", response.installed_packages),
        os_type=f"OS_TYPE_{'UNSPECIFIED' if response.os_type is None else response.os_type.name}",
        os_profile_update_source=wire.OSProfileUpdateSource(
            os_image_url=_text("os_image_url", image.os_image_url),
            os_image_id=_text("os_image_id", image.os_image_id),
            os_image_sha=_text("os_image_sha", image.os_image_sha),
            profile_name=_text("profile_name", image.profile_name),
            profile_version=_text("profile_version", image.profile_version),
        ),
    )
    return message.SerializeToString()


def decode_response(content: bytes) -> PlatformUpdateStatusResponse:
    """Return the answer that `content` says. An empty `os_profile_update_source` names no image: None.

    Raises:
        InvalidMessage: it isn't an answer, has no `update_source`, or a repeated schedule breaks the cron grammar or
            lasts longer than a day.
    """
    message = wire.PlatformUpdateStatusResponse()
    _parse(message, content, "response")
    if not message.HasField("update_source"):
        raise InvalidMessage("update_source", None, "an update source")
    source, image = message.update_source, message.os_profile_update_source
    named = OSProfileUpdateSource(
        os_image_url=image.os_image_url,
        os_image_id=image.os_image_id,
        os_image_sha=image.os_image_sha,
        profile_name=image.profile_name,
        profile_version=image.profile_version,
    )
    return PlatformUpdateStatusResponse(
        os_type=_OS_TYPES.get(message.os_type),
        update_source=UpdateSource(kernel_command=source.kernel_command, custom_repos=tuple(source.custom_repos)),
        update_schedule=_schedule(message.update_schedule),
        installed_packages=message.installed_packages,
        os_profile_update_source=None if named == _NO_IMAGE else named,
    )


def _parse(message: Message, content: bytes, name: str) -> None:
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise InvalidMessage(name, content, f"the bytes of a {type(message).DESCRIPTOR.full_name}") from error


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(name, value, "a text without lone surrogates") from error
    return value


def _schedule_message(schedule: UpdateSchedule) -> wire.UpdateSchedule:
    message = wire.UpdateSchedule(repeated_schedules=[_repeated_message(one) for one in schedule.repeated_schedules])
    if schedule.single_schedule is not None:
        single = _single_message(schedule.single_schedule)
        if single is not None:
            message.single_schedule.CopyFrom(single)
    if message.repeated_schedules:
        # What agents read that don't know the list.
        message.repeated_schedule.CopyFrom(message.repeated_schedules[0])
    return message


def _single_message(schedule: SingleSchedule) -> wire.SingleSchedule | None:
    start = -((_EPOCH - schedule.start) // timedelta(seconds=1))
    end = 0 if schedule.end is None else (schedule.end - _EPOCH) // timedelta(seconds=1)
    if start < 0:
        raise InvalidMessage("single_schedule.start_seconds", schedule.start.isoformat(), "an instant from 1970 on")
    if schedule.end is not None and end <= start:
        return None
    return wire.SingleSchedule(start_seconds=start, end_seconds=end)


def _repeated_message(schedule: RepeatedSchedule) -> wire.RepeatedSchedule:
    if schedule.time_zone != "UTC":
        raise InvalidMessage("repeated_schedules", schedule.time_zone, "a schedule in UTC")
    return wire.RepeatedSchedule(
        duration_seconds=schedule.duration_seconds,
        cron_minutes=schedule.minutes,
        cron_hours=schedule.hours,
        cron_day_month=schedule.day_month,
        cron_month=schedule.month,
        cron_day_week=schedule.day_week,
    )


def _schedule(message: wire.UpdateSchedule) -> UpdateSchedule:
    found: list[wire.RepeatedSchedule] = list(message.repeated_schedules)
    if not found and message.HasField("repeated_schedule"):
        found = [message.repeated_schedule]
    repeated = (_repeated(one) for one in found)
    return UpdateSchedule(
        single_schedule=_single(message.single_schedule) if message.HasField("single_schedule") else None,
        repeated_schedules=tuple(one for one in repeated if one is not None),
    )


def _single(message: wire.SingleSchedule) -> SingleSchedule | None:
    return single_schedule(message.start_seconds, message.end_seconds)


def _repeated(message: wire.RepeatedSchedule) -> RepeatedSchedule | None:
    return repeated_schedule(
        {name: getattr(message, f"cron_{name}") for name in CRON_FIELDS}, duration_seconds=message.duration_seconds
    )
