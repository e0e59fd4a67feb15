"""The OS Resource Manager when nothing changed, when somebody else comes first, and when it is interrupted."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import ReconcileReport
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.reconciled import RevisionChange
from edge_day2.domain.resources import Instance, OSResource, OSType
from edge_day2.errors import Conflict, InvalidResource
from edge_day2.ports.inventory import Inventory, UnitOfWork
from orchestrator import EDGE, EXAMPLES, NEW_EDGE, OLD_EDGE, automatic, change, desired, install, manager, os_id, stored


class Watched:
    """An Inventory that counts its writing transactions and can be interfered with just before one begins."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.written = 0
        self.interferences: dict[int, Callable[[], None]] = {}

    def reading(self) -> Any:
        return self.inventory.reading()

    @contextmanager
    def writing(self) -> Iterator[UnitOfWork]:
        self.written += 1
        self.interferences.get(self.written, lambda: None)()
        with self.inventory.writing() as write:
            yield write

    def turn(self, name: str) -> AbstractContextManager[bool]:
        return self.inventory.turn(name)

    def close(self) -> None:
        self.inventory.close()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@pytest.fixture(params=["memory", "sqlite"])
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as opened:
        yield Watched(opened)


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLES, tmp_path / "profiles")


def test_a_run_that_finds_nothing_new_writes_nothing(inventory: Watched) -> None:
    for mode in LinkingMode:
        manager(inventory, mode=mode).reconcile("tenant")
        written = inventory.written

        report = manager(inventory, mode=mode).reconcile("tenant")

        assert inventory.written == written
        assert report == ReconcileReport(
            tenant_id="tenant",
            revision="0.9.8",
            mode=mode,
            newest="0.9.8",
            previous=report.previous,
            change=RevisionChange.NONE,
        )


def test_what_another_manager_creates_in_the_meantime_is_used(inventory: Watched) -> None:
    other = manager(inventory.inventory)
    inventory.interferences[1] = lambda: assert_created(other.reconcile("tenant"))

    report = manager(inventory).reconcile("tenant")

    assert (report.created, report.patched, report.rejected) == ((), (), ())
    assert len(stored(inventory)) == 9


def assert_created(report: ReconcileReport) -> None:
    assert report.created


def test_what_an_admin_patches_in_the_meantime_is_kept(inventory: Watched, profiles: Path) -> None:
    manager(inventory, profiles).reconcile("tenant")
    ubuntu = os_id("ubuntu-lenovo", "22.04.3")
    manifest = profiles / "0.9.8" / "ubuntu-lenovo.yaml"
    manifest.write_text(manifest.read_text().replace("description: ", "description: New "))
    inventory.interferences[inventory.written + 1] = lambda: change(
        inventory.inventory, OSResource, ubuntu, update_packages=("curl",)
    )

    report = manager(inventory, profiles).reconcile("tenant")

    assert report.patched == (ubuntu,)
    assert stored(inventory)[ubuntu].update_packages == ("curl",)
    assert stored(inventory)[ubuntu].description.startswith("New ")


def test_a_change_that_never_succeeds_is_reported_and_the_rest_is_done(inventory: Watched, profiles: Path) -> None:
    with inventory.inventory.writing() as write:
        # Another OS Resource has taken the id that the manifest's resource would have.
        write.add(
            OSResource(
                resource_id=os_id(EDGE, NEW_EDGE),
                tenant_id="tenant",
                name="squatter",
                os_type=OSType.MUTABLE,
                profile_name="squatter",
                image_id="1.0",
                sha256="0" * 64,
            )
        )

    report = automatic(inventory)

    assert [(item.revision, item.name) for item in report.rejected] == [("0.9.8", EDGE)]
    assert len(report.created) == 8
    assert stored(inventory)[os_id(EDGE, NEW_EDGE)].metadata == ()


def test_content_that_no_database_holds_is_reported_and_the_rest_is_done(inventory: Watched) -> None:
    def refuse() -> None:
        raise InvalidResource("OSResource.name", "x", "something else")

    # The first change of every one of the five tries.
    inventory.interferences = dict.fromkeys((1, 10, 11, 12, 13), refuse)

    report = manager(inventory).reconcile("tenant")

    assert [type(item.error) for item in report.rejected] == [InvalidResource]
    assert len(report.created) == 8


def before_linking(inventory: Watched, interference: Callable[[], None], transaction: int = 1) -> list[str]:
    """Set up three instances and a revision to link, of which `interference` disturbs a writing transaction."""
    manager(inventory, revision="0.9.0").reconcile("tenant")
    manager(inventory, revision="0.9.8").reconcile("tenant")
    instances = install(inventory, 3)
    inventory.interferences[inventory.written + transaction] = interference
    return instances


