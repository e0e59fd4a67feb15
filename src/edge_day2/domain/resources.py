"""What the Inventory holds, and the rules by which it may change.

Resources are frozen; a change makes a new object. The functions below are the only ways in which an instance's current
and desired OS, or an OS Resource's content, may change:

- mutable: current and desired OS are always the same OS Resource, which is patched and never replaced;
- immutable: the desired link moves freely within OS type, profile name and architecture; the current link is moved by
  a verified update alone; the OS Resource's image never changes.

Field names and limits follow the original Inventory (os.proto, compute.proto, schedule.proto).
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, TypeGuard

import attrs
from attrs import field, frozen

from edge_day2.domain.field_rules import aware, field_name, not_empty
from edge_day2.domain.reconciled import ReconciledRevision
from edge_day2.domain.rollout import Rollout, bucket_of
from edge_day2.domain.schedules import Schedule, ScheduleKind
from edge_day2.domain.statuses import UpdateRecord
from edge_day2.domain.versions import ImageVersion
from edge_day2.errors import FailedPrecondition, ImmutableLinkError, InvalidResource, shown

SHA256: Final = re.compile(r"[0-9a-f]{64}")
UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# The original's alphabet; `:` and `+` are refused although some kernels need them.
KERNEL_COMMAND_LINE: Final = re.compile(r"[A-Za-z0-9\-_=.,/ ]*")

_MAX_KERNEL_COMMAND_LINE: Final = 500
_MAX_SOURCES: Final = 100
_MAX_SOURCE: Final = 10_000
_MAX_PACKAGES: Final = 500_000


class OSType(enum.Enum):
    """Kind of operating system; numbers as in the original's OsType."""

    MUTABLE = 1
    IMMUTABLE = 2


class OSProvider(enum.Enum):
    """Who provides the OS; numbers as in the original's OsProviderKind."""

    INFRA = 1
    LENOVO = 2


class SecurityFeature(enum.Enum):
    """Security feature of an OS; numbers as in the original's SecurityFeature."""

    NONE = 1
    SECURE_BOOT_AND_FULL_DISK_ENCRYPTION = 2


class UpdatePolicyKind(enum.Enum):
    """How an update policy picks what to install; numbers as in the original's UpdatePolicy."""

    LATEST = 1
    TARGET = 2


class Provisioning(enum.Enum):
    """How far the onboarding of an instance has come. Only a provisioned instance is updated."""

    PENDING = "pending"
    PROVISIONED = "provisioned"


