"""How long one schedule takes to answer, against cronsim and croniter in the same run.

Run: python benchmarks/bench_schedules.py [instants]

Each schedule is asked about the same random instants of 1970 to 2100. `next_window` finds a start and the merged window
that it opens; the peers find the start alone, and are made anew for each instant, since they only go on from where they
are. `window_at` has no counterpart in the peers, who would need at least one such search; its ratio is to the same
figure. The best of five rounds counts.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

from edge_day2.domain.schedules import RepeatedSchedule

SCHEDULES = {
    "twice a week": RepeatedSchedule(),
    "twice a week, Warsaw": RepeatedSchedule(time_zone="Europe/Warsaw"),
    "29 February": RepeatedSchedule("0", "2", "29", "2", "*"),
    "29 February, New York": RepeatedSchedule("0", "2", "29", "2", "*", time_zone="America/New_York"),
    "Friday the 13th or any 1st, Lord Howe": RepeatedSchedule("30", "1", "1,13", "*", "5", 3600, "Australia/Lord_Howe"),
    "nightly, Sao Paulo": RepeatedSchedule("0", "0", "*", "*", "*", 7200, "America/Sao_Paulo"),
    "every quarter of an hour": RepeatedSchedule("0,15,30,45", "*", "*", "*", "*", 600),
    "whole weekdays, one window a week": RepeatedSchedule("0", "0", "*", "*", "1,2,3,4,5", 86_400),
    "whole weekdays, Warsaw": RepeatedSchedule("0", "0", "*", "*", "1,2,3,4,5", 86_400, "Europe/Warsaw"),
}


def seconds_each(asked: list[tuple[Callable[[datetime], object], list[datetime]]]) -> list[float]:
    """Return the seconds that a call of each function takes, at its best of five rounds.

    The functions take turns, so that a busy machine is busy for all of them.
    """
    best = [float("inf")] * len(asked)
    for _ in range(5):
        for place, (ask, instants) in enumerate(asked):
            gc.collect()
            begun = time.perf_counter()
            for instant in instants:
                ask(instant)
            best[place] = min(best[place], (time.perf_counter() - begun) / len(instants))
    return best


def peer_of(line: str, library: str) -> Callable[[datetime], object]:
    """Return how a user of `library` finds the next start after an instant."""
    if library == "cronsim":
        return lambda instant: next(CronSim(line, instant))
    return lambda instant: croniter(line, instant).get_next(datetime)


def main(count: int) -> None:
    """Print a table of microseconds and ratios."""
    draw = random.Random(1)
    begin = datetime(1970, 1, 2, tzinfo=UTC)
    instants = [begin + timedelta(seconds=draw.randint(0, 130 * 365 * 86_400)) for _ in range(count)]
    print(f"{count} random instants; microseconds per call, and how many times faster than each peer")
    heads = ("window_at", "next_window", "cronsim", "croniter", "x cronsim", "x croniter")
    print(" " * 38 + "".join(f"{head:>13}" for head in heads))
    for name, schedule in SCHEDULES.items():
        line = " ".join((schedule.minutes, schedule.hours, schedule.day_month, schedule.month, schedule.day_week))
        zone = UTC if schedule.time_zone == "UTC" else ZoneInfo(schedule.time_zone)
        local = [instant.astimezone(zone) for instant in instants]
        inside, ahead, *peers = seconds_each(
            [
                (schedule.window_at, instants),
                (schedule.next_window, instants),
                (peer_of(line, "cronsim"), local[::10]),
                (peer_of(line, "croniter"), local[::20]),
            ]
        )
        times = "".join(f"{seconds * 1e6:13.2f}" for seconds in (inside, ahead, *peers))
        ratios = (f"{peer / inside:.0f} / {peer / ahead:.1f}" for peer in peers)
        print(f"{name:38}{times}" + "".join(f"{ratio:>13}" for ratio in ratios))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
