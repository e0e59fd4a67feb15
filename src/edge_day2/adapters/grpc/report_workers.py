"""Threads that answer reports: the Maintenance Manager blocks, the event loop mustn't.

Waking a thread and waking the loop again costs more than most reports do, and several reports share what is read for
them. So while they come one upon the other they are gathered for a few milliseconds, a worker takes them together, and
all their answers are handed over at once. A report that comes alone waits for nothing. Two threads at once share one
Python interpreter and are no faster than one: another worker is put to work only where the first one takes its time.
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

# One that is slow delays those that were gathered with it.
_MOST_AT_A_TIME: Final = 64
_GATHERED_SECONDS: Final = 0.008
_PATIENCE_SECONDS: Final = 0.04


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
        self._jobs: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._gathered: list[_Job] = []
        self._timer: asyncio.TimerHandle | None = None
        self._last = self._since = -_GATHERED_SECONDS
        self._busy = 0
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
        self._gathered.append(job)
        now = self._loop.time()
        quiet, self._last = now - self._last > _GATHERED_SECONDS, now
        if len(self._gathered) == 1:
            self._since = now
        if not self._busy and (len(self._gathered) >= _MOST_AT_A_TIME or (quiet and self._timer is None)):
            self._pass_on()
        elif self._timer is None:
            self._timer = self._loop.call_later(_GATHERED_SECONDS, self._look)
        return job.outcome

    async def close(self) -> None:
        """Let the workers finish what was submitted, and end."""
        while self._gathered:
            self._pass_on()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _look(self) -> None:
        """Pass on what was gathered, if a worker has time for it or is late."""
        self._timer = None
        if not self._busy or self._loop.time() - self._since >= _PATIENCE_SECONDS:
            self._pass_on()
        elif self._gathered:
            self._timer = self._loop.call_later(_GATHERED_SECONDS, self._look)

    def _pass_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        jobs, self._gathered = self._gathered[:_MOST_AT_A_TIME], self._gathered[_MOST_AT_A_TIME:]
        if jobs:
            self._busy += 1
            self._jobs.put(jobs)
        if self._gathered:
            self._timer = self._loop.call_later(_GATHERED_SECONDS, self._look)

    def _work(self) -> None:
        while (jobs := self._jobs.get()) is not None:
            wanted = [job for job in jobs if not job.outcome.done()]
            outcomes = self._outcomes(wanted)
            self._loop.call_soon_threadsafe(self._hand_over, len(jobs), wanted, outcomes)

    def _outcomes(self, jobs: Sequence[_Job]) -> Sequence[Outcome]:
        try:
            return self._answer([(job.caller, job.content) for job in jobs])
        except Exception:
            # Without this thread all reports that come would wait in vain.
            _log.exception("%d reports can't be answered", len(jobs))
            return [MISTAKE] * len(jobs)

    def _hand_over(self, taken: int, jobs: Sequence[_Job], outcomes: Sequence[Outcome]) -> None:
        self.in_work -= taken
        self._busy -= 1
        for job, outcome in zip(jobs, outcomes, strict=True):
            if not job.outcome.done():
                job.outcome.set_result(outcome)
