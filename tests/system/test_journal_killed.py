"""A real process that stores records, and a real kill -9."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from edge_day2.adapters.journal import FileJournal

WRITER = """
import sys
from edge_day2.adapters.journal import FileJournal
from edge_day2.domain.agent import AgentRecord

journal = FileJournal(sys.argv[1])
for number in range(10**9):
    journal.store(AgentRecord(refused="x" * (number % 5000)))
    print(number, flush=True)
"""


def test_a_killed_process_leaves_the_last_record_or_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    chance = random.Random(4)
    for _ in range(15):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            # Not a wait for something: the moment of death is what is varied.
            time.sleep(chance.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
            told = [int(line) for line in process.stdout.read().split("\n")[:-1] if line.isdecimal()]

        record = FileJournal(path).load()

        assert record is not None
        stored = len(record.refused)
        last = told[-1] if told else 0
        assert stored in {last % 5000, (last + 1) % 5000}
