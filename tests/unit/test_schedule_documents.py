"""The examples of docs/schedules.md and examples/windows.py do what they say."""

from __future__ import annotations

import doctest
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

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
