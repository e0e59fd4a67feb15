"""What the OS Resource Manager would create, patch and link."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import pytest

from edge_day2.domain.linking import (
    CreateOSResource,
    DiscoveredProfile,
    ImageConflict,
    LinkDesiredOS,
    LinkingMode,
    LinkingPlan,
    PatchOSResource,
    SkippedInstance,
    SkipReason,
    plan_linking,
)
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.resources import Instance, OSProvider, OSResource, OSType, SecurityFeature
from edge_day2.domain.versions import ImageVersion

EDGE = OSProfile(
    profile_name="microvisor",
    name="Microvisor",
    os_type=OSType.IMMUTABLE,
    os_provider=OSProvider.INFRA,
    security_feature=SecurityFeature.NONE,
    architecture="x86_64",
    image_version=ImageVersion.parse("3.0"),
    sha256="0" * 64,
    image_url="files/edge-3.0.raw.gz",
    metadata=(("release", "one"),),
)
UBUNTU = attrs.evolve(EDGE, profile_name="ubuntu", os_type=OSType.MUTABLE, image_version=ImageVersion.parse("22.04.5"))


def edge(version: str, **changes: Any) -> OSProfile:
    return attrs.evolve(EDGE, image_version=ImageVersion.parse(version), **changes)


def stored(profile: OSProfile, **changes: Any) -> OSResource:
    return attrs.evolve(profile.to_os_resource(tenant_id="tenant"), **changes)


def instance(current: OSResource, desired: OSResource | None = None, **changes: Any) -> Instance:
    content = Instance(
        resource_id="inst-1",
        tenant_id="tenant",
        host_id="host-1",
        os_type=current.os_type,
        current_os_id=current.resource_id,
        desired_os_id=(desired or current).resource_id,
    )
    return attrs.evolve(content, **changes)


def plan(
    *profiles: OSProfile | tuple[str, OSProfile],
    resources: Iterable[OSResource] = (),
    mode: LinkingMode = LinkingMode.AUTOMATIC,
) -> LinkingPlan:
    named = [profile if isinstance(profile, tuple) else ("0.9.8", profile) for profile in profiles]
    discovered = [DiscoveredProfile(revision=revision, profile=profile) for revision, profile in named]
    return plan_linking(discovered, resources, tenant_id="tenant", mode=mode)


def test_a_new_profile_of_either_kind_becomes_an_os_resource() -> None:
    assert plan(EDGE, UBUNTU).changes == (
        CreateOSResource("0.9.8", stored(EDGE)),
        CreateOSResource("0.9.8", stored(UBUNTU)),
    )


def test_a_new_version_becomes_an_os_resource_of_its_own() -> None:
    assert plan(edge("3.1"), resources=[stored(EDGE)]).changes == (CreateOSResource("0.9.8", stored(edge("3.1"))),)


def test_nothing_changes_where_the_inventory_says_what_the_manifests_say() -> None:
    for mode in LinkingMode:
        assert plan(EDGE, UBUNTU, resources=[stored(UBUNTU), stored(EDGE)], mode=mode).changes == ()


def test_an_os_resource_is_patched_with_what_the_manifest_says_now() -> None:
    said = attrs.evolve(
        EDGE,
        name="Renamed",
        description="New",
        metadata=(("release", "two"),),
        platform_bundle=(("installerScript", "a:1"),),
        package_manifest_url="packages.json",
        existing_cves_url="existing.json",
        fixed_cves_url="fixed.json",
        tls_ca_cert="Q0E=",
    )

    (patch,) = plan(said, resources=[stored(EDGE)]).changes

    assert patch == PatchOSResource("0.9.8", stored(EDGE), stored(said))


def test_what_the_manifest_says_no_longer_is_emptied() -> None:
    (patch,) = plan(EDGE, resources=[stored(EDGE, description="Old", fixed_cves_url="fixed.json")]).changes

    assert isinstance(patch, PatchOSResource)
    assert patch.new == stored(EDGE)


def test_what_only_an_admin_or_a_download_can_know_is_kept() -> None:
    known = {
        "resource_id": "os-made-by-an-admin",
        "update_sources": ("Types: deb",),
        "update_packages": ("curl",),
        "kernel_command_line": "quiet",
        "existing_cves": "[]",
        "fixed_cves": "[1]",
        "profile_version": "7",
    }
    (patch,) = plan(UBUNTU, resources=[stored(UBUNTU, description="Old", **known)]).changes

    assert isinstance(patch, PatchOSResource)
    assert patch.new == stored(UBUNTU, **known)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sha256", "1" * 64),
        ("image_url", "files/elsewhere.raw.gz"),
        ("os_type", OSType.MUTABLE),
        ("os_provider", OSProvider.LENOVO),
        ("architecture", "arm64"),
        ("security_feature", SecurityFeature.SECURE_BOOT_AND_FULL_DISK_ENCRYPTION),
    ],
)
def test_another_image_under_the_same_identity_is_a_conflict_that_changes_nothing(name: str, value: object) -> None:
    change: dict[str, Any] = {name: value}
    changed = attrs.evolve(EDGE, description="New", **change)

    result = plan(changed, UBUNTU, resources=[stored(EDGE), stored(UBUNTU)])

    expected = ImageConflict(
        revision="0.9.8",
        profile_name="microvisor",
        image_id="3.0",
        field=name,
        stored=getattr(stored(EDGE), name),
        found=value,
    )
    assert result.conflicts == (expected,)
    assert result.changes == ()
    assert result.targets == ()


def test_a_conflict_reads_as_a_sentence() -> None:
    (conflict,) = plan(attrs.evolve(EDGE, image_url="files/b.gz"), resources=[stored(EDGE)]).conflicts

    assert str(conflict) == (
        "microvisor 3.0: revision 0.9.8 says image_url files/b.gz, the Inventory holds files/edge-3.0.raw.gz; "
        "publish a changed image under a new version"
    )


def test_of_two_manifests_with_one_identity_the_newer_is_created_and_the_other_is_a_conflict() -> None:
    rebuilt = attrs.evolve(EDGE, sha256="1" * 64)

    result = plan(("0.9.7", EDGE), ("0.9.8", rebuilt))

    assert result.changes == (CreateOSResource("0.9.8", stored(rebuilt)),)
    assert [(conflict.revision, conflict.found) for conflict in result.conflicts] == [("0.9.7", "0" * 64)]
    assert result.targets == (stored(rebuilt),)


def test_where_the_newest_manifest_disagrees_the_newest_that_agrees_patches_and_nothing_is_linked() -> None:
    rebuilt = attrs.evolve(EDGE, sha256="1" * 64)
    described = attrs.evolve(EDGE, description="New")

    result = plan(("0.9.6", EDGE), ("0.9.7", described), ("0.9.8", rebuilt), resources=[stored(EDGE)])

    assert result.changes == (PatchOSResource("0.9.7", stored(EDGE), stored(described)),)
    assert [conflict.revision for conflict in result.conflicts] == ["0.9.8"]
    assert result.targets == ()


def test_automatic_mode_links_an_immutable_instance_to_the_latest_of_its_profile() -> None:
    old = stored(EDGE)

    link = plan(edge("3.1"), edge("3.2"), resources=[old]).link(instance(old))

    assert isinstance(link, LinkDesiredOS)
    assert link.desired == stored(edge("3.2"))
    assert link.linked() == instance(old, stored(edge("3.2")))


def test_automatic_mode_moves_an_instance_that_waits_for_an_older_desired_os() -> None:
    one, two = stored(EDGE), stored(edge("3.1"))

    link = plan(edge("3.2"), resources=[one, two]).link(instance(one, two))

    assert isinstance(link, LinkDesiredOS)
    assert link.desired.image_id == "3.2"


def test_the_latest_is_that_of_the_revision_and_not_of_the_inventory() -> None:
    old, withdrawn = stored(EDGE), stored(edge("3.9"))

    link = plan(edge("3.1"), resources=[old, withdrawn]).link(instance(old))

    assert isinstance(link, LinkDesiredOS)
    assert link.desired.image_id == "3.1"


def test_the_latest_is_the_highest_version_and_not_the_last_manifest() -> None:
    old = stored(EDGE)

    for versions in (("3.9", "3.10"), ("3.10", "3.9")):
        link = plan(*map(edge, versions), resources=[old]).link(instance(old))

        assert isinstance(link, LinkDesiredOS)
        assert link.desired.image_id == "3.10"


def test_an_instance_that_runs_the_latest_already_is_not_sent_to_an_older_one() -> None:
    old, latest = stored(EDGE), stored(edge("3.1"))

    link = plan(edge("3.1"), resources=[old, latest]).link(instance(latest, old))

    assert isinstance(link, LinkDesiredOS)
    assert link.linked() == instance(latest)


def test_manual_mode_discovers_and_links_nothing() -> None:
    result = plan(edge("3.1"), resources=[stored(EDGE)], mode=LinkingMode.MANUAL)

    assert result.changes == (CreateOSResource("0.9.8", stored(edge("3.1"))),)
    assert result.targets == ()
    assert result.link(instance(stored(EDGE))) == SkippedInstance("inst-1", SkipReason.NOTHING_TO_LINK)


def test_a_desired_os_never_moves_down_or_sideways() -> None:
    old, same, newer = stored(edge("3.0")), stored(edge("3.1.0")), stored(edge("3.2"))
    result = plan(edge("3.1"), resources=[old, same, newer])

    for desired in (same, newer):
        assert result.link(instance(old, desired)) == SkippedInstance("inst-1", SkipReason.UP_TO_DATE)


def test_an_instance_that_runs_a_newer_os_is_not_sent_back() -> None:
    old, newer = stored(EDGE), stored(edge("3.2"))

    decision = plan(edge("3.1"), resources=[old, newer]).link(instance(newer, old))

    assert decision == SkippedInstance("inst-1", SkipReason.RUNS_NEWER)


def test_a_mutable_instance_is_never_linked() -> None:
    newer = attrs.evolve(UBUNTU, image_version=ImageVersion.parse("22.04.6"))

    decision = plan(newer, resources=[stored(UBUNTU)]).link(instance(stored(UBUNTU)))

    assert decision == SkippedInstance("inst-1", SkipReason.MUTABLE)


def test_a_mutable_profile_is_no_target() -> None:
    assert [target.profile_name for target in plan(EDGE, UBUNTU).targets] == ["microvisor"]


@pytest.mark.parametrize("change", [{"profile_name": "other"}, {"architecture": "arm64"}])
def test_an_instance_stays_within_its_profile_and_architecture(change: dict[str, str]) -> None:
    other = edge("3.1", **change)

    decision = plan(other, resources=[stored(EDGE)]).link(instance(stored(EDGE)))

    assert decision == SkippedInstance("inst-1", SkipReason.NOTHING_TO_LINK)


@pytest.mark.parametrize("lost", ["current_os_id", "desired_os_id"])
def test_an_instance_whose_os_does_not_exist_is_skipped(lost: str) -> None:
    decision = plan(edge("3.1"), resources=[stored(EDGE)]).link(instance(stored(EDGE), None, **{lost: "os-lost"}))

    assert decision == SkippedInstance("inst-1", SkipReason.UNKNOWN_OS)


def test_instances_are_decided_one_by_one_in_their_order() -> None:
    old = stored(EDGE)
    asked: list[str] = []

    def instances() -> Iterable[Instance]:
        for number in range(3):
            asked.append(f"inst-{number}")
            yield instance(old, resource_id=f"inst-{number}")

    links = plan(edge("3.1"), resources=[old]).links(instances())

    first = next(links)
    assert isinstance(first, LinkDesiredOS)
    assert first.instance.resource_id == "inst-0"
    assert asked == ["inst-0"]
    assert len(list(links)) == 2


def test_a_plan_without_a_target_links_nothing_to_it() -> None:
    result = plan(edge("3.1"), resources=[stored(EDGE)])

    reduced = result.without(frozenset({stored(edge("3.1")).resource_id}))

    assert reduced.targets == ()
    assert reduced.link(instance(stored(EDGE))) == SkippedInstance("inst-1", SkipReason.NOTHING_TO_LINK)
    assert isinstance(result.link(instance(stored(EDGE))), LinkDesiredOS)
