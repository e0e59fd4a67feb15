"""What published profiles and files can do to an OS Resource Manager, and what a tenant gets all the same.

Each is something that the original OS Resource Manager got wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from edge_day2.adapters.release_service import HttpReleaseFiles, OciReleaseService, ReadLimits
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager, ReconcileReport
from edge_day2.domain.linking import LinkingMode
from edge_day2.errors import (
    Internal,
    InvalidProfile,
    InvalidValue,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from edge_day2.ports.inventory import Inventory
from orchestrator import desired, install, os_id, stored
from registry_server import FakeRegistry, Reply, serving_registry
from release_bench import CVES, OVAL, PACKAGES, ReleaseBench, manifest

HASTY = ReadLimits(attempts=1, first_wait_seconds=0.001, longest_wait_seconds=0.01)
LISTS = {"osExistingCvesURL": "cves", "osFixedCvesURL": "fixed", "osPackageManifestURL": "packages"}


@pytest.fixture
def inventory() -> Iterator[Inventory]:
    with open_inventory("memory://") as opened:
        yield opened


@pytest.fixture
def bench() -> ReleaseBench:
    return ReleaseBench(content={"cves": CVES, "fixed": CVES, "packages": PACKAGES, "oval": OVAL})


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with serving_registry() as server:
        yield server


def reconcile(
    inventory: Inventory, bench: ReleaseBench, revision: str = "1.0.0", mode: LinkingMode = LinkingMode.MANUAL
) -> ReconcileReport:
    return OSResourceManager(inventory, bench, revision=revision, mode=mode, files=bench).reconcile("tenant")


def test_the_first_run_brings_the_lists_of_every_kind(inventory: Inventory, bench: ReleaseBench) -> None:
    bench.publish("1.0.0", "edge", "1.0", **LISTS)
    bench.publish("1.0.0", "ubuntu", "22.04.5", type="OS_TYPE_MUTABLE", osExistingCvesURL="oval")

    reconcile(inventory, bench)

    edge, ubuntu = (stored(inventory)[os_id(*key)] for key in (("edge", "1.0"), ("ubuntu", "22.04.5")))
    assert [json.loads(text) for text in (edge.existing_cves, edge.fixed_cves)] == [json.loads(CVES)] * 2
    assert json.loads(edge.installed_packages) == json.loads(PACKAGES)
    assert "CVE-2026-2" in ubuntu.existing_cves


@pytest.mark.parametrize("revision", ["1.0.0", "~1.0.0"])
@pytest.mark.parametrize("tags", ['{"tags": null}', '{"tags": []}', "{}"])
def test_a_registry_that_lists_nothing_has_no_such_revision(
    inventory: Inventory, server: FakeRegistry, tags: str, revision: str
) -> None:
    server.say("/v2/edge-orch/en/files/os-profile/edge/tags/list", Reply(tags.encode()))
    with OciReleaseService(server.address, profiles=["edge"], limits=HASTY) as service:
        manager = OSResourceManager(inventory, service, revision=revision)
        with pytest.raises(NotFound, match=revision):
            manager.reconcile_all(["tenant"])


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(b"[]", 404), NotFound),
        (Reply(b"[]", 401), Unauthenticated),
        (Reply(b"[]", 403), PermissionDenied),
        (Reply(b"[]", 500), Unavailable),
        (Reply(b"[]", 429), Unavailable),
        (Reply(b"[]", 418), Internal),
        (Reply(CVES, content_length=10_000), Unavailable),
        (Reply(b"[" + b" " * (17 << 20) + b"]"), Internal),
        (Reply(b"<html>Welcome</html>"), InvalidValue),
    ],
)
def test_a_download_that_is_not_what_it_should_be_is_reported_and_its_profile_used_without_it(
    inventory: Inventory, bench: ReleaseBench, server: FakeRegistry, reply: Reply, error: type[Exception]
) -> None:
    bench.publish("1.0.0", "edge", "1.0", **LISTS)
    server.say("/cves", reply)
    server.say("/fixed", Reply(CVES))
    server.say("/packages", Reply(PACKAGES))

    with HttpReleaseFiles(server.address, limits=HASTY) as files:
        report = OSResourceManager(inventory, bench, revision="1.0.0", files=files).reconcile("tenant")

    assert [(item.name, item.file, isinstance(item.error, error)) for item in report.rejected] == [
        ("edge", "cves", True)
    ]
    assert report.is_complete is (error is not Unavailable)
    edge = stored(inventory)[os_id("edge", "1.0")]
    assert (edge.existing_cves, bool(edge.fixed_cves), bool(edge.installed_packages)) == ("", True, True)


def test_blanks_within_texts_stay(inventory: Inventory, bench: ReleaseBench) -> None:
    bench.publish("1.0.0", "edge", "1.0", **LISTS)

    reconcile(inventory, bench)

    edge = stored(inventory)[os_id("edge", "1.0")]
    assert '"two words"' in edge.existing_cves
    assert '"8.1 beta"' in edge.installed_packages


def test_the_latest_is_what_counts_not_what_the_registry_lists_first(inventory: Inventory, bench: ReleaseBench) -> None:
    for revision, version in (("1.0.9", "3.0.9"), ("1.0.10", "3.0.10"), ("1.0.1", "3.0.1")):
        bench.publish(revision, "edge", version)
    reconcile(inventory, bench, "~1.0.0")
    (instance,) = install(inventory, 1, "edge", "3.0.1")

    report = reconcile(inventory, bench, "~1.0.0", LinkingMode.AUTOMATIC)

    assert (report.newest, desired(inventory)) == ("1.0.10", {instance: os_id("edge", "3.0.10")})


def test_an_empty_name_among_the_enabled_profiles_is_refused_and_none_at_all_is_none(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    bench.publish("1.0.0", "edge", "1.0")
    with pytest.raises(InvalidValue, match="enabled_profiles"):
        OSResourceManager(inventory, bench, revision="1.0.0", enabled_profiles=[""])

    report = OSResourceManager(inventory, bench, revision="1.0.0", enabled_profiles=[]).reconcile("tenant")

    assert (report.created, bench.downloads) == ((), {})


@pytest.mark.parametrize(
    ("key", "field"), [("osImageSha256", "sha256"), ("osImageUrl", "image_url"), ("architecture", "architecture")]
)
def test_an_image_that_changes_under_its_version_is_seen_and_not_applied(
    inventory: Inventory, bench: ReleaseBench, key: str, field: str
) -> None:
    bench.publish("1.0.0", "edge", "1.0")
    reconcile(inventory, bench)
    before = stored(inventory)
    bench.publish("1.0.0", "edge", "1.0", **{key: "f" * 64})

    report = reconcile(inventory, bench)

    assert [conflict.field for conflict in report.conflicts] == [field]
    assert stored(inventory) == before


def test_profile_name_and_version_never_run_into_each_other(inventory: Inventory, bench: ReleaseBench) -> None:
    bench.publish("1.0.0", "edge", "11.0")
    bench.publish("1.0.0", "edge1", "1.0")

    assert len(reconcile(inventory, bench).created) == 2


def test_one_bad_profile_stops_no_other_and_profiles_may_share_a_display_name(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    bench.publish("1.0.0", "one", "1.0", name="Edge Microvisor Toolkit")
    bench.publish("1.0.0", "two", "1.0", name="Edge Microvisor Toolkit")
    bench.publish("1.0.0", "bad", "not a version")
    bench.published["1.0.0", "torn"] = manifest("torn", "1.0")[:40]
    bench.published["1.0.0", "lost"] = Unavailable("status 503")

    report = reconcile(inventory, bench)

    assert set(report.created) == {os_id("one", "1.0"), os_id("two", "1.0")}
    assert {item.name: type(item.error) for item in report.rejected} == {
        "bad": InvalidProfile,
        "torn": InvalidProfile,
        "lost": Unavailable,
    }
    assert not report.is_complete


def test_what_several_tenants_and_profiles_need_is_downloaded_once(inventory: Inventory, bench: ReleaseBench) -> None:
    for profile in ("one", "two", "three"):
        bench.publish("1.0.0", profile, "1.0", **LISTS)
    manager = OSResourceManager(inventory, bench, revision="1.0.0", files=bench)

    outcome = manager.reconcile_all([f"tenant-{number}" for number in range(5)])

    assert [len(report.created) for report in outcome.done.values()] == [3] * 5
    assert (bench.asked, bench.downloads) == (1, {"cves": 1, "fixed": 1, "packages": 1})


def test_the_log_names_tenant_revision_and_profile_of_what_was_done_and_what_was_not(
    inventory: Inventory, bench: ReleaseBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.publish("1.0.0", "edge", "1.0", osExistingCvesURL="gone")
    with caplog.at_level(logging.INFO):
        reconcile(inventory, bench)
        bench.publish("1.0.0", "edge", "1.0", osImageSha256="f" * 64)
        reconcile(inventory, bench)

    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "revision 1.0.0: edge gone: gone: status 503"
    assert said[1].startswith("tenant tenant: revision 1.0.0, nothing was reconciled to the end before; manual: 1 OS")
    assert any(line.startswith("tenant tenant: edge 1.0: revision 1.0.0 says sha256") for line in said)


def test_a_connection_serves_many_downloads(server: FakeRegistry) -> None:
    for number in range(5):
        server.say(f"/{number}", Reply(b"content"))
    with HttpReleaseFiles(server.address, limits=HASTY) as files:
        for number in range(5):
            assert b"".join(files.read(str(number), at_most=100)) == b"content"

    assert server.connections == 1


def test_metadata_may_have_capitals_and_be_long(inventory: Inventory, bench: ReleaseBench) -> None:
    text = manifest("edge", "1.0") + f"metadata:\n  Release: {'Long-' * 200}\n"
    bench.published["1.0.0", "edge"] = text

    report = reconcile(inventory, bench)

    assert report.rejected == ()
    assert stored(inventory)[os_id("edge", "1.0")].metadata == (("Release", "Long-" * 200),)
