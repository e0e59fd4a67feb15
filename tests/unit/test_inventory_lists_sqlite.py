"""Lists on SQLite: in which way rows are found, and how many statements that takes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_day2.adapters.storage import list_statements, open_inventory
from edge_day2.adapters.storage.schema import METADATA
from edge_day2.domain.inventory_filters import (
    HostFilter,
    InstanceFilter,
    OSResourceFilter,
    ResourceFilter,
    RunFilter,
    SiteFilter,
)
from edge_day2.domain.resources import OSType, Trust
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import START, TENANT, plain_fleet, store
from edge_day2.testing.inventory_lists_contract import InventoryListsContract
from inventory_lists import BY_INDEX, first_and_next, statements


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inventory.db"


@pytest.fixture
def inventory(path: Path) -> Iterator[Inventory]:
    with open_inventory(f"sqlite:///{path}") as inventory:
        yield inventory


@pytest.fixture
def along_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place holds much."""
    monkeypatch.setattr(list_statements, "NOT_MUCH", 0)


@pytest.mark.usefixtures("along_the_list")
class TestSqliteAlongTheList(InventoryListsContract):
    @pytest.fixture
    def fleet(self, inventory: Inventory) -> Any:
        fleet = plain_fleet(TENANT)
        store(inventory, *fleet.resources)
        return fleet


def plan_of(path: Path, asked: list[tuple[str, tuple[Any, ...]]]) -> list[str]:
    other = sqlite3.connect(path)
    try:
        return [
            row[3]
            for statement, parameters in asked
            for row in other.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    finally:
        other.close()


def every_row(plan: list[str]) -> list[str]:
    """Return the steps that read a table or a tenant from end to end."""
    tables = "|".join(METADATA.tables)
    return [step for step in plan if re.match(rf"SCAN ({tables})\b|SEARCH .*\(tenant_id=\?\)$", step)]


@pytest.mark.parametrize(("wanted", "index"), BY_INDEX, ids=str)
def test_a_filter_finds_its_rows_in_order_by_an_index(
    path: Path, inventory: Inventory, wanted: ResourceFilter[Any], index: str
) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as asked, inventory.reading() as unit:
        first_and_next(unit, wanted)
    pages = [(statement, parameters) for statement, parameters in asked if "count(" not in statement]
    plan = plan_of(path, pages)
    assert any(f"INDEX {index} (" in step for step in plan), plan
    lists = [step for statement in pages if "listed" not in statement[0] for step in plan_of(path, [statement])]
    assert not any("TEMP B-TREE" in step for step in lists), lists
    assert [step for step in every_row(plan) if f" {index} " not in step] == []


IN_PLACES: list[ResourceFilter[Any]] = [
    InstanceFilter(site_id="site-1"),
    InstanceFilter(region_id="region-country"),
    InstanceFilter(region_id="region-country", site_id="site-1"),
    InstanceFilter(region_id="region-country", status=InventoryStatus.FAILED, update_due=True),
    HostFilter(region_id="region-country"),
    HostFilter(region_id="region-country", trust=Trust.TRUSTED),
    SiteFilter(region_id="region-country"),
]


@pytest.mark.parametrize("wanted", IN_PLACES, ids=str)
def test_what_lies_in_a_small_place_is_found_from_there(
    path: Path, inventory: Inventory, wanted: ResourceFilter[Any]
) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as asked, inventory.reading() as unit:
        first_and_next(unit, wanted)
    plan = plan_of(path, asked)
    assert every_row(plan) == []
    lists = {"Instance": "instance_host", "Host": "host_site", "Site": "site_region"}
    assert any(lists[wanted.kind.__name__] in step for step in plan), plan


@pytest.mark.usefixtures("along_the_list")
@pytest.mark.parametrize("wanted", IN_PLACES, ids=str)
def test_what_lies_in_a_large_place_is_found_along_the_list(
    path: Path, inventory: Inventory, wanted: ResourceFilter[Any]
) -> None:
    first, second = plain_fleet(), plain_fleet("tenant-b")
    store(inventory, *first.resources, *second.resources)
    with statements() as asked, inventory.reading() as unit:
        first_and_next(unit, wanted)
    pages = [
        item for item in asked if "count(" not in item[0] and "listed" not in item[0] and " OFFSET " not in item[0]
    ]
    plan = plan_of(path, pages)
    assert not any("TEMP B-TREE" in step for step in plan if "ORDER BY" in step), plan


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (InstanceFilter(), "sqlite_autoindex_instance_1 (tenant_id=? AND resource_id>?)"),
        (InstanceFilter(os_type=OSType.MUTABLE), "instance_type (tenant_id=? AND os_type=? AND resource_id>?)"),
        (RunFilter(), "(tenant_id=? AND (start_time,resource_id)<(?,?))"),
        (RunFilter(since=START), "(tenant_id=? AND start_time>? AND (start_time,resource_id)<(?,?))"),
        (RunFilter(until=START), "(tenant_id=? AND (start_time,resource_id)<(?,?))"),
    ],
    ids=str,
)
def test_a_page_behind_a_cursor_begins_there(
    path: Path, inventory: Inventory, wanted: ResourceFilter[Any], index: str
) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as asked, inventory.reading() as unit:
        first_and_next(unit, wanted)
    assert any(step.endswith(index) for step in plan_of(path, asked)), plan_of(path, asked)


def test_a_page_is_one_statement_and_one_of_a_place_two(inventory: Inventory) -> None:
    store(inventory, *plain_fleet().resources)
    for wanted, number in ((InstanceFilter(update_due=True), 1), (InstanceFilter(region_id="region-town"), 2)):
        with statements() as asked, inventory.reading() as unit:
            assert len(unit.page(wanted, tenant_id=TENANT, at_most=10).items) == 1
        assert len(asked) == number
        with statements() as asked, inventory.reading() as unit:
            assert len(unit.instance_views(wanted, tenant_id=TENANT, at_most=10).items) == 1
        assert len(asked) == number


def test_statuses_are_counted_by_one_statement_in_an_index_alone(path: Path, inventory: Inventory) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as asked, inventory.reading() as unit:
        unit.status_counts(TENANT)
    assert plan_of(path, asked) == ["SEARCH instance USING COVERING INDEX instance_status (tenant_id=?)"]


def test_lists_of_cves_do_not_leave_the_database(inventory: Inventory) -> None:
    with statements() as asked, inventory.reading() as unit:
        unit.page(InstanceFilter(), tenant_id=TENANT, at_most=10)
        unit.instance_views(InstanceFilter(), tenant_id=TENANT, at_most=10)
        unit.page(OSResourceFilter(), tenant_id=TENANT, at_most=10)
    for statement, _ in asked:
        assert "instance.existing_cves" not in statement
        assert "os_resource.fixed_cves," not in statement


def test_forgetting_runs_looks_at_old_ones_alone(path: Path, inventory: Inventory) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as asked, inventory.writing() as unit:
        unit.forget_runs(TENANT, START, at_most=10)
    assert any("os_update_run_start (tenant_id=? AND start_time<?)" in step for step in plan_of(path, asked))
