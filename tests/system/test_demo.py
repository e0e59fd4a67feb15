"""The fleet demo as a user starts it: a real process, its table, its picture, and what it says of bad input."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "day2_fleet.py"


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "80"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def small(picture: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return demo("--nodes", "24", "--days", "3", "--picture", picture, *arguments)


class Tags(HTMLParser):
    """Collects what a page would load, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "data", "srcset"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_node_is_in_the_table_once_and_the_picture_stands_alone(tmp_path: Path) -> None:
    picture = tmp_path / "folder" / "fleet.html"

    done = small(picture)

    assert done.returncode == 0, done.stderr
    (total,) = re.findall(r"^ all +(\d+) +([\d ]+)$", done.stdout, re.MULTILINE)
    assert total[0] == "24"
    assert sum(map(int, total[1].split())) == 24
    assert max(map(len, done.stdout.split("How the fleet")[1].split("Why not")[0].splitlines())) <= 80
    page = picture.read_text()
    tags = Tags()
    tags.feed(page)
    assert (tags.loads, tags.open) == ([], [])
    assert "url(" not in page
    assert "north: Gdansk plant" in page
    assert "admin links the new images" in page


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(tmp_path: Path) -> None:
    pictures = []
    for number, seed in enumerate(("3", "3", "4")):
        picture = tmp_path / f"{number}.html"
        assert small(picture, "--seed", seed).returncode == 0
        pictures.append(picture.read_bytes())

    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nodes", "-1"), "expected a whole number from 1 on"),
        (("--days", "two"), "expected a whole number from 1 on"),
        (("--profiles", "nowhere"), "nowhere"),
        (("--picture", "/proc/fleet.html"), "/proc/fleet.html"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = small(tmp_path / "fleet.html", *arguments)

    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_folder_without_revisions_is_told_in_one_line(tmp_path: Path) -> None:
    done = small(tmp_path / "fleet.html", "--profiles", tmp_path)

    assert done.returncode == 2
    assert "two revisions" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(
    not os.environ.get("EDGE_DAY2_OS_PROFILES"), reason="EDGE_DAY2_OS_PROFILES names no folder with published manifests"
)
def test_the_published_manifests_make_a_fleet(tmp_path: Path) -> None:
    done = small(tmp_path / "fleet.html", "--profiles", os.environ["EDGE_DAY2_OS_PROFILES"])

    assert done.returncode == 0, done.stderr
    assert "0 manifests rejected" in done.stdout
