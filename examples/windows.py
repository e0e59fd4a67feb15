"""When can which host be updated? Reads schedules from a JSON file and shows the windows.

Run: python examples/windows.py [--file FILE] [--start 2026-12-21T00:00+01:00] [--days 7] [--zone Europe/Warsaw]
     [--svg PICTURE]

Without --svg it prints a strip for the terminal and one sentence for each host; with it, it also writes the picture.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from edge_day2.adapters.calendar_strip import StripRow, svg_strip, text_strip
from edge_day2.adapters.schedule_file import read_schedule_file
from edge_day2.domain.window_outlook import explain, forecast
from edge_day2.errors import EdgeDay2Error


def main(arguments: list[str]) -> int:
    """Print the strip and the sentences; return the exit status."""
    parser = argparse.ArgumentParser(description="When can which host be updated?")
    parser.add_argument("--file", type=Path, default=Path(__file__).with_name("windows.json"))
    parser.add_argument(
        "--start", type=datetime.fromisoformat, default=datetime.fromisoformat("2026-12-21T00:00+01:00")
    )
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--zone", type=ZoneInfo, default=ZoneInfo("Europe/Warsaw"))
    parser.add_argument("--needed", type=int, default=10, help="minutes that an update takes, reboot included")
    parser.add_argument("--svg", type=Path)
    chosen = parser.parse_args(arguments)
    start, stop, needed = chosen.start, chosen.start + timedelta(days=chosen.days), timedelta(minutes=chosen.needed)
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
