"""The examples of docs/schedules.md and examples/windows.py do what they say."""

from __future__ import annotations

import doctest
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_example_in_the_document_is_true() -> None:
    found = doctest.testfile(
        str(ROOT / "docs" / "schedules.md"),
        module_relative=False,
        optionflags=doctest.REPORT_NDIFF,
        encoding="utf-8",
    )

    assert found.attempted > 40
    assert found.failed == 0


def test_the_picture_in_the_document_is_what_the_example_prints(tmp_path: Path) -> None:
    picture = tmp_path / "windows.svg"
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "windows.py"), "--svg", str(picture)],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={"PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"},
    )

    strip, sentences = ran.stdout.splitlines()[:6], ran.stdout.splitlines()[6:]
    assert "\n".join(strip) in (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    assert "Laboratory 1: not updated: no schedule of a kind that opens updates" in sentences
    root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--zone", "Nowhere/No", "expected a time zone of the IANA database"),
        ("--start", "2026-12-21", "expected an instant with its distance to UTC"),
        ("--start", "soon", "expected an instant with its distance to UTC"),
        ("--days", "0", "expected a whole number from 1"),
        ("--days", "9" * 12, "outside of the years 1 to 9999"),
        ("--needed", "-1", "expected a whole number from 0"),
        ("--file", "/none", "No such file or directory: '/none'"),
    ],
)
def test_the_example_tells_bad_input_without_a_traceback(option: str, value: str, said: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / "windows.py"), f"{option}={value}"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
