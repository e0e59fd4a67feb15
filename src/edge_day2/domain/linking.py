"""What the OS Resource Manager creates, patches and links: a pure plan, from manifests and Inventory to changes.

What lives here: which OS Resource a manifest becomes, what of it may be patched, what is a conflict, and which desired
OS an instance gets. What never will: fetching manifests, transactions, retries (application/os_resource_manager.py).

The rules, from the first diagram of the system's description:

- every manifest whose identity (tenant, profile name, image version) is new becomes an OS Resource; one that exists is
  patched with what the manifest says now. Whatever is missing is created, whether or not the revision has changed: a
  run that was interrupted is completed by the next one, and without a new revision there is nothing new to create;
- an image never changes under its identity. A manifest that says otherwise is a conflict: it is reported, nothing of
  it is applied, and no instance is linked to that OS Resource while the newest manifest disagrees with it;
- what only an admin can know (apt sources, packages, kernel command line) is kept, and so is a list of CVEs or packages
  that couldn't be downloaded now;
- mode MANUAL links nothing. Mode AUTOMATIC links the desired OS of each immutable instance to the latest of its profile
  and architecture in the revision, at every run, and never down: a node that was added later, or linked down by hand,
  follows. Who wants to choose uses MANUAL.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
from attrs import field, frozen

from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.reconciled import LinkingMode as LinkingMode
from edge_day2.domain.resources import Instance, Link, OSResource, OSType, link_desired_os, patch_os_resource

# What a manifest says and may say differently later. The other fields that it says belong to the image.
_PATCHED: Final = (
    "name",
    "description",
    "metadata",
    "platform_bundle",
    "package_manifest_url",
    "existing_cves_url",
    "fixed_cves_url",
    "tls_ca_cert",
)
_FIXED: Final = ("sha256", "image_url", "os_type", "os_provider", "architecture", "security_feature")


class SkipReason(enum.Enum):
    """Why an instance isn't linked."""

    MUTABLE = "a mutable OS is patched in place"
    UP_TO_DATE = "its desired OS is the latest of its profile, or newer"
    RUNS_NEWER = "it runs a newer OS than the latest of its profile"
    NOTHING_TO_LINK = "its profile has no OS in this revision"
    UNKNOWN_OS = "its current or desired OS doesn't exist"
    ROLLOUT = "a rollout decides when it is linked"


@frozen(kw_only=True)
class DiscoveredProfile:
    """A profile and the revision whose manifest it was read from.

    `lists` are what was downloaded for it, as (field of the OS Resource, text); a field that isn't there is kept.
    """

    revision: str
    profile: OSProfile
    lists: tuple[tuple[str, str], ...] = ()

    def offered(self, tenant_id: str) -> OSResource:
        """Return the OS Resource that the tenant's Inventory should hold for it."""
        downloaded: dict[str, Any] = dict(self.lists)
        return attrs.evolve(self.profile.to_os_resource(tenant_id=tenant_id), **downloaded)

    def without_lists(self) -> DiscoveredProfile:
        """Return it as if nothing had been downloaded for it."""
        return attrs.evolve(self, lists=())


@frozen
class CreateOSResource:
    """The profile's image has no OS Resource yet."""

    revision: str
    resource: OSResource


@frozen
class PatchOSResource:
    """The manifest says something new about an OS Resource that exists."""

    revision: str
    old: OSResource
    new: OSResource


@frozen(kw_only=True)
class ImageConflict:
    """A manifest says another thing than the OS Resource under the same identity. It is never applied."""

    revision: str
    profile_name: str
    image_id: str
    field: str
    stored: object
    found: object

    def __str__(self) -> str:
        return (
            f"{self.profile_name} {self.image_id}: revision {self.revision} says {self.field} {self.found}, the "
            f"Inventory holds {self.stored}; publish a changed image under a new version"
        )


@frozen
class LinkDesiredOS:
    """An instance whose desired OS moves up."""

    instance: Instance
    current: OSResource
    desired: OSResource

    def linked(self) -> Instance:
        """Return the instance with its new desired OS."""
        return link_desired_os(self.instance, self.current, self.desired)


@frozen
class SkippedInstance:
    """An instance that keeps its desired OS."""

    instance_id: str
    reason: SkipReason


