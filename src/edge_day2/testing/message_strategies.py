"""Random maintmgr.v1 messages: everything that a node may say, and everything that can be answered on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.testing.schedule_strategies import repeated_schedules

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS = 8000 * 365 * 86_400


def _texts() -> st.SearchStrategy[str]:
    """Short texts of any character that UTF-8 can say, NUL included."""
    return st.text(st.characters(codec="utf-8"), max_size=12)


def platform_update_status_requests() -> st.SearchStrategy[PlatformUpdateStatusRequest]:
    """Reports of any node, in any status, with any texts."""
    guid = st.builds(lambda guid, upper: str(guid).upper() if upper else str(guid), st.uuids(), st.booleans())
    status = st.builds(
        UpdateStatus,
        status_type=st.sampled_from(UpdateStatusType),
        status_detail=_texts(),
        profile_name=_texts(),
        profile_version=_texts(),
        os_image_id=_texts(),
        os_update_available=_texts(),
    )
    return st.builds(PlatformUpdateStatusRequest, host_guid=guid, update_status=status)


@st.composite
def wire_single_schedules(draw: st.DrawFn) -> SingleSchedule:
    """Single schedules that the protocol can say: whole seconds from 1970 on."""
    start = _EPOCH + timedelta(seconds=draw(st.integers(0, _SECONDS)))
    length = draw(st.none() | st.integers(1, 86_400 * 400))
    return SingleSchedule(start, None if length is None else start + timedelta(seconds=length))


def update_schedules() -> st.SearchStrategy[UpdateSchedule]:
    """What an answer may say about when: at most one single schedule, some repeated ones in UTC."""
    repeated = st.lists(repeated_schedules(st.just("UTC")), max_size=3).map(tuple)
    return st.builds(UpdateSchedule, single_schedule=st.none() | wire_single_schedules(), repeated_schedules=repeated)


def platform_update_status_responses() -> st.SearchStrategy[PlatformUpdateStatusResponse]:
    """Answers of every shape, also those that no Maintenance Manager gives. An image that is named has an id."""
    image = st.builds(
        OSProfileUpdateSource,
        os_image_url=_texts(),
        os_image_id=_texts().filter(bool),
        os_image_sha=_texts(),
        profile_name=_texts(),
        profile_version=_texts(),
    )
    source = st.builds(UpdateSource, kernel_command=_texts(), custom_repos=st.lists(_texts(), max_size=3).map(tuple))
    return st.builds(
        PlatformUpdateStatusResponse,
        os_type=st.none() | st.sampled_from(OSType),
        update_source=source,
        update_schedule=update_schedules(),
        installed_packages=_texts(),
        os_profile_update_source=st.none() | image,
    )