class Trust(enum.Enum):
    """Whether the orchestrator believes the host."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class TargetLevel(enum.Enum):
    """The level of the location tree that a schedule is attached to."""

    HOST = "host"
    SITE = "site"
    REGION = "region"


def _kernel_command_line(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    check_kernel_command_line(value, field_name(instance, attribute))


def check_kernel_command_line(value: str, name: str, alphabet: re.Pattern[str] = KERNEL_COMMAND_LINE) -> None:
    """Refuse a kernel command line that a shell or a boot loader could misread.

    Raises:
        InvalidResource: a character outside `alphabet` (default: the original's), or more than 500 characters.
    """
    if not isinstance(value, str) or len(value) > _MAX_KERNEL_COMMAND_LINE or alphabet.fullmatch(value) is None:
        allowed = f"at most {_MAX_KERNEL_COMMAND_LINE} characters that match {alphabet.pattern}"
        raise InvalidResource(name, value, allowed)


def check_update_sources(value: tuple[str, ...], name: str) -> None:
    """Refuse a set of apt sources that is too large. What each says is the business of whoever applies it.

    Raises:
        InvalidResource: more than 100 sources, or one that is blank or has more than 10,000 characters.
    """
    if len(value) > _MAX_SOURCES:
        raise InvalidResource(name, len(value), f"at most {_MAX_SOURCES} apt sources")
    for source in value:
        if not source.strip() or len(source) > _MAX_SOURCE:
            raise InvalidResource(name, source, f"a deb822 text of 1 to {_MAX_SOURCE} characters")


def _sources(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    check_update_sources(value, field_name(instance, attribute))


def _packages(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if sum(len(package) + 1 for package in value) > _MAX_PACKAGES:
        raise InvalidResource(
            field_name(instance, attribute), len(value), f"at most {_MAX_PACKAGES} characters of names"
        )


LISTS: Final = ("existing_cves", "fixed_cves", "installed_packages")
"""The fields of an OS Resource that hold what was downloaded for it."""


@frozen(kw_only=True)
class OSResource:
    """An operating system that instances can run.

    Identity is (tenant, profile name, image id). `image_url` may be relative to the Release Service. For a mutable OS
    `update_sources` (deb822 texts), `update_packages` (package names to install) and `kernel_command_line` say what an
    update applies; for an immutable OS only `kernel_command_line` does, beside the image.

    Raises:
        InvalidResource: a name is empty, the sha256 isn't 64 lower-case hex digits, or a limit is passed.
        InvalidVersion: the image id has no place in the order of versions.
    """

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    name: str = field(validator=not_empty)
    os_type: OSType
    profile_name: str = field(validator=not_empty)
    image_id: str = field(validator=not_empty)
    sha256: str
    image_url: str = ""
    profile_version: str = ""
    architecture: str = "x86_64"
    os_provider: OSProvider = OSProvider.INFRA
    security_feature: SecurityFeature = SecurityFeature.NONE
    description: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    platform_bundle: tuple[tuple[str, str], ...] = ()
    package_manifest_url: str = ""
    existing_cves_url: str = ""
    fixed_cves_url: str = ""
    existing_cves: str = ""
    fixed_cves: str = ""
    installed_packages: str = ""
    tls_ca_cert: str = ""
    update_sources: tuple[str, ...] = field(default=(), validator=_sources)
    update_packages: tuple[str, ...] = field(default=(), validator=_packages)
    kernel_command_line: str = field(default="", validator=_kernel_command_line)

    def __attrs_post_init__(self) -> None:
        ImageVersion.parse(self.image_id)
        if SHA256.fullmatch(self.sha256) is None:
            raise InvalidResource("OSResource.sha256", self.sha256, "64 lower-case hex digits")
        if self.os_type is OSType.IMMUTABLE:
            if not self.image_url:
                raise InvalidResource("OSResource.image_url", self.image_url, "the address of the immutable OS's image")
            if self.update_sources or self.update_packages:
                found = self.update_sources or self.update_packages
                raise InvalidResource("OSResource.update_sources", found, "no apt sources or packages on an image")

    @property
    def image_version(self) -> ImageVersion:
        """The image id as an ordered version."""
        return ImageVersion.parse(self.image_id)

    @property
    def identity(self) -> tuple[str, str, str]:
        """(tenant, profile name, image id): what makes this OS Resource one and the same."""
        return self.tenant_id, self.profile_name, self.image_id


@frozen(kw_only=True)
class Region:
    """A part of the location tree; `parent_id` is the region around it, None at the top."""

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    name: str = field(validator=not_empty)
    parent_id: str | None = None


@frozen(kw_only=True)
class Site:
    """A place with hosts, in a region or in none."""

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    name: str = field(validator=not_empty)
    region_id: str | None = None


@frozen(kw_only=True)
class Host:
    """An Edge Node's hardware, known by its `guid` (the machine's UUID). One that isn't trusted is refused.

    Raises:
        InvalidResource: `guid` isn't a UUID, or a text is empty.
    """

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    guid: str
    name: str = field(validator=not_empty)
    site_id: str | None = None
    trust: Trust = Trust.TRUSTED

    def __attrs_post_init__(self) -> None:
        if UUID.fullmatch(self.guid) is None:
            raise InvalidResource("Host.guid", self.guid, "a UUID of 8-4-4-4-12 hex digits")

    @property
    def bucket(self) -> int:
        """Where the host stands in the order in which rollouts reach hosts, 0 to 9,999; see `rollout.bucket_of`."""
        return bucket_of(self.guid)


@frozen(kw_only=True)
class Instance:
    """An OS on a host: which OS it runs (`current_os_id`) and which one it should (`desired_os_id`).

    `update` is the outcome that the Maintenance Manager recorded last. `last_seen` is kept while an update is in
    progress only, and coarsely, so that a report that changes nothing needs no write. `admitted_at` is when a rollout
    gave it its desired OS: an update that failed before that was another one. `os_update_available` is a mutable
    node's own list of upgradable packages (JSON), `existing_cves` what is known of the CVEs of its current OS (JSON).

    Raises:
        ImmutableLinkError: the OS is mutable, and current and desired OS differ.
        InvalidResource: a text is empty, or a datetime naive.
    """

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    host_id: str = field(validator=not_empty)
    os_type: OSType
    current_os_id: str = field(validator=not_empty)
    desired_os_id: str = field(validator=not_empty)
    os_update_policy_id: str | None = None
    provisioning: Provisioning = Provisioning.PROVISIONED
    update: UpdateRecord = UpdateRecord()
    last_seen: datetime | None = field(default=None, validator=aware)
    os_update_available: str = ""
    existing_cves: str = ""
    admitted_at: datetime | None = field(default=None, validator=aware)

    def __attrs_post_init__(self) -> None:
        if self.os_type is OSType.MUTABLE and self.current_os_id != self.desired_os_id:
            raise ImmutableLinkError(
                f"instance {shown(self.resource_id)}: a mutable OS is patched in place, so current OS "
                f"{shown(self.current_os_id)} and desired OS {shown(self.desired_os_id)} must be the same OS Resource"
            )


@frozen
class Link:
    """What many instances have in common: the kind of OS, which one they run, and which one they should."""

    os_type: OSType
    current_os_id: str
    desired_os_id: str


@frozen(kw_only=True)
class ScheduleTarget:
    """Where a schedule is attached; it applies to everything below."""

    level: TargetLevel
    resource_id: str = field(validator=not_empty)


@frozen(kw_only=True)
class ScheduleResource:
    """A schedule with its kind and target. One without a target applies to nothing."""

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    name: str = field(validator=not_empty)
    schedule: Schedule
    kind: ScheduleKind = ScheduleKind.OS_UPDATE
    target: ScheduleTarget | None = None


@frozen(kw_only=True)
class OSUpdatePolicy:
    """What an update of the instances that refer to it applies (the original's newer form).

    LATEST takes the highest image version of the instance's profile and has no other content. TARGET names an OS
    Resource, or packages and sources, with or without a kernel command line, which may also stand alone.

    Raises:
        InvalidResource: the content doesn't fit the kind.
    """

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    name: str = field(validator=not_empty)
    kind: UpdatePolicyKind
    description: str = ""
    target_os_id: str | None = None
    update_sources: tuple[str, ...] = field(default=(), validator=_sources)
    update_packages: tuple[str, ...] = field(default=(), validator=_packages)
    kernel_command_line: str = field(default="", validator=_kernel_command_line)

    def __attrs_post_init__(self) -> None:
        packages = bool(self.update_sources or self.update_packages)
        content = bool(packages or self.target_os_id or self.kernel_command_line)
        if self.kind is UpdatePolicyKind.LATEST and content:
            raise InvalidResource("OSUpdatePolicy.kind", self.kind.name, "TARGET where the policy has content")
        if self.kind is UpdatePolicyKind.TARGET and not content:
            raise InvalidResource("OSUpdatePolicy.target_os_id", None, "an OS, packages, sources or a kernel command")
        if self.target_os_id and packages:
            raise InvalidResource("OSUpdatePolicy.target_os_id", self.target_os_id, "no OS beside packages or sources")


@frozen(kw_only=True)
class OSUpdateRun:
    """One update of one instance, from its first report to its end (`end_time` None: still open)."""

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    instance_id: str = field(validator=not_empty)
    name: str = field(validator=not_empty)
    start_time: datetime = field(validator=aware)
    update: UpdateRecord
    description: str = ""
    applied_policy_id: str | None = None
    end_time: datetime | None = field(default=None, validator=aware)


Resource = (
    OSResource
    | Region
    | Site
    | Host
    | Instance
    | ScheduleResource
    | OSUpdatePolicy
    | OSUpdateRun
    | ReconciledRevision
    | Rollout
)


def os_resource_id(tenant_id: str, profile_name: str, image_id: str) -> str:
    """Return the id of the OS Resource with this identity.

    It is derived, not drawn, so that two managers that discover the same profile at once make the same resource.
    """
    identity = "\0".join((tenant_id, profile_name, image_id))
    return f"os-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def check_link(instance: Instance, current: OSResource, desired: OSResource) -> None:
    """Refuse to link `instance`, which runs `current`, to `desired`.

    Raises:
        ImmutableLinkError: the instance's OS is mutable and `desired` is another OS Resource, or tenant, OS type,
            profile name or architecture differ.
    """
    if instance.os_type is OSType.MUTABLE and desired.resource_id != instance.current_os_id:
        raise ImmutableLinkError(
            f"instance {instance.resource_id} runs a mutable OS: patch OS Resource {instance.current_os_id!r} "
            f"instead of linking {desired.resource_id!r}"
        )
    for name in ("tenant_id", "os_type", "profile_name", "architecture"):
        found, expected = getattr(desired, name), getattr(current, name)
        if found != expected:
            raise ImmutableLinkError(
                f"instance {instance.resource_id}: {name} of OS Resource {desired.resource_id!r} is {found!r}, "
                f"its current OS has {expected!r}"
            )


def link_desired_os(instance: Instance, current: OSResource, desired: OSResource) -> Instance:
    """Return `instance` with `desired` as its desired OS.

    Raises:
        ImmutableLinkError: as `check_link`.
    """
    check_link(instance, current, desired)
    return attrs.evolve(instance, desired_os_id=desired.resource_id)


def check_relinkable(link: Link) -> None:
    """Refuse to give another desired OS to instances that have `link`.

    Raises:
        ImmutableLinkError: it is the link of a mutable OS.
    """
    if link.os_type is OSType.MUTABLE:
        raise ImmutableLinkError(f"instances that run {shown(link.current_os_id)} are patched in place, never linked")


def without_lists(resource: OSResource) -> OSResource:
    """Return `resource` without the lists that were downloaded for it, which can be half a million characters each."""
    if any(getattr(resource, name) for name in LISTS):
        return attrs.evolve(resource, existing_cves="", fixed_cves="", installed_packages="")
    return resource


def record_verified_os(instance: Instance, current: OSResource, installed: OSResource) -> Instance:
    """Return `instance` running `installed`, which its node has verified and committed.

    Raises:
        ImmutableLinkError: as `check_link`.
    """
    check_link(instance, current, installed)
    return attrs.evolve(instance, current_os_id=installed.resource_id)


def record_cves(instance: Instance, current: OSResource) -> Instance:
    """Return `instance` with the existing CVEs of `current`, which it runs; with its own where they aren't known."""
    return attrs.evolve(instance, existing_cves=current.existing_cves or instance.existing_cves)


_PATCHABLE_ALWAYS: Final = frozenset(
    {
        "name",
        "description",
        "metadata",
        "platform_bundle",
        "package_manifest_url",
        "existing_cves_url",
        "fixed_cves_url",
        *LISTS,
        "tls_ca_cert",
        "kernel_command_line",
    }
)
_PATCHABLE: Final = {
    OSType.IMMUTABLE: _PATCHABLE_ALWAYS,
    OSType.MUTABLE: _PATCHABLE_ALWAYS | {"update_sources", "update_packages"},
}


def patch_os_resource(old: OSResource, new: OSResource) -> OSResource:
    """Return `new` where it is a lawful patch of `old`.

    Raises:
        InvalidResource: a field differs that may never change, such as the image.
    """
    patchable = _PATCHABLE[old.os_type]
    for attribute in attrs.fields(OSResource):
        found, stored = getattr(new, attribute.name), getattr(old, attribute.name)
        if found != stored and attribute.name not in patchable:
            raise InvalidResource(f"OSResource.{attribute.name}", found, f"{stored!r}, which never changes")
    return new


def moves_region(new: Resource, old: Resource) -> TypeGuard[Region]:
    """Return whether `new`, in the place of `old`, is a region that lies in another one than before."""
    return isinstance(new, Region) and isinstance(old, Region) and new.parent_id not in (None, old.parent_id)


def check_region(region: Region, around: Collection[str | None]) -> None:
    """Refuse a region that would lie in itself. `around` has its parent and, but for a new one, all that it lies in.

    Raises:
        InvalidResource: it's one of those around it.
    """
    if region.resource_id in around:
        expected = f"a region that isn't {region.resource_id!r} and doesn't lie in it"
        raise InvalidResource("Region.parent_id", region.parent_id, expected)


def check_unused(resource: Resource, users: tuple[str, ...]) -> None:
    """Refuse to delete `resource` while the resources `users` refer to it.

    Raises:
        FailedPrecondition: there is a user; the message names up to three.
    """
    if users:
        named = ", ".join(users[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
        raise FailedPrecondition(f"{type(resource).__name__} {resource.resource_id} is used by {named}")
