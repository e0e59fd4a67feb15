from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpdateStatus(_message.Message):
    __slots__ = ("status_type", "status_detail", "profile_name", "profile_version", "os_image_id", "os_update_available")
    class StatusType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_TYPE_UNSPECIFIED: _ClassVar[UpdateStatus.StatusType]
        STATUS_TYPE_UP_TO_DATE: _ClassVar[UpdateStatus.StatusType]
        STATUS_TYPE_STARTED: _ClassVar[UpdateStatus.StatusType]
        STATUS_TYPE_UPDATED: _ClassVar[UpdateStatus.StatusType]
        STATUS_TYPE_FAILED: _ClassVar[UpdateStatus.StatusType]
        STATUS_TYPE_DOWNLOADING: _ClassVar[UpdateStatus.StatusType]
        STATUS_TYPE_DOWNLOADED: _ClassVar[UpdateStatus.StatusType]
    STATUS_TYPE_UNSPECIFIED: UpdateStatus.StatusType
    STATUS_TYPE_UP_TO_DATE: UpdateStatus.StatusType
    STATUS_TYPE_STARTED: UpdateStatus.StatusType
    STATUS_TYPE_UPDATED: UpdateStatus.StatusType
    STATUS_TYPE_FAILED: UpdateStatus.StatusType
    STATUS_TYPE_DOWNLOADING: UpdateStatus.StatusType
    STATUS_TYPE_DOWNLOADED: UpdateStatus.StatusType
    STATUS_TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_DETAIL_FIELD_NUMBER: _ClassVar[int]
    PROFILE_NAME_FIELD_NUMBER: _ClassVar[int]
    PROFILE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OS_IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    OS_UPDATE_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    status_type: UpdateStatus.StatusType
    status_detail: str
    profile_name: str
    profile_version: str
    os_image_id: str
    os_update_available: str
    def __init__(self, status_type: _Optional[_Union[UpdateStatus.StatusType, str]] = ..., status_detail: _Optional[str] = ..., profile_name: _Optional[str] = ..., profile_version: _Optional[str] = ..., os_image_id: _Optional[str] = ..., os_update_available: _Optional[str] = ...) -> None: ...

class PlatformUpdateStatusRequest(_message.Message):
    __slots__ = ("host_guid", "update_status")
    HOST_GUID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_STATUS_FIELD_NUMBER: _ClassVar[int]
    host_guid: str
    update_status: UpdateStatus
    def __init__(self, host_guid: _Optional[str] = ..., update_status: _Optional[_Union[UpdateStatus, _Mapping]] = ...) -> None: ...

class SingleSchedule(_message.Message):
    __slots__ = ("start_seconds", "end_seconds")
    START_SECONDS_FIELD_NUMBER: _ClassVar[int]
    END_SECONDS_FIELD_NUMBER: _ClassVar[int]
    start_seconds: int
    end_seconds: int
    def __init__(self, start_seconds: _Optional[int] = ..., end_seconds: _Optional[int] = ...) -> None: ...

class RepeatedSchedule(_message.Message):
    __slots__ = ("duration_seconds", "cron_minutes", "cron_hours", "cron_day_month", "cron_month", "cron_day_week")
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CRON_MINUTES_FIELD_NUMBER: _ClassVar[int]
    CRON_HOURS_FIELD_NUMBER: _ClassVar[int]
    CRON_DAY_MONTH_FIELD_NUMBER: _ClassVar[int]
    CRON_MONTH_FIELD_NUMBER: _ClassVar[int]
    CRON_DAY_WEEK_FIELD_NUMBER: _ClassVar[int]
    duration_seconds: int
    cron_minutes: str
    cron_hours: str
    cron_day_month: str
    cron_month: str
    cron_day_week: str
    def __init__(self, duration_seconds: _Optional[int] = ..., cron_minutes: _Optional[str] = ..., cron_hours: _Optional[str] = ..., cron_day_month: _Optional[str] = ..., cron_month: _Optional[str] = ..., cron_day_week: _Optional[str] = ...) -> None: ...

