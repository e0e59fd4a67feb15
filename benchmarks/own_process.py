"""Work in a process of its own, so that its peak of memory is nobody else's."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


def in_a_process_of_its_own(work: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
    """Return what `work` returns in a fresh interpreter."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments, named)


def peak_megabytes() -> float:
    """Return the most memory that this process held, interpreter and libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
