"""Who writes next in an SQLite file: who has waited, in its own process and among several."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_day2.adapters.storage.turns import FileTurns
from edge_day2.adapters.storage.writers import Writers
from edge_day2.errors import StorageError

# Only what goes wrong waits so long.
LONG_SECONDS = 60.0
# Time enough to come too early in, were the gate open.
SHORT_SECONDS = 0.1


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.db"
    path.touch()
    return path


def start(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(LONG_SECONDS / 0.001)):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came true")


def test_the_writers_of_a_process_come_in_the_order_in_which_they_asked(database: Path) -> None:
    writers, order, threads = Writers(FileTurns(database), LONG_SECONDS), list[int](), list[threading.Thread]()

    def write(number: int) -> None:
        with writers.alone() as has_begun:
            has_begun()
            order.append(number)

    with writers.alone() as has_begun:
        has_begun()
        for number in range(5):
            threads.append(start(lambda number=number: write(number)))  # type: ignore[misc]  # a default binds it now
            until(lambda number=number: writers.waiting == number + 1)  # type: ignore[misc]  # as above
    # Whoever comes back at once comes after them.
    write(5)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, 5]


def test_a_writer_that_comes_back_lets_another_process_begin_first(database: Path) -> None:
    linking, reporting = (Writers(FileTurns(database), LONG_SECONDS) for _ in range(2))
    passed, begin, came_back = threading.Event(), threading.Event(), threading.Event()

    def report() -> None:
        with reporting.alone() as has_begun:
            passed.set()
            begin.wait(LONG_SECONDS)
            has_begun()

    def come_back() -> None:
        with linking.alone() as has_begun:
            has_begun()
            came_back.set()

    with linking.alone() as has_begun:
        has_begun()
        threads = [start(report)]
        assert passed.wait(LONG_SECONDS)
    threads.append(start(come_back))
    assert not came_back.wait(SHORT_SECONDS)
    begin.set()
    assert came_back.wait(LONG_SECONDS)
    for thread in threads:
        thread.join()


def test_a_gate_that_stays_closed_or_cannot_be_made_is_done_without(database: Path, tmp_path: Path) -> None:
    hasty, stuck = Writers(FileTurns(database), 0.05), Writers(FileTurns(database), LONG_SECONDS)
    with stuck.alone(), hasty.alone() as has_begun:
        has_begun()
    with Writers(FileTurns(tmp_path / "missing" / "inventory.db"), LONG_SECONDS).alone() as has_begun:
        has_begun()


def test_who_waits_too_long_gives_up_and_is_not_called_any_more(database: Path) -> None:
    writers, gave_up = Writers(FileTurns(database), 0.05), threading.Event()

    def give_up() -> None:
        with pytest.raises(StorageError, match="writing for"), writers.alone():
            pass
        gave_up.set()

    with writers.alone():
        thread = start(give_up)
        assert gave_up.wait(LONG_SECONDS)
        thread.join()
        assert writers.waiting == 0
    with writers.alone():
        pass


def test_an_exception_lets_the_next_one_in(database: Path) -> None:
    writers = Writers(FileTurns(database), LONG_SECONDS)
    with pytest.raises(ZeroDivisionError), writers.alone():
        raise ZeroDivisionError
    with writers.alone():
        pass
