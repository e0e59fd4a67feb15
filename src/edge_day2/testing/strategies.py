"""Hypothesis strategies for what goes into and comes out of edge_day2: targets, events, observations, flow states,
windows, schedules, reports and Inventory resources.

Everything that they draw is valid. Texts are short and times lie in 2026, so that a failing example is easy to read.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import attrs
from hypothesis import strategies as st

from edge_day2.domain.flow import Event, Failure, Flow, FlowState
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.immutable_events import Image, ImmutableTarget
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.mutable_effects import MutableUpdate, fingerprint
from edge_day2.domain.mutable_events import Packages, PackageTarget, Snapshot
from edge_day2.domain.observation import BootEntry, Observation, PackageDatabase, Slot, TrialEvidence
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    Trust,
    os_resource_id,
)
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    StatusDetail,
    UpdateAction,
    UpdateLogEntry,
    UpdateStatusType,
    UpdateType,
)
from edge_day2.testing.message_strategies import (
    platform_update_status_requests,
    platform_update_status_responses,
    update_schedules,
)
from edge_day2.testing.schedule_strategies import repeated_schedules, single_schedules

__all__ = [
    "boot_entries",
    "events",
    "failures",
    "flow_states",
    "hosts",
    "images",
    "immutable_targets",
    "immutable_updates",
    "instances",
    "instants",
    "mutable_updates",
    "observations",
    "os_resources",
    "package_targets",
    "packages",
    "platform_update_status_requests",
    "platform_update_status_responses",
    "repeated_schedules",
    "single_schedules",
    "snapshots",
    "status_details",
    "update_log_entries",
    "update_schedules",
    "update_statuses",
    "windows",
]

_T = TypeVar("_T")

_FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NAMES: Final = st.text("abcxyz0123456789", min_size=1, max_size=8)
_BOOTS: Final = st.sampled_from(("boot-0", "boot-1", "boot-2"))
_KERNEL_COMMAND_LINES: Final = st.sampled_from(("", "quiet", "console=ttyS0,115200n8 quiet", "hugepages=16"))
_PACKAGE_NAMES: Final = st.sampled_from(("curl", "vim", "libc6", "linux-image-6.8", "platform-update-agent"))


def instants() -> st.SearchStrategy[datetime]:
    """Whole minutes of 2026, in UTC."""
    return st.integers(0, 365 * 24 * 60 - 1).map(lambda minutes: _FIRST + timedelta(minutes=minutes))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Windows of up to a day; some are open-ended."""
    start = draw(instants())
    minutes = draw(st.none() | st.integers(1, 24 * 60))
    return Window(start, None if minutes is None else start + timedelta(minutes=minutes))


def images(profile_name: str = "microvisor-nonrt") -> st.SearchStrategy[Image]:
    """One of a few images of one profile, so that two of them are often the same."""

    def image(number: int) -> Image:
        return Image(
            profile_name=profile_name,
            image_id=f"3.0.2026010{number}",
            sha256=f"{number}" * 64,
            url=f"files/edge-3.0.2026010{number}.raw.gz",
        )

    return st.integers(1, 4).map(image)


def immutable_targets(image: st.SearchStrategy[Image | None] | None = None) -> st.SearchStrategy[ImmutableTarget]:
    """What an A/B node may be told to run: an image (default: some of `images`, or none), a kernel command line."""
    drawn = st.none() | images() if image is None else image
    return st.builds(ImmutableTarget, image=drawn, kernel_command_line=_KERNEL_COMMAND_LINES)


def package_targets() -> st.SearchStrategy[PackageTarget]:
    """What an apt node may be told to apply."""
    return st.builds(
        PackageTarget,
        update_sources=st.sampled_from(((), ("Types: deb\nURIs: https://example.org\n",))),
        update_packages=st.lists(_PACKAGE_NAMES, max_size=3, unique=True).map(tuple),
        kernel_command_line=_KERNEL_COMMAND_LINES,
    )


def packages() -> st.SearchStrategy[Packages]:
    """Installed packages: (name, version), sorted by name."""
    found = st.dictionaries(_PACKAGE_NAMES, st.sampled_from(("1.0", "1.1", "2:3.4-5")), max_size=5)
    return found.map(lambda versions: tuple(sorted(versions.items())))


