"""When can which host be updated? Reads schedules from a JSON file and shows the windows.

Run: python examples/windows.py [--file FILE] [--start 2026-12-21T00:00+01:00] [--days 7] [--zone Europe/Warsaw]
     [--svg PICTURE]

It prints a strip for the terminal and one sentence for each host; with --svg it also writes the picture. examples/
windows.json shows what a file holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge_day2.adapters.calendar_strip import StripRow, svg_strip, text_strip
from edge_day2.adapters.schedule_file import read_schedule_file
from edge_day2.domain.window_outlook import explain, forecast
from edge_day2.errors import EdgeDay2Error


def zone(text: str) -> ZoneInfo:
    """Return the time zone of the command line."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        expected = "a time zone of the IANA database, such as Europe/Warsaw"
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}") from error


def instant(text: str) -> datetime:
    """Return the instant of the command line."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        expected = "an instant with its distance to UTC, such as 2026-12-21T00:00+01:00"
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
    return found


def number(least: int) -> Callable[[str], int]:
    """Return a converter of the command line's whole numbers."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least}")
        return int(text)

    return convert


def main(arguments: list[str]) -> int:
    """Print the strip and the sentences; return the exit status."""
    parser = argparse.ArgumentParser(description="When can which host be updated?")
    parser.add_argument(
        "--file", type=Path, default=Path(__file__).with_name("windows.json"), help="places, hosts and schedules"
    )
    parser.add_argument("--start", type=instant, default="2026-12-21T00:00+01:00", help="default: %(default)s")
    parser.add_argument("--days", type=number(1), default=7, help="from the start on, default: %(default)s")
    parser.add_argument("--zone", type=zone, default="Europe/Warsaw", help="of the strip, default: %(default)s")
    parser.add_argument("--needed", type=number(0), default=10, help="minutes that an update takes, reboot included")
    parser.add_argument("--svg", type=Path, help="where the picture goes")
    chosen = parser.parse_args(arguments)
    try:
        start, stop, needed = chosen.start, chosen.start + timedelta(days=chosen.days), timedelta(minutes=chosen.needed)
    except OverflowError:
        parser.error("--start, --days and --needed: what they come to lies outside of the years 1 to 9999")
    try:
        book = read_schedule_file(chosen.file)
        host_ids = sorted(host_id for _, host_ids in book.fleet() for host_id in host_ids)
        outlook = forecast(book, host_ids, start, stop, needed=needed)
        rows = [
            StripRow(
                book.host(host_id).name,
                outlook.windows.get(host_id, ()),
                book.schedule_of(host_id).blackout_windows(start, stop),
            )
            for host_id in host_ids
        ]
        sys.stdout.write(text_strip(rows, start, stop, chosen.zone))
        for host_id in host_ids:
            sys.stdout.write(f"{book.host(host_id).name}: {explain(book, host_id, start, needed=needed).sentence}\n")
        if chosen.svg is not None:
            chosen.svg.write_text(svg_strip(rows, start, stop, chosen.zone), encoding="utf-8")
    except (EdgeDay2Error, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
