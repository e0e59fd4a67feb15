"""The OS Resource Manager against the folder Release Service and the real Inventories."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.linking import SkipReason
from edge_day2.domain.resources import Instance, OSResource
from edge_day2.errors import InvalidProfile, InvalidValue, NotFound, Unavailable
from edge_day2.ports.inventory import Inventory
from orchestrator import EDGE, EXAMPLES, NEW_EDGE, OLD_EDGE, automatic, change, desired, install, manager, os_id, stored


@pytest.fixture(params=["memory", "sqlite"])
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inventory]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as opened:
        yield opened


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLES, tmp_path / "profiles")


def test_the_first_run_creates_an_os_resource_for_every_manifest(inventory: Inventory) -> None:
    report = manager(inventory).reconcile("tenant")

    assert set(report.created) == set(stored(inventory))
    assert {resource.profile_name for resource in stored(inventory).values()} == {
        path.stem for path in (EXAMPLES / "0.9.8").iterdir()
    }
    assert (report.patched, report.linked, report.conflicts, report.rejected) == ((), (), (), ())


def test_tenants_get_os_resources_of_their_own_from_one_discovery(inventory: Inventory) -> None:
    subject = manager(inventory)
    discovery = subject.discover()

    for tenant in ("tenant", "other"):
        subject.reconcile(tenant, discovery)

    assert len(stored(inventory, "other")) == len(stored(inventory)) == len(discovery.profiles) == 9
    assert not set(stored(inventory, "other")) & set(stored(inventory))


def test_manual_mode_discovers_a_new_revision_and_leaves_linking_to_the_admin(inventory: Inventory) -> None:
    manager(inventory, revision="0.9.0").reconcile("tenant")
    (instance,) = install(inventory, 1)

    report = manager(inventory, revision="0.9.8").reconcile("tenant")

    assert os_id(EDGE, NEW_EDGE) in report.created
    assert report.linked == ()
    assert desired(inventory) == {instance: os_id(EDGE, OLD_EDGE)}


def test_automatic_mode_links_every_immutable_instance_to_the_latest_of_its_profile(inventory: Inventory) -> None:
    automatic(inventory, revision="0.9.0")
    edge = install(inventory, 5)
    real_time = install(inventory, 3, "microvisor-rt", "3.0.20251119.0133")
    ubuntu = install(inventory, 2, "ubuntu-22.04-lts-generic", "22.04.5")

    report = automatic(inventory)

    expected = {
        **dict.fromkeys(edge, os_id(EDGE, NEW_EDGE)),
        **dict.fromkeys(real_time, os_id("microvisor-rt", "3.0.20251204.0217")),
        **dict.fromkeys(ubuntu, os_id("ubuntu-22.04-lts-generic", "22.04.5")),
    }
    assert desired(inventory) == expected
    assert dict(report.linked) == {expected[edge[0]]: 5, expected[real_time[0]]: 3}
    assert report.linked_instances == 8
    assert report.skipped == ((SkipReason.MUTABLE, 2),)


def test_the_current_os_is_never_touched(inventory: Inventory) -> None:
    automatic(inventory, revision="0.9.0")
    (instance_id,) = install(inventory, 1)

    automatic(inventory)

    with inventory.reading() as read:
        assert read.get(Instance, "tenant", instance_id).current_os_id == os_id(EDGE, OLD_EDGE)


def test_a_switch_from_manual_to_automatic_links_what_was_discovered_before(inventory: Inventory) -> None:
    for revision in ("0.9.0", "0.9.8"):
        manager(inventory, revision=revision).reconcile("tenant")
    (instance,) = install(inventory, 1)

    automatic(inventory)

    assert desired(inventory) == {instance: os_id(EDGE, NEW_EDGE)}


def test_every_run_links_what_was_added_or_linked_down_since(inventory: Inventory) -> None:
    automatic(inventory, revision="0.9.0")
    (instance,) = install(inventory, 1)
    automatic(inventory)
    change(inventory, Instance, instance, desired_os_id=os_id(EDGE, OLD_EDGE))

    automatic(inventory)

    assert desired(inventory) == {instance: os_id(EDGE, NEW_EDGE)}


def test_going_back_to_an_older_revision_links_nothing_down(inventory: Inventory) -> None:
    automatic(inventory, revision="0.9.0")
    instances = install(inventory, 3)
    automatic(inventory, revision="0.9.8")

    report = automatic(inventory, revision="0.9.0")

    assert report.skipped == ((SkipReason.UP_TO_DATE, 3),)
    assert desired(inventory) == dict.fromkeys(instances, os_id(EDGE, NEW_EDGE))


def test_a_selector_finds_the_latest_of_all_its_revisions(inventory: Inventory) -> None:
    report = automatic(inventory, revision="~0.9.0")

    assert {os_id(EDGE, OLD_EDGE), os_id(EDGE, NEW_EDGE)} <= set(report.created)


def test_an_os_resource_is_patched_and_what_the_admin_decided_is_kept(inventory: Inventory, profiles: Path) -> None:
    manager(inventory, profiles).reconcile("tenant")
    ubuntu = os_id("ubuntu-22.04-lts-generic", "22.04.5")
    change(inventory, OSResource, ubuntu, update_packages=("curl",), kernel_command_line="quiet", existing_cves="[]")
    manifest = profiles / "0.9.8" / "ubuntu-22.04-lts-generic.yaml"
    manifest.write_text(manifest.read_text().replace("description: Ubuntu", "description: Another Ubuntu"))

    report = manager(inventory, profiles).reconcile("tenant")

    assert (report.created, report.patched) == ((), (ubuntu,))
    resource = stored(inventory)[ubuntu]
    assert resource.description.startswith("Another Ubuntu")
    assert (resource.update_packages, resource.kernel_command_line) == (("curl",), "quiet")
    assert resource.existing_cves == "[]"


def test_a_changed_image_under_an_old_version_is_reported_and_not_applied(inventory: Inventory, profiles: Path) -> None:
    automatic(inventory, profiles, "0.9.8")
    before = stored(inventory)
    shutil.copytree(profiles / "0.9.8", profiles / "0.9.9")
    manifest = profiles / "0.9.9" / f"{EDGE}.yaml"
    manifest.write_text(manifest.read_text().replace("osImageSha256: b21f", "osImageSha256: ffff"))

    report = automatic(inventory, profiles, "0.9.9")

    assert [(conflict.profile_name, conflict.field) for conflict in report.conflicts] == [(EDGE, "sha256")]
    assert stored(inventory)[os_id(EDGE, NEW_EDGE)] == before[os_id(EDGE, NEW_EDGE)]
    assert report.patched == ()


def test_bad_manifests_are_reported_with_their_errors_and_the_rest_used(inventory: Inventory, profiles: Path) -> None:
    folder = profiles / "0.9.8"
    (folder / "broken.yaml").write_text("spec: [")
    (folder / "huge.yaml").write_text("x" * 10_000_000)
    (folder / "lost.yaml").symlink_to(folder / "missing")
    shutil.copy(folder / f"{EDGE}.yaml", folder / "renamed.yaml")

    report = manager(inventory, profiles).reconcile("tenant")

    assert {item.name: type(item.error) for item in report.rejected} == {
        "broken.yaml": InvalidProfile,
        "huge.yaml": InvalidProfile,
        "lost.yaml": Unavailable,
        "renamed.yaml": InvalidProfile,
    }
    assert len(report.created) == 9


def test_only_enabled_profiles_are_used_and_one_that_is_missing_is_reported(inventory: Inventory) -> None:
    report = manager(inventory, enabled_profiles=[EDGE, "microvisor-rt", "microvisor-gone"]).reconcile("tenant")

    assert {resource.profile_name for resource in stored(inventory).values()} == {EDGE, "microvisor-rt"}
    assert [(item.name, type(item.error)) for item in report.rejected] == [("microvisor-gone", NotFound)]


def test_an_enabled_profile_that_is_bad_is_reported_once(inventory: Inventory, profiles: Path) -> None:
    (profiles / "0.9.8" / f"{EDGE}.yaml").write_text("spec: [")

    report = manager(inventory, profiles, enabled_profiles=[EDGE]).reconcile("tenant")

    assert [type(item.error) for item in report.rejected] == [InvalidProfile]


def test_without_enabled_profiles_nothing_is_done(inventory: Inventory) -> None:
    report = manager(inventory, enabled_profiles=[]).reconcile("tenant")

    assert (report.created, report.rejected) == ((), ())


def test_what_makes_no_sense_is_refused_before_anything_is_done(inventory: Inventory) -> None:
    with pytest.raises(InvalidValue, match="osProfileRevision"):
        manager(inventory, revision="../elsewhere")
    with pytest.raises(InvalidValue, match="batch_size"):
        manager(inventory, batch_size=0)
    with pytest.raises(InvalidValue, match="linking_threads"):
        manager(inventory, linking_threads=0)
    with pytest.raises(NotFound):
        manager(inventory, revision="7.7.7").reconcile("tenant")
    assert stored(inventory) == {}