def snapshots() -> st.SearchStrategy[Snapshot]:
    """Snapshots of an OS."""
    return st.builds(Snapshot, identifier=_NAMES, packages=packages().map(fingerprint))


def boot_entries() -> st.SearchStrategy[BootEntry]:
    """Boot entries: a slot, and one of its two kernel command lines."""
    return st.builds(BootEntry, st.sampled_from(Slot), st.integers(0, 1))


def observations() -> st.SearchStrategy[Observation]:
    """What a node may see of itself, in every combination."""
    return st.builds(
        Observation,
        at=instants(),
        boot_id=_BOOTS,
        active=boot_entries(),
        default=boot_entries(),
        one_shot=st.none() | boot_entries(),
        packages=st.sampled_from(PackageDatabase),
        trial_evidence=st.sampled_from(TrialEvidence),
    )


def failures() -> st.SearchStrategy[Failure]:
    """Why a command may have failed."""
    reasons = st.sampled_from([reason for reason in FailureReason if reason is not FailureReason.NO_FAILURE])
    return st.builds(Failure, at=instants(), reason=reasons, log=_NAMES, conclusive=st.booleans())


@st.composite
def immutable_updates(draw: st.DrawFn) -> ImmutableUpdate:
    """The data of an A/B update that has come far enough for every state: window, origin, trial and failure are set."""
    origin = draw(boot_entries())
    image = draw(images())
    return ImmutableUpdate(
        target=ImmutableTarget(image=image, kernel_command_line=draw(_KERNEL_COMMAND_LINES)),
        next_target=draw(st.none() | immutable_targets(images())),
        window=draw(windows()),
        running=draw(images()),
        origin=origin,
        trial=draw(st.sampled_from((origin.beside(), origin.opposite()))),
        pause_log=draw(st.sampled_from(("", "the maintenance window closed"))),
        boot_id=draw(_BOOTS),
        failure=draw(failures()),
        rollbacks=draw(st.integers(0, 3)),
        boot_failures=draw(st.integers(0, 3)),
        interruptions=draw(st.integers(0, 3)),
        retries=draw(st.integers(0, 3)),
    )


def mutable_updates() -> st.SearchStrategy[MutableUpdate]:
    """The data of an apt update that has come far enough for every state: window, snapshot and failure are set."""
    return st.builds(
        MutableUpdate,
        target=package_targets(),
        window=windows(),
        begun=st.none() | instants(),
        opened=instants(),
        before=st.none() | packages(),
        untold=st.booleans(),
        interrupted=st.booleans(),
        kernel_command_line_changed=st.booleans(),
        plan=packages(),
        upgrade_plan=packages(),
        snapshot=snapshots(),
        stale_snapshot=st.just("") | _NAMES,
        update_log=st.lists(update_log_entries(), max_size=2).map(tuple),
        boot_id=_BOOTS,
        owed_boot_id=st.just("") | _BOOTS,
        failure=failures(),
        repairs=st.integers(0, 3),
        repair_log=st.just("") | _NAMES,
        rollbacks=st.integers(0, 3),
        rollback_log=st.just("") | _NAMES,
        retries=st.integers(0, 3),
    )


@st.composite
def flow_states(draw: st.DrawFn, flow: Flow[_T], name: str | None = None) -> FlowState[_T]:
    """States of `flow`, one of which is named `name`, or any."""
    updates: st.SearchStrategy[Any] = immutable_updates() if flow.name == IMMUTABLE_FLOW.name else mutable_updates()
    return FlowState(flow.name, draw(st.sampled_from(flow.states)) if name is None else name, draw(updates))


def events(flow: Flow[Any], name: str | None = None) -> st.SearchStrategy[Event]:
    """Events of `flow`: those named `name`, or any. Whether a state accepts them is another matter.

    Targets of an A/B flow name an image, so that every event that a state accepts can follow on every other.
    """
    if name is not None:
        return _event(flow, flow.events[name])
    return st.sampled_from(sorted(flow.events)).flatmap(lambda drawn: _event(flow, flow.events[drawn]))


