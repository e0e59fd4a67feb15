"""What an Inventory's turns promise: to threads, and to real processes of which some are killed or fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

import pytest

import edge_day2
from edge_day2.adapters.storage import open_inventory
from edge_day2.errors import StorageError
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_transaction_contract import in_threads

_NAME: Final = "reconcile tenant-a"
# Long enough for any machine; what is waited for comes in milliseconds.
_PATIENCE_SECONDS: Final = 60.0


class _Interrupted(Exception):
    pass


def taken(inventory: Inventory, name: str = _NAME) -> bool:
    """Return whether the turn could be taken, and give it back."""
    with inventory.turn(name) as mine:
        return mine


def _becomes(expected: bool, question: Callable[[], bool]) -> bool:
    """Ask until the answer is `expected`: a server takes a moment to notice that somebody has gone."""
    pause, waited = threading.Event(), 0.0
    while question() is not expected and waited < _PATIENCE_SECONDS:
        pause.wait(0.05)
        waited += 0.05
    return question() is expected


class InventoryTurnContract:
    """Turns among threads. Needs the fixture `inventory`."""

    @pytest.fixture
    def inventory(self) -> Iterator[Inventory]:
        """The Inventory under test."""
        raise NotImplementedError("a subclass says which Inventory is tested")

    def test_a_turn_has_one_holder_also_when_it_asks_again(self, inventory: Inventory) -> None:
        with inventory.turn(_NAME) as mine:
            assert mine
            assert not taken(inventory)
            with inventory.turn(_NAME) as again:
                assert not again
            assert not taken(inventory)
        assert taken(inventory)

    def test_turns_of_different_names_have_nothing_to_do_with_each_other(self, inventory: Inventory) -> None:
        with inventory.turn(_NAME) as one, inventory.turn("reconcile tenant-b") as other:
            assert (one, other) == (True, True)

    @pytest.mark.parametrize("name", ["", "\0", "\ud800", "Ω" * 10_000, "'; DROP TABLE host; --", "%s :name"])
    def test_a_turn_may_have_any_name(self, inventory: Inventory, name: str) -> None:
        with inventory.turn(name) as mine:
            assert mine
            assert not taken(inventory, name)
        assert taken(inventory, name)

    def test_a_turn_ends_with_an_exception(self, inventory: Inventory) -> None:
        with pytest.raises(_Interrupted), inventory.turn(_NAME):
            raise _Interrupted
        assert taken(inventory)

    def test_transactions_go_on_during_a_turn(self, inventory: Inventory) -> None:
        with inventory.turn(_NAME), inventory.writing() as unit:
            assert unit.tenants() == ()

    def test_of_threads_that_ask_at_once_one_has_the_turn(self, inventory: Inventory) -> None:
        together, answers = threading.Barrier(6), list[bool]()

        def ask() -> None:
            together.wait(_PATIENCE_SECONDS)
            with inventory.turn(_NAME) as mine:
                answers.append(mine)
                together.wait(_PATIENCE_SECONDS)

        in_threads(*[ask] * 6)
        assert sorted(answers) == [False] * 5 + [True]

    def test_a_closed_inventory_gives_no_turns(self, inventory: Inventory) -> None:
        inventory.close()
        with pytest.raises(StorageError), inventory.turn(_NAME):
            pass


def hold_in_process(url: str) -> None:
    """Take the turn, say whether it was free, and keep it until told to go on."""
    with open_inventory(url) as inventory, inventory.turn(_NAME) as mine:
        print(mine, flush=True)
        sys.stdin.readline()


def fork_in_process(url: str) -> None:
    """Take the turn, and fork a child that lives until its input ends."""
    with open_inventory(url) as inventory, inventory.turn(_NAME) as mine:
        if os.fork() == 0:
            print(mine, flush=True)
            sys.stdin.readline()
            # Through every block that the parent is in, too.
            return
        threading.Event().wait()


def _start(work: str, url: str) -> subprocess.Popen[str]:
    code = f"import sys; from {__name__} import {work}; {work}(*sys.argv[1:])"
    source = str(Path(edge_day2.__file__).parents[1])
    return subprocess.Popen(  # noqa: S603 - this interpreter, running a function of this module
        [sys.executable, "-c", code, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )


def _streams(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


class InventoryTurnProcessContract:
    """Turns among processes. A subclass gives the fixture `url` of an empty storage, for `open_inventory`."""

    @pytest.fixture
    def url(self) -> str:
        """Where the storage under test is."""
        raise NotImplementedError("a subclass says which storage is tested")

    def test_another_process_has_the_turn_until_it_ends(self, url: str) -> None:
        with open_inventory(url) as inventory, _start("hold_in_process", url) as process:
            tell, hear = _streams(process)
            assert hear.readline() == "True\n"
            assert not taken(inventory)
            tell.write("\n")
            tell.flush()
            process.wait(_PATIENCE_SECONDS)
            assert _becomes(True, lambda: taken(inventory))

    def test_another_object_of_this_process_is_another_holder(self, url: str) -> None:
        with open_inventory(url) as one, open_inventory(url) as other, one.turn(_NAME):
            assert not taken(other)

    def test_a_process_that_is_killed_gives_the_turn_back(self, url: str) -> None:
        with open_inventory(url) as inventory:
            for _ in range(3):
                with _start("hold_in_process", url) as process:
                    assert _streams(process)[1].readline() == "True\n"
                    assert not taken(inventory)
                    process.kill()
                    process.wait()
                    assert _becomes(True, lambda: taken(inventory))

    def test_a_child_that_was_forked_does_not_keep_the_turn_of_a_killed_parent(self, url: str) -> None:
        with open_inventory(url) as inventory, _start("fork_in_process", url) as process:
            tell, hear = _streams(process)
            assert hear.readline() == "True\n"
            assert not taken(inventory)
            process.kill()
            process.wait()
            assert _becomes(True, lambda: taken(inventory))
            # The child is still there, and its end changes nothing.
            with inventory.turn(_NAME) as mine:
                assert mine
                tell.close()
                assert hear.read() == ""
                assert not taken(inventory)

    def test_a_child_ends_without_ending_its_parents_turn(self, url: str) -> None:
        with open_inventory(url) as inventory:
            child = 0
            with inventory.turn(_NAME) as mine:
                assert mine
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        status = 0 if not taken(inventory) else 2
                    finally:
                        os._exit(status)
                assert os.waitpid(child, 0)[1] == 0
                assert not taken(inventory)
            assert taken(inventory)
