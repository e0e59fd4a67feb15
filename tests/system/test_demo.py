"""The fleet demo as a user starts it: a real process, its table, its picture, and what it says of bad input."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from attrs import frozen

from edge_day2 import OSProfile
from edge_day2.domain.statuses import FailureReason, StatusDetail, UpdateLogEntry
from edge_day2.testing.fault_plan import Misfortune
from edge_day2.testing.simulated_node import HistoryEvent, HistoryKind

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
OUTCOMES = ("updated", "current", "rolled back", "failed", "waiting", "lost")
VOID = {"meta"}


@frozen
class Done:
    """A finished run of the demo."""

    code: int
    out: str
    err: str
    picture: Path

    def total(self) -> tuple[int, dict[str, int]]:
        """The number of nodes, and how many stand how, from the table's last line."""
        (found,) = re.findall(r"^all +(\d.*)$", self.out, re.MULTILINE)
        nodes, *counts = (0 if word == "·" else int(word) for word in found.split())
        return nodes, dict(zip(OUTCOMES, counts, strict=True))

    def versions(self) -> list[list[int]]:
        """The figures of the lines that are about one version of one profile."""
        found = re.findall(r"^   \d+\.\S+ +((?:[\d·]+ *)+)$", self.out, re.MULTILINE)
        return [[0 if word == "·" else int(word) for word in line.split()] for line in found]

    def lines_without_time(self) -> list[str]:
        """What it printed, but for what differs from run to run."""
        words = ("days in", "picture:", "━", "╸", "╺")
        return [line for line in self.out.splitlines() if not any(word in line for word in words)]


