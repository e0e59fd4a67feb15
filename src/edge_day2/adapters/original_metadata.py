"""What the original agent left behind: its metadata.json, as the first record of our journal.

The file is read until our journal holds a record of its own, and is never changed: the original agent may be put back.

Nothing in it is believed further than it can be. It was written in place without a flush, by several writers at once,
and its status says SUCCESS before the reboot that decides. So:

- a status that says that an update ended as it should (UPDATED), or hasn't ended, becomes an update that finds out from
  the machine what became of it; so does a file that can't be read;
- any other status is repeated as the last report, as the original agent would have;
- the rest is what the Maintenance Manager answered last, and is used where all of it is sound.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from edge_day2.domain.agent import AgentRecord, Update
from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.flow import FlowState
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.immutable_events import ImmutableTarget
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import CRON_FIELDS, RepeatedSchedule, SingleSchedule, Window
from edge_day2.domain.statuses import StatusDetail, UpdateStatusType, parse_detail
from edge_day2.domain.targets import Target, target_of
from edge_day2.domain.wire_schedules import repeated_schedule, single_schedule
from edge_day2.errors import InvalidMessage, InvalidSchedule, shown
from edge_day2.ports.journal import Journal

_log: Final = logging.getLogger(__name__)

_DEFAULT: Final = Path("/var/edge-node/pua/metadata.json")
_LARGEST_FILE: Final = 4 << 20
_LONGEST_TEXT: Final = 1_000
# "No update in progress"; an empty text is what a new file has.
_NOTHING: Final = ("NONE", "", None)
# These say nothing of how an update ends, or that it ended as it shouldn't.
_REPEATED: Final = {
    f"STATUS_TYPE_{kind.name}": kind
    for kind in (
        UpdateStatusType.UP_TO_DATE,
        UpdateStatusType.FAILED,
        UpdateStatusType.DOWNLOADING,
        UpdateStatusType.DOWNLOADED,
    )
}
_IMAGE_FIELDS: Final = ("os_image_url", "os_image_id", "os_image_sha", "profile_name", "profile_version")
# Closed: a step that works in a window waits for the next one.
_LONG_AGO: Final = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC))
# What the agent's own policy refuses beyond this, the agent refuses itself when it reads the record.
_POLICY: Final = AgentPolicy()
_T = TypeVar("_T")


class ImportingJournal:
    """A `Journal` that begins with what the original agent left, where it holds no record yet.

    Args:
        journal: holds the records.
        os_type: of the node.
        metadata: the original agent's file.
    """

    def __init__(self, journal: Journal, *, os_type: OSType, metadata: Path | str = _DEFAULT) -> None:
        self._journal = journal
        self._os_type = os_type
        self._metadata = Path(metadata)

    def load(self) -> AgentRecord | None:
        """See `Journal.load`. Whatever the original agent left, it never raises an error of its own."""
        record = self._journal.load()
        if record is not None:
            return record
        try:
            content = _read(self._metadata)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _log.warning("the original agent's metadata can't be read: %s", error)
            content = b""
        _log.info("begins with what the original agent left in %s", self._metadata)
        return import_record(content, self._os_type)

    def store(self, record: AgentRecord) -> None:
        """See `Journal.store`."""
        self._journal.store(record)


def _read(path: Path) -> bytes:
    # O_NONBLOCK: a pipe in its place must not make the agent wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file")
        return file.read(_LARGEST_FILE)


def import_record(content: bytes, os_type: OSType) -> AgentRecord:
    """Return the record with which an agent of this OS type begins after an original agent that left `content`.

    Any content at all gives a record; what is wrong with it is logged.
    """
    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            raise ValueError(f"found {shown(document)}, expected an object")
    except (ValueError, RecursionError) as error:
        _log.warning("the original agent's metadata is damaged: %s", error)
        return _interrupted({}, None, os_type, "its metadata is damaged")
    answer = _answer_if_sound(document, os_type)
    status, step = document.get("updateStatus"), document.get("updateInProgress")
    kind = _REPEATED.get(status) if isinstance(status, str) else None
    if kind is not None and step in _NOTHING:
        return AgentRecord(last_report=_report(document, kind), answer=answer)
    return _interrupted(document, answer, os_type, f"status {shown(status)}, step {shown(step)}")


def _interrupted(
    document: dict[str, object], answer: PlatformUpdateStatusResponse | None, os_type: OSType, found: str
) -> AgentRecord:
    log = f"the original agent may have left an update half done ({found}): what the node runs is found out"
    _log.warning("%s", log)
    target = target_of(answer, os_type, _POLICY) if answer is not None else None
    # Under STARTED the Maintenance Manager knows such an update already, or it learns of it now.
    detail = StatusDetail(message=log).to_json()
    return AgentRecord(
        flow=_unfinished(document, target, os_type),
        outbox=(UpdateStatus(status_type=UpdateStatusType.STARTED, status_detail=detail),),
        answer=answer,
    )


def _unfinished(document: dict[str, object], target: Target | None, os_type: OSType) -> Update:
    if os_type is OSType.MUTABLE:
        # From the first step in the next window: each looks at what is there already.
        return MUTABLE_FLOW.start(
            MutableUpdate(target=target if isinstance(target, PackageTarget) else PackageTarget())
        )
    wanted = target if isinstance(target, ImmutableTarget) else ImmutableTarget()
    # Comparing disturbs nobody. A trial that is running is rolled back, and what comes next waits for a window.
    return FlowState(IMMUTABLE_FLOW.name, "checking", ImmutableUpdate(target=wanted, window=_window(document)))


def _window(document: dict[str, object]) -> Window:
    try:
        begun = datetime.fromisoformat(_value(document, "updateTime", str, "")).astimezone(UTC)
        length = timedelta(seconds=max(_value(document, "updateDuration", int, 0), 1))
        return Window(begun, begun + length)
    except (InvalidMessage, InvalidSchedule, ValueError, OverflowError):
        return _LONG_AGO


def _report(document: dict[str, object], kind: UpdateStatusType) -> UpdateStatus:
    image = None
    try:
        log = _value(document, "updateLog", str, "")
        image = _image(document, "osProfileUpdateSourceActual")
    except InvalidMessage as error:
        _log.warning("the original agent's last report isn't repeated in full: %s", error)
        log = ""
    detail = parse_detail(log)
    if detail is None and log:
        detail = StatusDetail(message=log[:_LONGEST_TEXT])
    return UpdateStatus(
        status_type=kind,
        status_detail=detail.to_json() if detail is not None else "",
        profile_name=image.profile_name if image is not None else "",
        profile_version=image.profile_version if image is not None else "",
        os_image_id=image.os_image_id if image is not None else "",
    )


def _answer_if_sound(document: dict[str, object], os_type: OSType) -> PlatformUpdateStatusResponse | None:
    """Return the last answer, None where there was none, or a part of it is damaged or not for this OS type."""
    try:
        answer = _answer(document, os_type)
        if answer is not None:
            target_of(answer, os_type, _POLICY)
    except InvalidMessage as error:
        _log.warning("the original agent's last answer isn't used: %s", error)
        return None
    return answer


def _answer(document: dict[str, object], os_type: OSType) -> PlatformUpdateStatusResponse | None:
    source = _value(document, "updateSource", dict, {})
    image = _image(document, "osProfileUpdateSourceDesired")
    # Without a source there was no answer; an empty list of sources means something else to a mutable node.
    if not source if os_type is OSType.MUTABLE else image is None:
        return None
    repositories = _value(source, "custom_repos", list, [])
    return PlatformUpdateStatusResponse(
        os_type=os_type,
        update_source=UpdateSource(
            kernel_command=_value(source, "kernel_command", str, ""),
            custom_repos=tuple(_typed("custom_repos", one, str) for one in repositories),
        ),
        update_schedule=UpdateSchedule(
            single_schedule=_single(document), repeated_schedules=tuple(_repeated(document))
        ),
        installed_packages=_value(document, "installedPackages", str, ""),
        os_profile_update_source=image,
    )


def _image(document: dict[str, object], key: str) -> OSProfileUpdateSource | None:
    fields = _value(document, key, dict, {})
    texts = {name: _value(fields, name, str, "") for name in _IMAGE_FIELDS}
    return OSProfileUpdateSource(**texts) if any(texts.values()) else None


def _single(document: dict[str, object]) -> SingleSchedule | None:
    fields = _value(document, "singleSchedule", dict, {})
    if not fields or _value(document, "singleScheduleFinished", bool, False):
        return None
    return single_schedule(_value(fields, "start_seconds", int, 0), _value(fields, "end_seconds", int, 0))


def _repeated(document: dict[str, object]) -> Iterator[RepeatedSchedule]:
    schedules = _value(document, "repeatedSchedules", list, [])
    if not schedules and (only := _value(document, "repeatedSchedule", dict, {})):
        schedules = [only]
    for one in schedules:
        fields = _typed("repeatedSchedules", one, dict)
        cron = {name: _value(fields, f"cron_{name}", str, "") for name in CRON_FIELDS}
        found = repeated_schedule(cron, duration_seconds=_value(fields, "duration_seconds", int, 0))
        if found is not None:
            yield found


def _value(document: dict[str, object], key: str, kind: type[_T], default: _T) -> _T:
    # Go leaves out what is empty, or writes null.
    value = document.get(key)
    return default if value is None else _typed(key, value, kind)


def _typed(key: str, value: object, kind: type[_T]) -> _T:
    # Every number in the file is a count of seconds.
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise InvalidMessage(key, value, f"{kind.__name__}, not negative")
    if isinstance(value, str):
        _check_text(key, value)
    return value


def _check_text(key: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(key, value, "a text without lone surrogates") from error
