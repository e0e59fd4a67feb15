"""The example of docs/images.md runs as it stands, and what it says of defaults is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import fields

from edge_day2.adapters.images import HttpLimits, ImageLimits, RetryLimits

DOCUMENT = (Path(__file__).parents[2] / "docs" / "images.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)

    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "3.0.1 runs, slot B holds b'a file system'\n"


@pytest.mark.parametrize("kind", [HttpLimits, ImageLimits, RetryLimits])
def test_the_defaults_are_those_of_the_code(kind: type) -> None:
    told = dict(re.findall(rf"\| `{kind.__name__}\.(\w+)` \| ([\d.]+(?: GiB)?) \|", DOCUMENT))
    assert told

    for one in fields(kind):
        if one.name in told:
            number, _, unit = told[one.name].partition(" ")
            assert float(number) * (2**30 if unit else 1) == one.default