def demo(picture: Path, *arguments: str | Path, hash_seed: str = "0") -> Done:
    environment = os.environ | {"COLUMNS": "80", "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, str(EXAMPLES / "day2_fleet.py"), "--picture", str(picture), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return Done(done.returncode, done.stdout, done.stderr, picture)


def small(picture: Path, *arguments: str | Path, hash_seed: str = "0") -> Done:
    return demo(picture, "--nodes", "24", "--days", "4", *arguments, hash_seed=hash_seed)


class Page(HTMLParser):
    """Collects what a page would load, what it shows, and whether its elements are closed and its attributes single."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.classes: Counter[str] = Counter()
        self.tips: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look_at(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look_at(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("text", "h1", "p", "b"):
            self.texts.append(data)

    def _look_at(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        found = {name: value or "" for name, value in attrs}
        self.classes.update(found.get("class", "").split())
        self.tips += [found[name] for name in ("data-t", "data-n") if name in found]
        names = [name for name in ("src", "srcset", "data", "action", "xlink:href") if name in found]
        self.loads += [f"{tag} {name}" for name in names]
        if not found.get("href", "#").startswith("#"):
            self.loads.append(f"{tag} href")
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The demo as `make demo` runs it."""
    return demo(tmp_path_factory.mktemp("fleet") / "folder" / "fleet.html")


def test_every_node_is_in_the_table_once(fleet: Done) -> None:
    assert (fleet.code, fleet.err) == (0, "")
    nodes, counts = fleet.total()
    assert nodes == sum(counts.values()) == 200
    assert counts["updated"] > 140
    assert all(counts.values())
    for line in fleet.versions():
        assert line[0] == sum(line[1:])
    assert [sum(column) for column in zip(*fleet.versions(), strict=True)] == [nodes, *counts.values()]


def test_the_reasons_add_up_as_well(fleet: Done) -> None:
    _, counts = fleet.total()
    reasons: Counter[str] = Counter()
    for nodes, standing in re.findall(rf"^ +(\d+) ({'|'.join(OUTCOMES)}) +\S", fleet.out, re.MULTILINE):
        reasons[standing] += int(nodes)
    explained = ("rolled back", "failed", "waiting", "lost")
    assert {name: reasons[name] for name in explained} == {name: counts[name] for name in explained}
    assert "nobody linked it" in fleet.out


def test_the_tables_fit_a_terminal_of_80_columns(fleet: Done) -> None:
    tables = fleet.out.split("How the fleet stands")[1].split("north ")[0]
    assert max(map(len, tables.splitlines())) <= 80


def test_the_table_comes_after_the_progress_bar(fleet: Done) -> None:
    assert "━" in fleet.out.split("How the fleet stands")[0]
    assert "━" not in fleet.out.split("How the fleet stands")[1]


def test_every_kind_of_misfortune_and_both_modes_of_linking_can_be_seen(fleet: Done) -> None:
    page = Page(fleet.picture)
    told = {line.partition("\n")[0].partition("  ")[2] for line in page.tips}
    assert {misfortune.value for misfortune in Misfortune} <= told
    assert {"images linked automatically", "images linked by an admin", "admin links the new images"} <= set(page.texts)
    assert re.search(r"north \S+: .* [1-9]\d* instances linked", fleet.out)
    assert re.search(r"south \S+: .* 0 instances linked", fleet.out)


def test_a_site_in_a_blackout_waits_and_the_table_says_so(fleet: Done) -> None:
    assert re.search(r"waiting +waits for window from region Europe", fleet.out)
    assert Page(fleet.picture).classes["b"] == 2  # the site's band, and the legend's key


def test_the_picture_says_what_the_table_says(fleet: Done) -> None:
    page = Page(fleet.picture)
    nodes, counts = fleet.total()
    stand = Counter(re.findall(r"^at the end: ([a-z ]+)", "\n".join(page.tips), re.MULTILINE))
    assert dict(stand) == counts
    assert page.classes["r"] == nodes


def test_the_picture_stands_alone_and_is_small(fleet: Done) -> None:
    page = Page(fleet.picture)
    assert page.loads == []
    assert re.findall(r"url\((?!#)|@import|https?:|fetch\(|XMLHttp|import\(", page.source) == []
    assert fleet.picture.stat().st_size < 3_000_000


def test_two_runs_with_the_same_seed_are_the_same_and_another_seed_is_not(tmp_path: Path) -> None:
    first = small(tmp_path / "1.html", "--seed", "3", hash_seed="1")
    second = small(tmp_path / "2.html", "--seed", "3", hash_seed="2")
    other = small(tmp_path / "3.html", "--seed", "4")
    assert first.code == second.code == other.code == 0
    assert first.lines_without_time() == second.lines_without_time()
    assert first.picture.read_bytes() == second.picture.read_bytes()
    histories = [re.findall(r"^history: .*$", done.out, re.MULTILINE) for done in (first, second, other)]
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize(("nodes", "days"), [("1", "1"), ("2", "9"), ("70", "1")])
def test_small_and_short_fleets_have_a_table_and_a_picture_too(tmp_path: Path, nodes: str, days: str) -> None:
    done = demo(tmp_path / "fleet.html", "--nodes", nodes, "--days", days)
    assert (done.code, done.err) == (0, "")
    total, counts = done.total()
    assert total == sum(counts.values()) == int(nodes)
    assert Page(done.picture).classes["r"] == int(nodes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nodes", "-1"), "argument --nodes: found '-1', expected a whole number from 1 to 100000"),
        (("--nodes", "0"), "expected a whole number from 1 to 100000"),
        (("--days", "9" * 5000), "expected a whole number from 1 to 3650"),
        (("--days", "two"), "argument --days: found 'two', expected a whole number from 1 to 3650"),
        (("--seed", "x"), "argument --seed: found 'x', expected a whole number from 0 to 999999999"),
        (("--profiles", "nowhere"), "nowhere"),
        (("--pictures",), "unrecognized arguments: --pictures"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = small(tmp_path / "fleet.html", *arguments)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert said in line
    assert not done.picture.exists()


def test_a_folder_without_revisions_is_told_in_one_line(tmp_path: Path) -> None:
    for name in ("notes", "1.0.0"):
        (tmp_path / name).mkdir()
        done = small(tmp_path / "fleet.html", "--profiles", tmp_path)
        assert done.code == 2
        (line,) = done.err.splitlines()
        assert "needs two revisions" in line


@pytest.mark.parametrize("path", ["folder", "file/fleet.html"])
def test_a_picture_that_cannot_be_written_is_told_before_the_week_begins(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    done = small(tmp_path / path)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert str(tmp_path) in line


def test_a_manifest_that_cannot_be_used_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    for revision in ("0.9.0", "0.9.8"):
        folder = tmp_path / "profiles" / revision
        folder.mkdir(parents=True)
        for manifest in (EXAMPLES / "profiles" / revision).iterdir():
            (folder / manifest.name).write_bytes(manifest.read_bytes())
        (folder / "broken.yaml").write_text("spec: {profileName: broken}")
    done = small(tmp_path / "fleet.html", "--profiles", tmp_path / "profiles")
    assert done.code == 0, done.err
    assert done.out.count("1 manifests rejected") == 4


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the modules of the picture importable."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    for name in ("fleet_history", "fleet_outcomes", "fleet_timeline"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("drawing")
def test_text_that_comes_from_data_is_never_markup(tmp_path: Path) -> None:
    from fleet_history import Milestone, NamedWindow, Node, rows_of
    from fleet_outcomes import Outcome, Standing
    from fleet_timeline import Picture, write_timeline

    evil = '<script>alert("1")</script>\'&amp;{style}'
    begin = datetime(2026, 3, 2, tzinfo=UTC)
    hour = timedelta(hours=1)
    manifest = next((EXAMPLES / "profiles" / "0.9.0").glob("microvisor-rt.yaml")).read_text()
    system = OSProfile.from_yaml(manifest).to_os_resource(tenant_id="tenant")
    entry = UpdateLogEntry(
        package_name=evil, update_time=begin, failure_reason=FailureReason.DOWNLOAD_FAIL, failure_log=evil
    )
    detail = StatusDetail(update_log=(entry,)).to_json()

    def line(hours: int, kind: HistoryKind, text: str, detail: str = "") -> HistoryEvent:
        return HistoryEvent(at=begin + hours * hour, guid="a", kind=kind, text=text, detail=detail)

    history = [
        line(1, HistoryKind.STATE, "downloading"),
        line(1, HistoryKind.FAULT, "failed download", evil),
        line(2, HistoryKind.STATE, "failed"),
        line(2, HistoryKind.REPORT, "FAILED", detail),
    ]
    node = Node(
        guid="a", name=evil, tenant=evil, region=evil, site=evil, wanted=(begin,),
        windows=(NamedWindow(start=begin, end=begin + hour, source=evil),),
        blackouts=(NamedWindow(start=begin, end=begin + hour, source=evil),),
        outcome=Outcome(system=system, standing=Standing.FAILED, reason=evil),
    )  # fmt: skip
    picture = Picture(
        title=evil, subtitle=evil, begin=begin, end=begin + 24 * hour, rows=rows_of([node], history, begin + 24 * hour),
        milestones=[Milestone(at=begin + hour, tenant=evil, text=evil)], tenants=[(evil, evil)],
    )  # fmt: skip
    write_timeline(tmp_path / "evil.html", picture)
    page = Page(tmp_path / "evil.html")
    assert page.source.count("<script>") == 1
    assert page.texts.count(evil) >= 4
    assert sum(evil in tip for tip in page.tips) >= 6
    assert "DownloadFail: " + evil in "\n".join(page.tips)


@pytest.mark.usefixtures("drawing")
def test_a_run_is_told_by_phases_with_its_end_and_why() -> None:
    from fleet_history import Ending, Line, Node, Phase, rows_of
    from fleet_outcomes import Outcome, Standing

    begin = datetime(2026, 3, 2, tzinfo=UTC)
    manifest = (EXAMPLES / "profiles" / "0.9.0" / "microvisor-rt.yaml").read_text()
    system = OSProfile.from_yaml(manifest).to_os_resource(tenant_id="tenant")
    states = ["checking", "downloading", "installing", "rebooting", "off", "verifying", "restoring_default"]
    states += ["rolling_back", "off", "settling", "rolled_back", "checking", "off", "checking", "updated"]
    history = [
        HistoryEvent(at=begin + timedelta(minutes=number), guid="a", kind=HistoryKind.STATE, text=state)
        for number, state in enumerate(states, start=60)
    ]
    node = Node(
        guid="a", name="a", tenant="t", region="r", site="s", wanted=(begin + timedelta(minutes=10),), windows=(),
        blackouts=(),
        outcome=Outcome(system=system, standing=Standing.UPDATED),
    )  # fmt: skip
    end = begin + timedelta(hours=3)
    (row,) = rows_of([node], history, end)
    assert [(run.ending, [step.phase for step in run.steps]) for run in row.runs] == [
        (
            Ending.ROLLED_BACK,
            [
                Phase.INSTALL,
                Phase.DOWNLOAD,
                Phase.INSTALL,
                Phase.BOOT,
                Phase.VERIFY,
                Phase.BACK,
                Phase.BOOT,
                Phase.BACK,
            ],
        ),
        (Ending.UPDATED, [Phase.INSTALL, Phase.OFF, Phase.INSTALL]),
    ]
    assert [(found.line, found.start, found.end) for found in row.stretches] == [
        (Line.WANTED, begin + timedelta(minutes=10), begin + timedelta(minutes=74)),
        (Line.UPDATED, begin + timedelta(minutes=74), end),
    ]
    assert row.updated_at == begin + timedelta(minutes=74)


@pytest.mark.skipif(
    not os.environ.get("EDGE_DAY2_OS_PROFILES"), reason="EDGE_DAY2_OS_PROFILES names no folder with published manifests"
)
def test_the_published_manifests_make_a_fleet(tmp_path: Path) -> None:
    done = small(tmp_path / "fleet.html", "--profiles", os.environ["EDGE_DAY2_OS_PROFILES"])
    assert (done.code, done.err) == (0, "")
    nodes, counts = done.total()
    assert nodes == sum(counts.values()) == 24
    assert counts["updated"] > 12
    assert done.out.count(" 0 manifests rejected") == 4