def test_an_instance_that_changes_while_linking_keeps_its_change_and_is_linked(inventory: Watched) -> None:
    touch = lambda: change(inventory.inventory, Instance, f"inst-{EDGE}-000", os_update_available="news")  # noqa: E731
    instances = before_linking(inventory, touch)

    report = automatic(inventory)

    assert report.linked_instances == 3
    assert desired(inventory) == dict.fromkeys(instances, os_id(EDGE, NEW_EDGE))
    with inventory.reading() as read:
        assert read.get(Instance, "tenant", instances[0]).os_update_available == "news"


def test_an_instance_that_another_manager_links_meanwhile_is_linked_once(inventory: Watched) -> None:
    before_linking(inventory, lambda: assert_linked(automatic(inventory.inventory)))

    report = automatic(inventory)

    # The first batch was overtaken; what the second one saw is left to the Inventory.
    assert report.linked_instances <= 1
    assert set(desired(inventory).values()) == {os_id(EDGE, NEW_EDGE)}


def assert_linked(report: ReconcileReport) -> None:
    assert report.linked_instances == 3


def test_an_inventory_may_be_linked_one_instance_at_a_time(inventory: Watched) -> None:
    instances = before_linking(inventory, lambda: None)

    manager(inventory, mode=LinkingMode.AUTOMATIC, batch_size=1).reconcile("tenant")

    assert desired(inventory) == dict.fromkeys(instances, os_id(EDGE, NEW_EDGE))


def test_an_instance_that_is_deleted_while_linking_is_left_out(inventory: Watched) -> None:
    def delete() -> None:
        with inventory.inventory.writing() as write:
            write.delete(write.get(Instance, "tenant", f"inst-{EDGE}-001"))

    before_linking(inventory, delete)

    assert automatic(inventory).linked_instances == 2


def test_an_os_resource_that_is_deleted_while_linking_stops_the_run_for_the_next_one(inventory: Watched) -> None:
    def delete() -> None:
        with inventory.inventory.writing() as write:
            write.delete(write.get(OSResource, "tenant", os_id(EDGE, NEW_EDGE)))

    instances = before_linking(inventory, delete)

    with pytest.raises(Conflict, match="was deleted"):
        automatic(inventory)
    automatic(inventory)

    assert desired(inventory) == dict.fromkeys(instances, os_id(EDGE, NEW_EDGE))


def test_a_batch_is_repeated_after_a_conflict_but_not_for_ever(inventory: Watched) -> None:
    def overtake() -> None:
        raise Conflict("somebody else")

    instances = before_linking(inventory, overtake)
    first = inventory.written + 1
    inventory.interferences = dict.fromkeys(range(first, first + 5), overtake)
    assert automatic(inventory).linked_instances == 3
    assert desired(inventory) == dict.fromkeys(instances, os_id(EDGE, NEW_EDGE))

    inventory.interferences = {}
    for instance in instances:
        change(inventory, Instance, instance, desired_os_id=os_id(EDGE, OLD_EDGE))
    inventory.interferences = dict.fromkeys(range(inventory.written + 1, inventory.written + 100), overtake)
    with pytest.raises(Conflict, match="somebody else"):
        automatic(inventory)


def test_an_interrupted_run_is_completed_by_the_next_one(inventory: Watched) -> None:
    def crash() -> None:
        raise KeyboardInterrupt

    instances = before_linking(inventory, crash, transaction=2)
    with pytest.raises(KeyboardInterrupt):
        automatic(inventory)
    assert list(desired(inventory).values()).count(os_id(EDGE, NEW_EDGE)) == 2

    assert automatic(inventory).linked_instances == 1
    assert desired(inventory) == dict.fromkeys(instances, os_id(EDGE, NEW_EDGE))


def test_managers_that_run_at_once_bring_about_what_one_alone_does(inventory: Watched) -> None:
    manager(inventory, revision="0.9.0").reconcile("tenant")
    instances = install(inventory, 40)
    reports: list[ReconcileReport] = []
    threads = [threading.Thread(target=lambda: reports.append(automatic(inventory.inventory))) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(reports) == 4
    created = [resource_id for report in reports for resource_id in report.created]
    assert len(created) == len(set(created))
    assert sum(report.linked_instances for report in reports) == 40
    assert desired(inventory) == dict.fromkeys(instances, os_id(EDGE, NEW_EDGE))
