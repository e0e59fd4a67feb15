"""The messages of maintmgr.v1, as attrs classes: what a node sends and what the Maintenance Manager answers.

Names follow the protocol. Schedules are the domain's own classes, of which the protocol can say less (no time zone):
what goes into `UpdateSchedule` has been made sayable before. Validation is the protocol's.
"""

from __future__ import annotations

from attrs import field, frozen

from edge_day2.domain.resources import UUID, OSType
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import InvalidMessage


@frozen(kw_only=True)
class UpdateStatus:
    """What a node says of its update.

    `status_detail` is JSON (see `StatusDetail`). `profile_name`, `profile_version` and `os_image_id` name the image
    that an immutable node runs; `os_update_available` is a mutable node's JSON list of upgradable packages.
    """

    status_type: UpdateStatusType
    status_detail: str = ""
    profile_name: str = ""
    profile_version: str = ""
    os_image_id: str = ""
    os_update_available: str = ""


@frozen(kw_only=True)
class NodeDescription:
    """What every report says of a node, whatever its update does: see `UpdateStatus` for the meaning of each."""

    profile_name: str = ""
    profile_version: str = ""
    os_image_id: str = ""
    os_update_available: str = ""


@frozen(kw_only=True)
class PlatformUpdateStatusRequest:
    """One report of the node with the UUID `host_guid`.

    Raises:
        InvalidMessage: `host_guid` isn't a UUID.
    """

    host_guid: str
    update_status: UpdateStatus

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.host_guid, str) or UUID.fullmatch(self.host_guid) is None:
            raise InvalidMessage("host_guid", self.host_guid, "a UUID of 8-4-4-4-12 hex digits")


@frozen(kw_only=True)
class UpdateSchedule:
    """When the node may update itself: at most one single schedule, any number of repeated ones."""

    single_schedule: SingleSchedule | None = None
    repeated_schedules: tuple[RepeatedSchedule, ...] = ()

    @property
    def repeated_schedule(self) -> RepeatedSchedule | None:
        """The protocol's deprecated field for old agents: the first of `repeated_schedules`."""
        return self.repeated_schedules[0] if self.repeated_schedules else None


@frozen(kw_only=True)
class UpdateSource:
    """What a mutable node applies: kernel command line ("": leave it alone) and deb822 apt sources."""

    kernel_command: str = ""
    custom_repos: tuple[str, ...] = ()


@frozen(kw_only=True)
class OSProfileUpdateSource:
    """The image that an immutable node should run. `os_image_url` may be relative to the Release Service."""

    os_image_url: str
    os_image_id: str
    os_image_sha: str
    profile_name: str
    profile_version: str = ""


@frozen(kw_only=True)
class PlatformUpdateStatusResponse:
    """The Maintenance Manager's answer. `installed_packages` is a newline separated list of packages to install.

    `os_type` is None where the Maintenance Manager named none, or one that this version doesn't know.
    """

    os_type: OSType | None
    update_source: UpdateSource = UpdateSource()
    update_schedule: UpdateSchedule = field(factory=UpdateSchedule)
    installed_packages: str = ""
    os_profile_update_source: OSProfileUpdateSource | None = None