class UpdateSchedule(_message.Message):
    __slots__ = ("single_schedule", "repeated_schedule", "repeated_schedules")
    SINGLE_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    REPEATED_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    REPEATED_SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    single_schedule: SingleSchedule
    repeated_schedule: RepeatedSchedule
    repeated_schedules: _containers.RepeatedCompositeFieldContainer[RepeatedSchedule]
    def __init__(self, single_schedule: _Optional[_Union[SingleSchedule, _Mapping]] = ..., repeated_schedule: _Optional[_Union[RepeatedSchedule, _Mapping]] = ..., repeated_schedules: _Optional[_Iterable[_Union[RepeatedSchedule, _Mapping]]] = ...) -> None: ...

class UpdateSource(_message.Message):
    __slots__ = ("kernel_command", "os_repo_url", "custom_repos")
    KERNEL_COMMAND_FIELD_NUMBER: _ClassVar[int]
    OS_REPO_URL_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_REPOS_FIELD_NUMBER: _ClassVar[int]
    kernel_command: str
    os_repo_url: str
    custom_repos: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kernel_command: _Optional[str] = ..., os_repo_url: _Optional[str] = ..., custom_repos: _Optional[_Iterable[str]] = ...) -> None: ...

class OSProfileUpdateSource(_message.Message):
    __slots__ = ("os_image_url", "os_image_id", "os_image_sha", "profile_name", "profile_version")
    OS_IMAGE_URL_FIELD_NUMBER: _ClassVar[int]
    OS_IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    OS_IMAGE_SHA_FIELD_NUMBER: _ClassVar[int]
    PROFILE_NAME_FIELD_NUMBER: _ClassVar[int]
    PROFILE_VERSION_FIELD_NUMBER: _ClassVar[int]
    os_image_url: str
    os_image_id: str
    os_image_sha: str
    profile_name: str
    profile_version: str
    def __init__(self, os_image_url: _Optional[str] = ..., os_image_id: _Optional[str] = ..., os_image_sha: _Optional[str] = ..., profile_name: _Optional[str] = ..., profile_version: _Optional[str] = ...) -> None: ...

class PlatformUpdateStatusResponse(_message.Message):
    __slots__ = ("update_source", "update_schedule", "installed_packages", "os_type", "os_profile_update_source")
    class OSType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OS_TYPE_UNSPECIFIED: _ClassVar[PlatformUpdateStatusResponse.OSType]
        OS_TYPE_MUTABLE: _ClassVar[PlatformUpdateStatusResponse.OSType]
        OS_TYPE_IMMUTABLE: _ClassVar[PlatformUpdateStatusResponse.OSType]
    OS_TYPE_UNSPECIFIED: PlatformUpdateStatusResponse.OSType
    OS_TYPE_MUTABLE: PlatformUpdateStatusResponse.OSType
    OS_TYPE_IMMUTABLE: PlatformUpdateStatusResponse.OSType
    UPDATE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_PACKAGES_FIELD_NUMBER: _ClassVar[int]
    OS_TYPE_FIELD_NUMBER: _ClassVar[int]
    OS_PROFILE_UPDATE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    update_source: UpdateSource
    update_schedule: UpdateSchedule
    installed_packages: str
    os_type: PlatformUpdateStatusResponse.OSType
    os_profile_update_source: OSProfileUpdateSource
    def __init__(self, update_source: _Optional[_Union[UpdateSource, _Mapping]] = ..., update_schedule: _Optional[_Union[UpdateSchedule, _Mapping]] = ..., installed_packages: _Optional[str] = ..., os_type: _Optional[_Union[PlatformUpdateStatusResponse.OSType, str]] = ..., os_profile_update_source: _Optional[_Union[OSProfileUpdateSource, _Mapping]] = ...) -> None: ...
