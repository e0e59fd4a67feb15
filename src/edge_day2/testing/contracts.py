"""The contracts of ports as tests: subclass one, say in a fixture what to test, and let pytest run it.

    class TestMyInventory(InventoryContract):
        @pytest.fixture
        def inventory(self):
            with MyInventory() as inventory:
                yield inventory

Every test of that one begins with an empty Inventory; `SharedInventoryContract` adds what holds where several share a
storage. The contracts of a node's ports (apt, apt sources, boot loader, GRUB, slots) say in their modules what their
fixtures are. Needs `edge_day2[testing]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from attrs import evolve

from edge_day2.domain.resources import Host, Region
from edge_day2.errors import Conflict
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.apt_contract import AptContract
from edge_day2.testing.apt_sources_contract import AptSourcesContract
from edge_day2.testing.bootloader_contract import BootloaderContract
from edge_day2.testing.grub_contract import GrubContract
from edge_day2.testing.inventory_content_contract import InventoryContentContract
from edge_day2.testing.inventory_contents import TENANT, Fleet, load, plain_fleet, store
from edge_day2.testing.inventory_events_contract import InventoryEventsContract
from edge_day2.testing.inventory_lists_contract import InventoryListsContract
from edge_day2.testing.inventory_machine import check_against_model
from edge_day2.testing.inventory_process_contract import InventoryProcessContract
from edge_day2.testing.inventory_rollout_contract import InventoryRolloutContract
from edge_day2.testing.inventory_text_contract import InventoryTextContract
from edge_day2.testing.inventory_transaction_contract import InventoryTransactionContract, count_up, in_threads
from edge_day2.testing.inventory_turn_contract import InventoryTurnContract, InventoryTurnProcessContract
from edge_day2.testing.slots_contract import SlotsContract, TimedSlotsContract

__all__ = [
    "AptContract",
    "AptSourcesContract",
    "BootloaderContract",
    "GrubContract",
    "InventoryContract",
    "InventoryProcessContract",
    "InventoryRolloutContract",
    "InventoryTextContract",
    "InventoryTurnContract",
    "InventoryTurnProcessContract",
    "SharedInventoryContract",
    "SlotsContract",
    "TimedSlotsContract",
    "check_against_model",
]


class InventoryContract(
    InventoryContentContract, InventoryListsContract, InventoryTransactionContract, InventoryEventsContract
):
    """What every adapter of the Inventory port keeps. A subclass gives the fixture `inventory`, empty for each test."""

    @pytest.fixture
    def inventory(self) -> Iterator[Inventory]:
        """The Inventory under test."""
        raise NotImplementedError("a subclass says which Inventory is tested")

    @pytest.fixture
    def fleet(self, inventory: Inventory) -> Fleet:
        """One resource of every kind, stored."""
        fleet = plain_fleet(TENANT)
        store(inventory, *fleet.resources)
        return fleet


class SharedInventoryContract(InventoryContract):
    """What holds besides for an Inventory that outlives its object. A subclass gives `open_another`."""

    @pytest.fixture
    def open_another(self) -> Callable[[], Inventory]:
        """Return another Inventory on the same storage; who calls it closes it."""
        raise NotImplementedError("a subclass says how to open the storage a second time")

    def test_content_outlives_the_inventory_that_stored_it(
        self, inventory: Inventory, fleet: Fleet, open_another: Callable[[], Inventory]
    ) -> None:
        inventory.close()
        with open_another() as another:
            for resource in fleet.resources:
                assert load(another, resource) == resource

    def test_what_one_commits_the_other_sees(
        self, inventory: Inventory, fleet: Fleet, open_another: Callable[[], Inventory]
    ) -> None:
        with open_another() as another:
            with inventory.writing() as unit:
                unit.replace(fleet.host, evolve(fleet.host, name="renamed"))
                assert load(another, fleet.host) == fleet.host
            assert load(another, fleet.host).name == "renamed"

    def test_a_reader_of_one_keeps_its_snapshot_while_the_other_writes(
        self, inventory: Inventory, fleet: Fleet, open_another: Callable[[], Inventory]
    ) -> None:
        with open_another() as another, inventory.reading() as reader:
            assert reader.get(Host, TENANT, "host-1") == fleet.host
            with another.writing() as unit:
                unit.replace(fleet.host, evolve(fleet.host, name="renamed"))
            assert reader.get(Host, TENANT, "host-1") == fleet.host

    def test_a_change_by_the_other_is_a_conflict(
        self, inventory: Inventory, fleet: Fleet, open_another: Callable[[], Inventory]
    ) -> None:
        with open_another() as another:
            with another.writing() as unit:
                unit.replace(fleet.host, evolve(fleet.host, name="theirs"))
            with pytest.raises(Conflict), inventory.writing() as unit:
                unit.replace(fleet.host, evolve(fleet.host, name="ours"))
            assert load(inventory, fleet.host).name == "theirs"

    def test_two_that_write_at_once_lose_nothing(
        self, inventory: Inventory, open_another: Callable[[], Inventory]
    ) -> None:
        counter = Region(resource_id="counter", tenant_id=TENANT, name="0")
        store(inventory, counter)
        with open_another() as another:
            in_threads(
                lambda: [count_up(inventory, counter) for _ in range(40)],
                lambda: [count_up(another, counter) for _ in range(40)],
            )
        assert load(inventory, counter).name == "80"
