"""The published OS profile manifests, in the folder that EDGE_DAY2_OS_PROFILES names.

Nothing here counts revisions: what is asserted stays true when more are published.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager, ReconcileReport
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.resources import Host, Instance, OSResource, OSType
from edge_day2.ports.inventory import Inventory

FOLDER = os.environ.get("EDGE_DAY2_OS_PROFILES", "")

pytestmark = pytest.mark.skipif(not FOLDER, reason="EDGE_DAY2_OS_PROFILES names no folder with published manifests")


def reconcile(inventory: Inventory, revision: str) -> ReconcileReport:
    service = DirectoryReleaseService(FOLDER)
    return OSResourceManager(inventory, service, revision=revision, mode=LinkingMode.AUTOMATIC).reconcile("tenant")


def add_a_node_for_every_profile(inventory: Inventory) -> None:
    """Add one node that runs the oldest OS of each profile that has none yet."""
    with inventory.writing() as write:
        taken = {host.name for host in write.all(Host, "tenant")}
        oldest: dict[str, OSResource] = {}
        for resource in write.all(OSResource, "tenant"):
            best = oldest.setdefault(resource.profile_name, resource)
            if resource.image_version < best.image_version:
                oldest[resource.profile_name] = resource
        for name in sorted(oldest.keys() - taken):
            guid = f"00000000-0000-0000-0000-{len(taken):012x}"
            taken.add(name)
            write.add(Host(resource_id=f"host-{name}", tenant_id="tenant", guid=guid, name=name))
            write.add(
                Instance(
                    resource_id=f"inst-{name}",
                    tenant_id="tenant",
                    host_id=f"host-{name}",
                    os_type=oldest[name].os_type,
                    current_os_id=oldest[name].resource_id,
                    desired_os_id=oldest[name].resource_id,
                )
            )


def desired_of_each_profile(inventory: Inventory) -> dict[str, OSResource]:
    with inventory.reading() as read:
        return {
            instance.resource_id: read.get(OSResource, "tenant", instance.desired_os_id)
            for instance in read.all(Instance, "tenant")
        }


def test_every_published_manifest_becomes_an_os_resource() -> None:
    paths = sorted(Path(FOLDER).glob("*/*.yaml"))

    assert paths
    for path in paths:
        profile = OSProfile.from_yaml(path.read_text(encoding="utf-8"), file_name=path.name)
        resource = profile.to_os_resource(tenant_id="tenant")
        assert resource.profile_name == path.stem


def test_reconciling_all_revisions_in_order_never_links_down_and_ends_at_the_latest() -> None:
    latest: dict[str, OSResource] = {}
    with open_inventory("memory://") as inventory:
        for revision in DirectoryReleaseService(FOLDER).revisions():
            before = desired_of_each_profile(inventory)
            report = reconcile(inventory, revision)
            assert report.rejected == ()
            add_a_node_for_every_profile(inventory)
            for instance_id, desired in desired_of_each_profile(inventory).items():
                earlier = before.get(instance_id, desired)
                assert desired.image_version >= earlier.image_version
                assert desired.profile_name == earlier.profile_name
            repeated = reconcile(inventory, revision)
            assert (repeated.created, repeated.patched, repeated.linked) == ((), (), ())
        with inventory.reading() as read:
            for resource in read.all(OSResource, "tenant"):
                best = latest.setdefault(resource.profile_name, resource)
                if resource.image_version > best.image_version:
                    latest[resource.profile_name] = resource
        for desired in desired_of_each_profile(inventory).values():
            if desired.os_type is OSType.IMMUTABLE:
                assert desired.image_version == latest[desired.profile_name].image_version


def test_images_that_were_rebuilt_under_their_version_are_reported_as_conflicts() -> None:
    seen: dict[tuple[str, str], str] = {}
    rebuilt: set[tuple[str, str]] = set()
    reported: set[tuple[str, str]] = set()
    with open_inventory("memory://") as inventory:
        for revision in DirectoryReleaseService(FOLDER).revisions():
            for path in Path(FOLDER, revision).glob("*.yaml"):
                profile = OSProfile.from_yaml(path.read_text(encoding="utf-8"))
                identity = profile.profile_name, profile.image_version.text
                if seen.setdefault(identity, profile.sha256) != profile.sha256:
                    rebuilt.add(identity)
            conflicts = reconcile(inventory, revision).conflicts
            reported |= {(item.profile_name, item.image_id) for item in conflicts if item.field == "sha256"}
        with inventory.reading() as read:
            for resource in read.all(OSResource, "tenant"):
                assert resource.sha256 == seen[resource.profile_name, resource.image_id]

    assert reported == rebuilt


@pytest.mark.parametrize(
    ("revision", "profile_name", "image_id"),
    [
        ("0.3.0", "microvisor-rt", "3.0.20250413.2100"),
        ("0.7.1", "microvisor-idv", "3.0.20250720.2000"),
        ("0.9.6", "microvisor-nonrt", "3.0.20251204.0140"),
    ],
)
def test_a_known_rebuilt_image_is_a_conflict(revision: str, profile_name: str, image_id: str) -> None:
    revisions = DirectoryReleaseService(FOLDER).revisions()
    if revision not in revisions:
        pytest.skip(f"revision {revision} isn't in the folder")

    with open_inventory("memory://") as inventory:
        reconcile(inventory, revisions[revisions.index(revision) - 1])
        conflicts = reconcile(inventory, revision).conflicts

    assert (profile_name, image_id, "sha256") in {(item.profile_name, item.image_id, item.field) for item in conflicts}
