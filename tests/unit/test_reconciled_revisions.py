"""The OS Resource Manager remembers what it reconciled to the end: what it then reports, and what it then spares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager, ReconcileReport
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.reconciled import ReconciledRevision, RevisionChange
from edge_day2.domain.resources import OSResource
from edge_day2.errors import InvalidProfile, Unavailable
from edge_day2.ports.inventory import Inventory
from orchestrator import change, desired, install, os_id, stored
from release_bench import CVES, ReleaseBench

AT = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)


class Noon:
    def now(self) -> datetime:
        return AT


@pytest.fixture(params=["memory", "sqlite"])
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inventory]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as opened:
        yield opened


@pytest.fixture
def bench() -> ReleaseBench:
    bench = ReleaseBench(content={"cves": CVES})
    bench.publish("1.0.0", "edge", "1.0", osExistingCvesURL="cves")
    return bench


def reconcile(
    inventory: Inventory, bench: ReleaseBench, revision: str = "~1.0.0", mode: LinkingMode = LinkingMode.MANUAL
) -> ReconcileReport:
    manager = OSResourceManager(inventory, bench, revision=revision, mode=mode, files=bench, clock=Noon())
    return manager.reconcile("tenant")


def remembered(inventory: Inventory) -> ReconciledRevision | None:
    with inventory.reading() as read:
        return next(read.all(ReconciledRevision, "tenant"), None)


@contextmanager
def statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        seen.append(statement.split()[0] + (" lists" if "os_resource.existing_cves," in statement else ""))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_new_revision_of_a_selector_is_a_change_and_what_was_before_is_reported(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    first = reconcile(inventory, bench)
    again = reconcile(inventory, bench)
    bench.publish("1.0.1", "edge", "1.1")
    changed = reconcile(inventory, bench)

    assert (first.change, first.previous, first.newest) == (RevisionChange.FIRST, None, "1.0.0")
    assert (again.change, again.revision_changed) == (RevisionChange.NONE, False)
    assert (changed.change, changed.revision_changed) == (RevisionChange.REVISION, True)
    assert changed.previous is not None
    assert (changed.previous.newest, changed.newest) == ("1.0.0", "1.0.1")
    record = remembered(inventory)
    assert record is not None
    assert (record.revision, record.newest, record.mode, record.reconciled_at) == (
        "~1.0.0",
        "1.0.1",
        LinkingMode.MANUAL,
        AT,
    )


def test_a_manifest_published_anew_under_its_revision_is_no_new_revision(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    reconcile(inventory, bench)
    bench.publish("1.0.0", "edge", "1.0", osExistingCvesURL="cves", description="news")

    report = reconcile(inventory, bench)

    assert (report.change, report.revision_changed) == (RevisionChange.MANIFESTS, False)
    assert report.patched == (os_id("edge", "1.0"),)


def test_each_tenant_has_a_memory_of_its_own(inventory: Inventory, bench: ReleaseBench) -> None:
    reconcile(inventory, bench)
    manager = OSResourceManager(inventory, bench, revision="~1.0.0")

    assert manager.reconcile("other").change is RevisionChange.FIRST


def test_a_manifest_that_could_not_be_fetched_leaves_the_change_to_the_run_that_can(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    reconcile(inventory, bench)
    before = remembered(inventory)
    bench.publish("1.0.1", "other", "1.0")
    bench.published["1.0.1", "edge"] = Unavailable("status 503")

    report = reconcile(inventory, bench)

    assert not report.is_complete
    assert report.created == (os_id("other", "1.0"),)
    assert remembered(inventory) == before
    bench.publish("1.0.1", "edge", "1.1")
    assert reconcile(inventory, bench).change is RevisionChange.REVISION
    assert reconcile(inventory, bench).change is RevisionChange.NONE


def test_a_manifest_that_makes_no_sense_does_not_keep_the_rest_from_being_done(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    bench.published["1.0.0", "broken"] = "spec: ["

    first, again = reconcile(inventory, bench), reconcile(inventory, bench)

    assert (first.is_complete, again.change) == (True, RevisionChange.NONE)
    assert [type(item.error) for item in again.rejected] == [InvalidProfile]


def test_a_run_that_finds_what_is_done_costs_counted_statements_and_reads_no_lists(
    tmp_path: Path, bench: ReleaseBench
) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        with statements() as first:
            reconcile(inventory, bench)
        with statements() as manual:
            reconcile(inventory, bench)
        reconcile(inventory, bench, mode=LinkingMode.AUTOMATIC)
        with statements() as automatic:
            reconcile(inventory, bench, mode=LinkingMode.AUTOMATIC)

    # The OS Resource and its event; the revision.
    assert first == ["BEGIN", "SELECT", "SELECT lists", "BEGIN", "INSERT", "INSERT", "BEGIN", "INSERT"]
    assert manual == ["BEGIN", "SELECT", "SELECT"]
    # Rollouts are looked for too.
    assert automatic == ["BEGIN", "SELECT", "SELECT", "BEGIN", "SELECT", "BEGIN", "SELECT"]


def test_a_run_that_finds_what_is_done_still_links_what_was_added_or_linked_down(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    bench.publish("1.0.1", "edge", "1.1")
    reconcile(inventory, bench, mode=LinkingMode.AUTOMATIC)
    instances = install(inventory, 3, "edge", "1.0")

    report = reconcile(inventory, bench, mode=LinkingMode.AUTOMATIC)

    assert (report.change, report.linked_instances) == (RevisionChange.NONE, 3)
    assert desired(inventory) == dict.fromkeys(instances, os_id("edge", "1.1"))


def test_a_run_that_finds_what_is_done_still_repairs_what_an_admin_deleted_or_overwrote(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    bench.publish("1.0.1", "edge", "1.1", osExistingCvesURL="cves")
    reconcile(inventory, bench)
    before = stored(inventory)
    with inventory.writing() as write:
        write.delete(write.get(OSResource, "tenant", os_id("edge", "1.1")))
    change(inventory, OSResource, os_id("edge", "1.0"), name="another")

    report = reconcile(inventory, bench)

    assert (report.created, report.patched) == ((os_id("edge", "1.1"),), (os_id("edge", "1.0"),))
    assert stored(inventory) == before


def test_an_image_that_changed_under_its_version_is_reported_by_every_run(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    reconcile(inventory, bench)
    bench.publish("1.0.0", "edge", "1.0", osImageSha256="f" * 64)

    reports = [reconcile(inventory, bench) for _ in range(2)]

    assert [[conflict.field for conflict in report.conflicts] for report in reports] == [["sha256"]] * 2
    assert reports[1].change is RevisionChange.NONE


def test_a_list_that_comes_later_is_stored_though_nothing_else_has_changed(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    cves = bench.content.pop("cves")
    first = reconcile(inventory, bench)
    bench.content["cves"] = cves

    report = reconcile(inventory, bench)

    assert not first.is_complete
    assert (report.change, report.patched) == (RevisionChange.MANIFESTS, (os_id("edge", "1.0"),))
    assert "CVE-2026-1" in stored(inventory)[os_id("edge", "1.0")].existing_cves


def test_a_change_of_the_mode_is_remembered_and_is_no_change_of_the_revision(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    reconcile(inventory, bench)

    report = reconcile(inventory, bench, mode=LinkingMode.AUTOMATIC)

    assert report.change is RevisionChange.NONE
    assert report.previous is not None
    assert report.previous.mode is LinkingMode.MANUAL
    record = remembered(inventory)
    assert record is not None
    assert record.mode is LinkingMode.AUTOMATIC


def test_a_report_says_as_a_text_what_was_done_and_what_was_not_and_why(
    inventory: Inventory, bench: ReleaseBench
) -> None:
    reconcile(inventory, bench)
    install(inventory, 2, "edge", "1.0")
    bench.publish("1.0.1", "edge", "1.1", osExistingCvesURL="gone")
    bench.publish("1.0.0", "edge", "1.0", osImageSha256="f" * 64)
    bench.published["1.0.1", "broken"] = "spec: ["

    text = str(reconcile(inventory, bench, mode=LinkingMode.AUTOMATIC))

    first, *rest = text.splitlines()
    assert first == (
        "tenant tenant: revision ~1.0.0 (1.0.1), before ~1.0.0 (1.0.0), the revision has changed; automatic: "
        "1 OS Resources created, 0 patched, 2 instances linked"
    )
    assert rest[:2] == [f"created {os_id('edge', '1.1')}", f"linked 2 instances to {os_id('edge', '1.1')}"]
    assert rest[2].startswith("not applied: edge 1.0: revision 1.0.0 says sha256 ffff")
    assert rest[3].startswith("not used: 1.0.1 broken: manifest: found")
    assert rest[4] == "not used: 1.0.1 edge gone: gone: status 503; tried again"
