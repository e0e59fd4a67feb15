"""What an Inventory promises to several processes, and to one that is killed. The processes are real."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO

import pytest
from attrs import evolve

import edge_day2
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import OSResource, Region
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import TENANT, load, store
from edge_day2.testing.inventory_events_contract import add, told
from edge_day2.testing.inventory_transaction_contract import count_up

_COUNTER = Region(resource_id="counter", tenant_id=TENANT, name="0")
_TOGETHER = [Region(resource_id=f"region-{number:02}", tenant_id=TENANT, name="0") for number in range(20)]


def count_in_process(url: str, times: str) -> None:
    """Add one to the counter, again and again."""
    with open_inventory(url) as inventory:
        for _ in range(int(times)):
            count_up(inventory, _COUNTER)


def add_region_in_process(url: str, resource_id: str) -> None:
    """Open the Inventory, new as it may be, and add a region."""
    with open_inventory(url) as inventory:
        store(inventory, evolve(_COUNTER, resource_id=resource_id))


def change_together_for_ever(url: str, start: str) -> None:
    """Give all regions the next number, one transaction for each number, and say which one is stored."""
    with open_inventory(url) as inventory:
        for number in count(int(start)):
            with inventory.writing() as unit:
                for region in list(unit.all(Region, TENANT)):
                    unit.replace(region, evolve(region, name=str(number)))
            print(number, flush=True)


def add_os_resources(url: str, first: str, step: str) -> None:
    """Add OS Resources number `first`, `first + step`, …, one transaction for each, and say which one is stored."""
    with open_inventory(url) as inventory:
        for number in count(int(first), int(step)):
            add(inventory, number)
            print(number, flush=True)


def _start(work: str, *arguments: str) -> subprocess.Popen[str]:
    code = f"import sys; from {__name__} import {work}; {work}(*sys.argv[1:])"
    source = str(Path(edge_day2.__file__).parents[1])
    return subprocess.Popen(  # noqa: S603 - this interpreter, running a function of this module
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )


def _wait(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes)


def _stream(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


class InventoryProcessContract:
    """A subclass gives the fixture `url` of an empty storage, for `open_inventory`."""

    @pytest.fixture
    def url(self) -> str:
        """Where the storage under test is."""
        raise NotImplementedError("a subclass says which storage is tested")

    @pytest.fixture
    def inventory(self, url: str) -> Iterator[Inventory]:
        """The storage, opened by this process."""
        with open_inventory(url) as inventory:
            yield inventory

    def test_processes_that_write_at_once_lose_nothing(self, url: str, inventory: Inventory) -> None:
        store(inventory, _COUNTER)
        _wait(*(_start("count_in_process", url, "50") for _ in range(2)))
        assert load(inventory, _COUNTER).name == "100"

    def test_processes_may_open_a_new_storage_at_once(self, url: str) -> None:
        names = [f"region-{number}" for number in range(4)]
        _wait(*(_start("add_region_in_process", url, name) for name in names))
        with open_inventory(url) as inventory, inventory.reading() as unit:
            assert [region.resource_id for region in unit.all(Region, TENANT)] == names

    @pytest.mark.parametrize("milliseconds", [0, 3, 8, 21, 55])
    def test_a_process_killed_while_writing_leaves_old_or_new(self, url: str, milliseconds: int) -> None:
        with open_inventory(url) as inventory:
            store(inventory, *_TOGETHER)
        process = _start("change_together_for_ever", url, "1")
        with _stream(process) as stream:
            first = stream.readline()
            time.sleep(milliseconds / 1000)
            process.kill()
            announced = [int(line) for line in (first + stream.read()).split()]
        process.wait()
        with open_inventory(url) as inventory, inventory.reading() as unit:
            (stored,) = {int(region.name) for region in unit.all(Region, TENANT)}
        assert stored in (announced[-1], announced[-1] + 1)

    def test_a_reader_of_the_change_feed_misses_nothing_while_processes_write_and_are_killed(
        self, url: str, inventory: Inventory
    ) -> None:
        writers = [_start("add_os_resources", url, str(number), "3") for number in range(3)]
        heard: list[str] = []
        cursor = ""
        try:
            while len(heard) < 90:
                with inventory.reading() as unit:
                    page = unit.events(TENANT, after=cursor, at_most=7)
                heard += [event.resource_id for event in page.events]
                cursor = page.cursor
                for writer in writers:
                    assert writer.poll() is None
        finally:
            said = 0
            for writer in writers:
                writer.kill()
                said += len(_stream(writer).read().splitlines())
                _stream(writer).close()
                writer.wait()
        heard += [event.resource_id for event in told(inventory, cursor)]

        assert len(set(heard)) == len(heard) >= said
        with inventory.reading() as unit:
            assert {found.resource_id for found in unit.all(OSResource, TENANT)} == set(heard)

    def test_a_forked_process_uses_connections_of_its_own(self, inventory: Inventory) -> None:
        store(inventory, _COUNTER)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(5):
                    count_up(inventory, _COUNTER)
                status = 0
            finally:
                os._exit(status)
        for _ in range(5):
            count_up(inventory, _COUNTER)
        assert os.waitpid(child, 0)[1] == 0
        assert load(inventory, _COUNTER).name == "10"
