"""Threads that answer reports: the Maintenance Manager blocks, the event loop mustn't.

Waking a thread and waking the loop again costs more than most reports do. So a worker takes several reports at a time
while many wait, and hands all their answers over at once.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from edge_day2.adapters.grpc.tokens import Caller

_log: Final = logging.getLogger(__name__)

_MOST_AT_A_TIME: Final = 16


@frozen(kw_only=True)
class Refusal:
    """Why a report isn't answered: the name of a gRPC status code, and a text for the agent's log."""

    code: str
    text: str


Outcome = bytes | Refusal

MISTAKE: Final = Refusal(code="INTERNAL", text="internal error")
"""What is told of a mistake in this server: its log has more."""


@frozen(eq=False)
class _Job:
    caller: Caller
    content: bytes
    outcome: asyncio.Future[Outcome]


class ReportWorkers:
    """A few threads that call `answer`. Belongs to the event loop in which it is made.

    Args:
        answer: makes an outcome of each caller and the bytes of its report; called in several threads at once.
        threads: how many.
    """

    def __init__(self, answer: Callable[[Sequence[tuple[Caller, bytes]]], Sequence[Outcome]], threads: int) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.in_work = 0
        """Reports that were submitted and aren't done, those included whose caller has gone away."""
        self._threads = [
            threading.Thread(target=self._work, name=f"edge_day2 report worker {number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, caller: Caller, content: bytes) -> asyncio.Future[Outcome]:
        """Return the outcome to wait for. Where that is done or cancelled before a worker takes it, nothing is done."""
        job = _Job(caller, content, self._loop.create_future())
        self.in_work += 1
        self._jobs.put(job)
        return job.outcome

    async def close(self) -> None:
        """Let the workers finish what was submitted, and end."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs, ends = [job], False
            # A share alone: the others wait for work as well, and one slow report delays those behind it.
            share = min(_MOST_AT_A_TIME, 1 + self._jobs.qsize() // len(self._threads))
            while len(jobs) < share:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ends = True
                    break
                jobs.append(more)
            wanted = [job for job in jobs if not job.outcome.done()]
            outcomes = self._outcomes(wanted)
            self._loop.call_soon_threadsafe(self._hand_over, len(jobs), wanted, outcomes)
            if ends:
                return

    def _outcomes(self, jobs: Sequence[_Job]) -> Sequence[Outcome]:
        try:
            return self._answer([(job.caller, job.content) for job in jobs])
        except Exception:
            # Without this thread all reports that come would wait in vain.
            _log.exception("%d reports can't be answered", len(jobs))
            return [MISTAKE] * len(jobs)

    def _hand_over(self, taken: int, jobs: Sequence[_Job], outcomes: Sequence[Outcome]) -> None:
        self.in_work -= taken
        for job, outcome in zip(jobs, outcomes, strict=True):
            if not job.outcome.done():
                job.outcome.set_result(outcome)
