"""Linking: what holds for any manifests, OS Resources and instances."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.domain.linking import (
    CreateOSResource,
    DiscoveredProfile,
    LinkDesiredOS,
    LinkingMode,
    LinkingPlan,
    plan_linking,
)
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.resources import Instance, OSProvider, OSResource, OSType, SecurityFeature, patch_os_resource
from edge_day2.domain.versions import ImageVersion

# The type goes with the profile, as it does in a Release Service; everything else is drawn from few values, so that
# identities, conflicts and equal versions with different texts are common.
PROFILES = st.builds(
    OSProfile,
    profile_name=st.just("ubuntu"),
    name=st.sampled_from(["one", "two"]),
    os_type=st.just(OSType.MUTABLE),
    os_provider=st.just(OSProvider.INFRA),
    security_feature=st.sampled_from(SecurityFeature),
    architecture=st.sampled_from(["x86_64", "arm64"]),
    image_version=st.sampled_from(["1.0", "1.0.0", "1.2", "1.10", "2.0-rc.1", "2.0"]).map(ImageVersion.parse),
    sha256=st.sampled_from(["0" * 64, "1" * 64]),
    image_url=st.just("files/image.raw.gz"),
    description=st.sampled_from(["", "said"]),
    metadata=st.sampled_from([(), (("release", "one"),)]),
) | st.builds(
    OSProfile,
    profile_name=st.sampled_from(["microvisor-rt", "microvisor-nonrt"]),
    name=st.sampled_from(["one", "two"]),
    os_type=st.just(OSType.IMMUTABLE),
    os_provider=st.just(OSProvider.INFRA),
    security_feature=st.just(SecurityFeature.NONE),
    architecture=st.sampled_from(["x86_64", "arm64"]),
    image_version=st.sampled_from(["1.0", "1.0.0", "1.2", "1.10", "2.0-rc.1", "2.0"]).map(ImageVersion.parse),
    sha256=st.sampled_from(["0" * 64, "1" * 64]),
    image_url=st.just("files/image.raw.gz"),
    description=st.sampled_from(["", "said"]),
    metadata=st.sampled_from([(), (("release", "one"),)]),
)
DISCOVERED = st.lists(
    st.builds(DiscoveredProfile, revision=st.sampled_from(["0.9.7", "0.9.8"]), profile=PROFILES), max_size=8
).map(lambda found: sorted(found, key=lambda item: item.revision))


@st.composite
def inventories(draw: st.DrawFn) -> tuple[tuple[OSResource, ...], tuple[Instance, ...]]:
    """Lawful content: unique identities, desired links within type, profile and architecture."""
    profiles = draw(st.lists(PROFILES, max_size=6))
    found = {resource.identity: resource for resource in (p.to_os_resource(tenant_id="tenant") for p in profiles)}
    resources = []
    for resource in found.values():
        packages = ("curl",) if resource.os_type is OSType.MUTABLE and draw(st.booleans()) else ()
        content = attrs.evolve(resource, update_packages=packages, existing_cves=draw(st.sampled_from(["", "[]"])))
        resources.append(content)
    instances = []
    for number in range(draw(st.integers(0, 4)) if resources else 0):
        current = draw(st.sampled_from(resources))
        choices = [other for other in resources if group(other) == group(current)]
        wanted = draw(st.sampled_from(choices)) if current.os_type is OSType.IMMUTABLE else current
        instances.append(
            Instance(
                resource_id=f"inst-{number}",
                tenant_id="tenant",
                host_id=f"host-{number}",
                os_type=current.os_type,
                current_os_id=current.resource_id,
                desired_os_id=wanted.resource_id,
            )
        )
    return tuple(resources), tuple(instances)


def group(resource: OSResource) -> tuple[OSType, str, str]:
    return resource.os_type, resource.profile_name, resource.architecture


def plan(discovered: list[DiscoveredProfile], resources: tuple[OSResource, ...], mode: LinkingMode) -> LinkingPlan:
    return plan_linking(discovered, resources, tenant_id="tenant", mode=mode)


def applied(changes: LinkingPlan, resources: tuple[OSResource, ...]) -> dict[str, OSResource]:
    """Carry out a plan as an Inventory would, which refuses what is unlawful."""
    content = {resource.resource_id: resource for resource in resources}
    for change in changes.changes:
        if isinstance(change, CreateOSResource):
            assert change.resource.resource_id not in content
            content[change.resource.resource_id] = change.resource
        else:
            assert content[change.old.resource_id] == change.old
            content[change.old.resource_id] = patch_os_resource(change.old, change.new)
    assert len({resource.identity for resource in content.values()}) == len(content)
    return content


@given(DISCOVERED, inventories(), st.sampled_from(LinkingMode))
def test_a_second_plan_has_nothing_to_change(
    discovered: list[DiscoveredProfile],
    inventory: tuple[tuple[OSResource, ...], tuple[Instance, ...]],
    mode: LinkingMode,
) -> None:
    resources, instances = inventory
    first = plan(discovered, resources, mode)
    content = applied(first, resources)
    after = [link.linked() if isinstance(link, LinkDesiredOS) else None for link in first.links(instances)]
    linked = [new or old for new, old in zip(after, instances, strict=True)]

    second = plan(discovered, tuple(content.values()), mode)

    assert second.changes == ()
    assert not [link for link in second.links(linked) if isinstance(link, LinkDesiredOS)]


@given(DISCOVERED, inventories())
def test_a_link_leads_up_within_type_profile_and_architecture_to_what_a_manifest_says(
    discovered: list[DiscoveredProfile], inventory: tuple[tuple[OSResource, ...], tuple[Instance, ...]]
) -> None:
    resources, instances = inventory
    decided = plan(discovered, resources, LinkingMode.AUTOMATIC)
    content = applied(decided, resources)
    said = {
        (found.profile.profile_name, found.profile.image_version.text, found.profile.sha256) for found in discovered
    }

    for link in decided.links(instances):
        if isinstance(link, LinkDesiredOS):
            new = content[link.linked().desired_os_id]
            assert new.os_type is OSType.IMMUTABLE
            assert group(new) == group(link.current)
            assert new.image_version > content[link.instance.desired_os_id].image_version
            assert new.image_version >= link.current.image_version
            assert (new.profile_name, new.image_id, new.sha256) in said


@given(DISCOVERED, inventories())
def test_manual_mode_changes_the_same_and_links_nothing(
    discovered: list[DiscoveredProfile], inventory: tuple[tuple[OSResource, ...], tuple[Instance, ...]]
) -> None:
    resources, instances = inventory
    manual, automatic = (plan(discovered, resources, mode) for mode in (LinkingMode.MANUAL, LinkingMode.AUTOMATIC))

    assert manual.changes == automatic.changes
    assert manual.conflicts == automatic.conflicts
    assert not [link for link in manual.links(instances) if isinstance(link, LinkDesiredOS)]


@given(DISCOVERED, inventories(), st.sampled_from(LinkingMode))
def test_every_manifest_is_stored_or_in_conflict_and_what_is_the_admins_is_kept(
    discovered: list[DiscoveredProfile],
    inventory: tuple[tuple[OSResource, ...], tuple[Instance, ...]],
    mode: LinkingMode,
) -> None:
    resources, _ = inventory
    decided = plan(discovered, resources, mode)
    content = applied(decided, resources)

    by_identity = {(resource.profile_name, resource.image_id): resource for resource in content.values()}
    conflicts = {(conflict.revision, conflict.profile_name, conflict.image_id) for conflict in decided.conflicts}
    for found in discovered:
        identity = found.profile.profile_name, found.profile.image_version.text
        same = by_identity[identity].sha256 == found.profile.sha256
        assert same or (found.revision, *identity) in conflicts
    for old in resources:
        new = content[old.resource_id]
        kept = "update_packages", "existing_cves", "sha256", "image_url", "architecture", "security_feature"
        assert [getattr(new, name) for name in kept] == [getattr(old, name) for name in kept]
