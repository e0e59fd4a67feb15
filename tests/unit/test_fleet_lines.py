"""A fleet as JSON lines: what is written is read back as it was, and what is wrong leaves the Inventory as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.adapters.fleet_lines import export_fleet, import_fleet
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import Region, Resource
from edge_day2.domain.rollout import RolloutPolicy
from edge_day2.errors import AlreadyExists, InvalidResource, NotFound
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import TENANT, contents, load, plain_fleet, store
from edge_day2.testing.inventory_rollout_contract import plain_rollout, rollouts

REGION = '{"resource":"Region","resource_id":"region-1","tenant_id":"t","name":"North"}'


@pytest.fixture
def inventory() -> Iterator[Inventory]:
    with open_inventory("memory://") as inventory:
        yield inventory


def everything(inventory: Inventory, tenant_id: str) -> list[Resource]:
    kinds = [type(resource) for resource in plain_fleet().resources]
    with inventory.reading() as unit:
        return [resource for kind in dict.fromkeys(kinds) for resource in unit.all(kind, tenant_id)]


@given(data=st.data())
def test_a_fleet_moves_unchanged(data: st.DataObject) -> None:
    fleet = data.draw(contents(plain_fleet()))
    with open_inventory("memory://") as old, open_inventory("memory://") as new:
        store(old, *fleet.resources)
        lines = list(export_fleet(old, TENANT))
        counts = import_fleet(new, lines)
        assert everything(new, TENANT) == everything(old, TENANT)
        assert counts.total() == len(lines) == len(fleet.resources)
        assert all("\n" not in line and json.loads(line)["tenant_id"] == TENANT for line in lines)


@given(data=st.data())
def test_rollouts_move_with_it(data: st.DataObject) -> None:
    fleet = plain_fleet()
    rollout = data.draw(rollouts(fleet))
    with open_inventory("memory://") as old, open_inventory("memory://") as new:
        store(old, *fleet.resources, rollout)
        assert import_fleet(new, export_fleet(old, TENANT))["Rollout"] == 1
        assert load(new, rollout) == rollout


@pytest.mark.parametrize("soak", ['"1"', "true", "null", "1e400", "-1"])
def test_a_duration_is_a_number_of_seconds(inventory: Inventory, soak: str) -> None:
    fleet = plain_fleet()
    store(inventory, *fleet.resources, plain_rollout(fleet, policy=RolloutPolicy(soak=timedelta(hours=5))))
    lines = [line.replace('"soak":18000.0', f'"soak":{soak}') for line in export_fleet(inventory, TENANT)]
    with pytest.raises(InvalidResource, match="line"):
        import_fleet(inventory, lines, tenant_id="tenant-new")


def test_a_fleet_may_move_to_another_tenant(inventory: Inventory) -> None:
    store(inventory, *plain_fleet().resources)
    import_fleet(inventory, export_fleet(inventory, TENANT), tenant_id="tenant-new")
    moved = everything(inventory, "tenant-new")
    assert [evolve(resource, tenant_id=TENANT) for resource in moved] == everything(inventory, TENANT)


def test_regions_come_after_those_around_them(inventory: Inventory) -> None:
    regions = [Region(resource_id=f"region-{number}", tenant_id="t", name="r") for number in range(3)]
    inner = [evolve(regions[0], parent_id="region-2"), evolve(regions[1], parent_id="region-0"), regions[2]]
    store(inventory, inner[2], inner[0], inner[1])
    written = [json.loads(line)["resource_id"] for line in export_fleet(inventory, "t")]
    assert written == ["region-2", "region-0", "region-1"]


def test_a_field_at_its_default_may_be_left_out_and_empty_lines_are_skipped(inventory: Inventory) -> None:
    assert import_fleet(inventory, ["", REGION, "  \n"]) == {"Region": 1}
    assert everything(inventory, "t") == [Region(resource_id="region-1", tenant_id="t", name="North")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not JSON", "Expecting value"),
        ("[]", "no object"),
        ("[" * 100_000, "recursion"),
        ('{"resource_id":"x"}', "none of OSResource"),
        ('{"resource":"Tree"}', "none of OSResource"),
        (REGION.replace('"North"', "5"), "expected str"),
        (REGION.replace('"North"', '""'), "name"),
        (REGION.replace('"name"', '"nmae"'), "nmae"),
        (REGION.replace("}", ',"parent_id":[]}'), "[]"),
        ('{"resource":"Host","resource_id":"h","tenant_id":"t","name":"n","guid":"no"}', "UUID"),
        (REGION.replace("North", "N" * (4 << 20)), "characters"),
    ],
)
def test_a_line_that_makes_no_sense_is_named_and_nothing_is_stored(inventory: Inventory, line: str, says: str) -> None:
    with pytest.raises(InvalidResource, match="line 2") as caught:
        import_fleet(inventory, [REGION, line])
    assert says in str(caught.value)
    assert everything(inventory, "t") == []


def test_what_refers_to_nothing_or_is_there_already_is_refused_as_a_whole(inventory: Inventory) -> None:
    lost = REGION.replace("region-1", "region-2").replace("}", ',"parent_id":"nowhere"}')
    with pytest.raises(NotFound):
        import_fleet(inventory, [REGION, lost])
    assert everything(inventory, "t") == []
    import_fleet(inventory, [REGION])
    with pytest.raises(AlreadyExists):
        import_fleet(inventory, [REGION.replace("region-1", "region-0"), REGION])
    assert len(everything(inventory, "t")) == 1


@given(st.text())
def test_arbitrary_text_is_stored_or_refused_and_never_anything_else(text: str) -> None:
    with open_inventory("memory://") as inventory:
        try:
            import_fleet(inventory, [text])
        except InvalidResource:
            assert text.strip()


def test_a_fleet_goes_into_a_file_and_a_database(tmp_path: Path) -> None:
    path = tmp_path / "fleet.jsonl"
    with open_inventory("memory://") as old, path.open("w", encoding="utf-8") as file:
        store(old, *plain_fleet().resources)
        file.writelines(f"{line}\n" for line in export_fleet(old, TENANT))
    with open_inventory(f"sqlite:///{tmp_path / 'new.db'}") as new, path.open(encoding="utf-8") as file:
        import_fleet(new, file)
        assert set(everything(new, TENANT)) == set(plain_fleet().resources)
