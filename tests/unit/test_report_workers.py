"""The threads that answer reports: nothing is lost, nothing is done for nobody, and a slow report delays few."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence

from edge_day2.adapters.grpc.report_workers import MISTAKE, Outcome, ReportWorkers
from edge_day2.adapters.grpc.tokens import Caller

CALLER = Caller(tenant="tenant")


class Gate:
    """An answer that is given when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.asked: list[bytes] = []

    def answer(self, reports: Sequence[tuple[Caller, bytes]]) -> list[Outcome]:
        for _, content in reports:
            self.asked.append(content)
            if content.startswith(b"slow"):
                self.entered.release()
                assert self.open.wait(60)
        return [content.upper() for _, content in reports]


def tell(story: Callable[[ReportWorkers, Gate], Coroutine[None, None, None]], threads: int = 1) -> Gate:
    """Run a story with workers; they are closed at the end."""
    gate = Gate()

    async def run() -> None:
        workers = ReportWorkers(gate.answer, threads)
        try:
            await story(workers, gate)
        finally:
            gate.open.set()
            await workers.close()

    asyncio.run(run())
    return gate


def test_every_report_gets_its_own_answer() -> None:
    async def story(workers: ReportWorkers, gate: Gate) -> None:
        contents = [f"report {number}".encode() for number in range(500)]
        outcomes = await asyncio.gather(*(workers.submit(CALLER, content) for content in contents))
        assert outcomes == [content.upper() for content in contents]
        assert workers.in_work == 0

    gate = tell(story, threads=4)

    assert len(gate.asked) == 500


def test_a_report_whose_caller_is_gone_before_its_turn_is_not_worked_on() -> None:
    async def story(workers: ReportWorkers, gate: Gate) -> None:
        first = workers.submit(CALLER, b"slow")
        await asyncio.to_thread(gate.entered.acquire)
        gone, late = workers.submit(CALLER, b"gone"), workers.submit(CALLER, b"late")
        gone.cancel()
        assert workers.in_work == 3
        gate.open.set()
        assert [await first, await late] == [b"SLOW", b"LATE"]
        assert workers.in_work == 0

    assert tell(story).asked == [b"slow", b"late"]


def test_a_report_that_is_worked_on_counts_until_it_is_done_although_its_caller_is_gone() -> None:
    async def story(workers: ReportWorkers, gate: Gate) -> None:
        first = workers.submit(CALLER, b"slow")
        await asyncio.to_thread(gate.entered.acquire)
        first.cancel()
        assert workers.in_work == 1
        gate.open.set()
        assert await workers.submit(CALLER, b"next") == b"NEXT"
        assert workers.in_work == 0

    tell(story)


def test_a_slow_report_does_not_stop_the_others() -> None:
    async def story(workers: ReportWorkers, gate: Gate) -> None:
        slow = workers.submit(CALLER, b"slow")
        await asyncio.to_thread(gate.entered.acquire)
        assert await workers.submit(CALLER, b"quick") == b"QUICK"
        assert not slow.done()

    tell(story, threads=2)


def test_what_was_submitted_before_the_end_is_done() -> None:
    async def story(workers: ReportWorkers, gate: Gate) -> None:
        outcomes = [workers.submit(CALLER, f"report {number}".encode()) for number in range(100)]
        await workers.close()
        assert len([await outcome for outcome in outcomes]) == 100

    assert len(tell(story, threads=3).asked) == 100


def test_a_mistake_costs_the_reports_that_meet_it_and_no_worker() -> None:
    def answer(reports: Sequence[tuple[Caller, bytes]]) -> list[Outcome]:
        if any(content == b"bad" for _, content in reports):
            raise ZeroDivisionError
        return [content.upper() for _, content in reports]

    async def story() -> None:
        workers = ReportWorkers(answer, 1)
        outcomes = [await workers.submit(CALLER, content) for content in (b"bad", b"bad", b"good")]
        assert outcomes == [MISTAKE, MISTAKE, b"GOOD"]
        assert workers.in_work == 0
        await workers.close()

    asyncio.run(story())


def test_a_worker_takes_no_more_than_so_many_reports_at_a_time() -> None:
    taken: list[int] = []
    gate = Gate()

    def answer(reports: Sequence[tuple[Caller, bytes]]) -> list[Outcome]:
        taken.append(len(reports))
        return gate.answer(reports)

    async def story() -> None:
        workers = ReportWorkers(answer, 1)
        first = workers.submit(CALLER, b"slow")
        await asyncio.to_thread(gate.entered.acquire)
        others = [workers.submit(CALLER, b"report") for _ in range(100)]
        gate.open.set()
        await asyncio.gather(first, *others)
        await workers.close()

    asyncio.run(story())
    assert taken == [1, 64, 36]