@frozen(kw_only=True)
class LinkingPlan:
    """All changes to OS Resources, and the decision about any instance.

    `targets` are the OS Resources that instances are linked to, one for each profile and architecture; none in MANUAL.
    `held` are the ids of those that rollouts link.
    """

    changes: tuple[CreateOSResource | PatchOSResource, ...]
    conflicts: tuple[ImageConflict, ...]
    targets: tuple[OSResource, ...]
    held: frozenset[str] = frozenset()
    _resources: Mapping[str, OSResource] = field(repr=False)
    _verdicts: dict[Link, OSResource | SkipReason] = field(factory=dict, repr=False, eq=False, init=False)

    def links(self, instances: Iterable[Instance]) -> Iterator[LinkDesiredOS | SkippedInstance]:
        """Yield the decision about each instance, in their order, holding none of them."""
        return map(self.link, instances)

    def link(self, instance: Instance) -> LinkDesiredOS | SkippedInstance:
        """Return what becomes of one instance's desired OS."""
        verdict = self.judge(Link(instance.os_type, instance.current_os_id, instance.desired_os_id))
        if isinstance(verdict, SkipReason):
            return SkippedInstance(instance.resource_id, verdict)
        return LinkDesiredOS(instance, self._resources[instance.current_os_id], verdict)

    def judge(self, link: Link) -> OSResource | SkipReason:
        """Return the OS Resource that instances with this link should get, or why they keep theirs."""
        # Instances are many, links few.
        verdict = self._verdicts.get(link)
        if verdict is None:
            verdict = self._verdicts[link] = self._judge(link)
        return verdict

    def without(self, resource_ids: frozenset[str]) -> LinkingPlan:
        """Return the plan without the targets among `resource_ids`."""
        kept = tuple(target for target in self.targets if target.resource_id not in resource_ids)
        return attrs.evolve(self, targets=kept)

    def holding(self, resource_ids: frozenset[str]) -> LinkingPlan:
        """Return the plan that leaves the targets among `resource_ids` to rollouts."""
        return attrs.evolve(self, held=resource_ids)

    def _judge(self, link: Link) -> OSResource | SkipReason:
        if link.os_type is OSType.MUTABLE:
            return SkipReason.MUTABLE
        current, desired = self._resources.get(link.current_os_id), self._resources.get(link.desired_os_id)
        if current is None or desired is None:
            return SkipReason.UNKNOWN_OS
        wanted = _group(current)
        target = next((target for target in self.targets if _group(target) == wanted), None)
        if target is None:
            return SkipReason.NOTHING_TO_LINK
        if desired.image_version >= target.image_version:
            return SkipReason.UP_TO_DATE
        if current.image_version > target.image_version:
            return SkipReason.RUNS_NEWER
        return SkipReason.ROLLOUT if target.resource_id in self.held else target


def plan_linking(
    discovered: Iterable[DiscoveredProfile], resources: Iterable[OSResource], *, tenant_id: str, mode: LinkingMode
) -> LinkingPlan:
    """Return what to change so that the tenant's Inventory follows the manifests.

    `discovered` comes oldest revision first: of several manifests with one identity the newest that agrees with the
    image decides. `resources` are all of the tenant's OS Resources.
    """
    known = {resource.resource_id: resource for resource in resources}
    by_identity = {(resource.profile_name, resource.image_id): resource for resource in known.values()}
    offers: dict[tuple[str, str], list[DiscoveredProfile]] = {}
    for found in discovered:
        offers.setdefault((found.profile.profile_name, found.profile.image_version.text), []).append(found)

    changes: list[CreateOSResource | PatchOSResource] = []
    conflicts: list[ImageConflict] = []
    candidates: list[OSResource] = []
    for identity, manifests in offers.items():
        newest = manifests[-1]
        stored = by_identity.get(identity)
        kept = stored or newest.offered(tenant_id)
        agreeing = None
        for manifest in manifests:
            contradictions = _contradictions(manifest, kept, tenant_id)
            conflicts += contradictions
            agreeing = agreeing if contradictions else manifest
        if stored is None:
            changes.append(CreateOSResource(newest.revision, kept))
        elif agreeing is not None:
            kept = _patched(stored, agreeing, tenant_id)
            if kept != stored:
                changes.append(PatchOSResource(agreeing.revision, stored, kept))
        known[kept.resource_id] = kept
        if agreeing is newest and kept.os_type is OSType.IMMUTABLE:
            candidates.append(kept)
    return LinkingPlan(
        changes=tuple(changes),
        conflicts=tuple(dict.fromkeys(conflicts)),
        targets=_latest(candidates) if mode is LinkingMode.AUTOMATIC else (),
        resources=known,
    )


def discovery_digest(discovered: Iterable[DiscoveredProfile]) -> str:
    """Return the SHA-256 of all that is published: each profile with its revision, what it says, and its lists.

    In hex digits. The order of `discovered` doesn't matter. What a manifest says counts, not how it is written down.
    """
    parts = sorted(
        hashlib.sha256(repr((found.revision, attrs.astuple(found.profile), found.lists)).encode()).digest()
        for found in discovered
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _group(resource: OSResource) -> tuple[OSType, str, str]:
    return resource.os_type, resource.profile_name, resource.architecture


def _latest(candidates: list[OSResource]) -> tuple[OSResource, ...]:
    latest: dict[tuple[OSType, str, str], OSResource] = {}
    for candidate in candidates:
        best = latest.setdefault(_group(candidate), candidate)
        if candidate.image_version > best.image_version:
            latest[_group(candidate)] = candidate
    return tuple(latest.values())


def _contradictions(found: DiscoveredProfile, kept: OSResource, tenant_id: str) -> list[ImageConflict]:
    offered = found.offered(tenant_id)
    return [
        ImageConflict(
            revision=found.revision,
            profile_name=kept.profile_name,
            image_id=kept.image_id,
            field=name,
            stored=getattr(kept, name),
            found=getattr(offered, name),
        )
        for name in _FIXED
        if getattr(kept, name) != getattr(offered, name)
    ]


def _patched(stored: OSResource, manifest: DiscoveredProfile, tenant_id: str) -> OSResource:
    offered = manifest.offered(tenant_id)
    names = (*_PATCHED, *(name for name, _ in manifest.lists))
    return patch_os_resource(stored, attrs.evolve(stored, **{name: getattr(offered, name) for name in names}))