def _event(flow: Flow[Any], kind: type[Event]) -> st.SearchStrategy[Event]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "at": instants(),
        "window": windows(),
        "target": immutable_targets(images()) if flow.name == IMMUTABLE_FLOW.name else package_targets(),
        "failure": failures(),
        "running": images(),
        "observation": observations(),
        "boot_id": _BOOTS,
        "log": _NAMES,
        "installed": packages(),
        "plan": packages(),
        "snapshot": snapshots(),
        "update_log": st.lists(update_log_entries(), max_size=2).map(tuple),
        "untold": st.booleans(),
    }
    return st.builds(kind, **{field.name: fields[field.name] for field in attrs.fields(kind)})


def update_log_entries() -> st.SearchStrategy[UpdateLogEntry]:
    """Lines of an update log."""
    return st.builds(
        UpdateLogEntry,
        package_name=_PACKAGE_NAMES,
        update_time=instants(),
        update_type=st.sampled_from(UpdateType),
        action=st.sampled_from(UpdateAction),
        status=st.sampled_from((EntryStatus.FAILED, EntryStatus.ROLLED_BACK)),
        version=st.sampled_from(("", "1.0", "1.1")),
        previous_version=st.sampled_from(("", "1.0")),
        failure_reason=st.sampled_from(FailureReason),
        failure_log=_NAMES,
    ).flatmap(lambda entry: st.sampled_from((entry, _installed(entry))))


def _installed(entry: UpdateLogEntry) -> UpdateLogEntry:
    return attrs.evolve(entry, status=EntryStatus.INSTALLED, failure_reason=FailureReason.NO_FAILURE, failure_log="")


def status_details() -> st.SearchStrategy[StatusDetail]:
    """Status details: an update log, a sentence, or both."""
    log = st.lists(update_log_entries(), max_size=3).map(tuple)
    return st.builds(StatusDetail, update_log=log, message=st.just("") | _NAMES)


def update_statuses() -> st.SearchStrategy[UpdateStatus]:
    """Reports of a node, with and without status detail and image."""
    image = images().map(lambda image: (image.profile_name, image.image_id))

    def status(kind: UpdateStatusType, detail: StatusDetail | None, image: tuple[str, str]) -> UpdateStatus:
        text = detail.to_json() if detail is not None else ""
        return UpdateStatus(status_type=kind, status_detail=text, profile_name=image[0], os_image_id=image[1])

    details = st.none() | status_details()
    return st.builds(status, st.sampled_from(UpdateStatusType), details, image | st.just(("", "")))


@st.composite
def os_resources(draw: st.DrawFn, tenant_id: str = "tenant", os_type: OSType | None = None) -> OSResource:
    """OS Resources of one tenant, of `os_type` or of either, with the ids that the OS Resource Manager gives them."""
    kind = draw(st.sampled_from(OSType)) if os_type is None else os_type
    immutable = kind is OSType.IMMUTABLE
    image = draw(images("microvisor-nonrt" if immutable else "ubuntu-22.04-lts"))
    target = draw(package_targets())
    return OSResource(
        resource_id=os_resource_id(tenant_id, image.profile_name, image.image_id),
        tenant_id=tenant_id,
        name=f"{image.profile_name} {image.image_id}",
        os_type=kind,
        profile_name=image.profile_name,
        image_id=image.image_id,
        sha256=image.sha256,
        image_url=image.url,
        update_sources=() if immutable else target.update_sources,
        update_packages=() if immutable else target.update_packages,
        kernel_command_line=target.kernel_command_line,
    )


def hosts(tenant_id: str = "tenant") -> st.SearchStrategy[Host]:
    """Hosts of one tenant."""

    def host(guid: Any, name: str, trust: Trust) -> Host:
        text = str(guid)
        return Host(resource_id=f"host-{text[:8]}", tenant_id=tenant_id, guid=text, name=name, trust=trust)

    return st.builds(host, st.uuids(), _NAMES, st.sampled_from(Trust))


@st.composite
def instances(draw: st.DrawFn, host: Host, current: OSResource) -> Instance:
    """Instances that run `current` on `host`."""
    return Instance(
        resource_id=f"instance-{draw(_NAMES)}",
        tenant_id=host.tenant_id,
        host_id=host.resource_id,
        os_type=current.os_type,
        current_os_id=current.resource_id,
        desired_os_id=current.resource_id,
    )
