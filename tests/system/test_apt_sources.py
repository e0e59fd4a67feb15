"""Our apt sources with real apt and signed repositories on loopback: taken whole, or the old set and lists stand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from apt_repository import AptRepository, DebPackage, SigningKey, apt_repository, missing_tools
from apt_root import AptRoot
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.apt_sources import AptSources
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.deb822_sources import SourceRules, read_sources
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue
from edge_day2.ports.apt_sources import AptSourcesPort
from edge_day2.ports.failures import NodeFailure, OutOfTime
from edge_day2.testing.apt_sources_contract import AptSourcesContract

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools())

NOTHING_LISTENS = "http://127.0.0.1:9/"


@define
class Bench:
    """A root folder, and two repositories."""

    folder: Path
    root: AptRoot
    one: AptRepository
    two: AptRepository
    clock: SystemClock = field(factory=SystemClock)

    @property
    def file(self) -> Path:
        return self.root.sources / "edge-day2.sources"

    @property
    def memory(self) -> Path:
        return self.folder / "memory.json"

    def adapter(self) -> AptSources:
        return AptSources(
            clock=self.clock,
            settings=AptSettings(
                root=self.root.path, environment=self.root.environment, lock_wait=timedelta(minutes=5)
            ),
            rules=SourceRules(schemes=frozenset({"http"})),
            memory=self.memory,
            staging=self.folder / "staging",
        )

    def replace(self, *sources: str, until: datetime | None = None) -> None:
        self.adapter().replace(sources, until)

    def uris(self) -> list[str]:
        """URIs of ours that apt reads."""
        text = "".join(path.read_text() for path in self.root.sources.glob("*.sources") if "foreign" not in path.name)
        return sorted(line.partition(" ")[2] for line in text.splitlines() if line.startswith("URIs:"))

    def names(self) -> list[str]:
        """Names of packages that apt knows."""
        return sorted(self.root.run("apt-cache", "pkgnames").split())

    def left_over(self) -> list[str]:
        """What is there beside the set."""
        found = [*self.root.sources.iterdir(), *self.folder.iterdir()]
        return sorted(path.name for path in found if path.name not in ("one", "two", "root", "staging", self.file.name))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with apt_repository(tmp_path / "one") as one, apt_repository(tmp_path / "two") as two:
        one.publish(DebPackage(name="tool"))
        two.publish(DebPackage(name="other"))
        yield Bench(tmp_path, AptRoot(tmp_path / "root"), one, two)


class TestAptSources(AptSourcesContract):
    """The real adapter."""

    @pytest.fixture
    def apt_sources(self, bench: Bench) -> AptSourcesPort:
        return bench.adapter()

    @pytest.fixture
    def two_sources(self, bench: Bench) -> tuple[str, str]:
        return bench.one.source(), bench.two.source()

    @pytest.fixture
    def in_effect(self, bench: Bench) -> Callable[[], int]:
        return lambda: len(bench.uris())

    @pytest.fixture
    def break_next(self, bench: Bench) -> Callable[[], None]:
        return lambda: bench.two.missing.add(bench.two.index_path)


def test_packages_of_new_sources_can_be_had(bench: Bench) -> None:
    bench.replace(bench.one.source(), bench.two.source())

    assert bench.names() == ["other", "tool"]
    assert bench.left_over() == []
    assert bench.file.stat().st_mode & 0o777 == 0o644


def test_lists_are_refreshed_where_the_set_stays(bench: Bench) -> None:
    bench.replace(bench.one.source())
    bench.one.publish(DebPackage(name="tool"), DebPackage(name="newer"))
    written = bench.file.stat().st_mtime_ns

    bench.replace(bench.one.source())

    assert bench.names() == ["newer", "tool"]
    assert bench.file.stat().st_mtime_ns == written


def wrong_key(bench: Bench) -> None:
    with SigningKey("somebody else") as key:
        bench.two.publish(DebPackage(name="other"), key=key)


def expired(bench: Bench) -> None:
    bench.two.publish(DebPackage(name="other"), valid_until=datetime(2020, 1, 1, tzinfo=UTC))


def unsigned(bench: Bench) -> None:
    suite = bench.two.folder / "dists" / bench.two.suite
    (suite / "InRelease").unlink()
    (suite / "Release.gpg").unlink()


def unreachable(bench: Bench) -> None:
    bench.two.url = NOTHING_LISTENS


def no_index(bench: Bench) -> None:
    bench.two.missing.add(bench.two.index_path)


def corrupt(bench: Bench) -> None:
    bench.two.corrupt.add(bench.two.index_path)


@pytest.mark.parametrize(
    ("damage", "reason", "said"),
    [
        (wrong_key, FailureReason.SIGNATURE_CHECK, "NO_PUBKEY"),
        (expired, FailureReason.SIGNATURE_CHECK, "is expired"),
        (unsigned, FailureReason.SIGNATURE_CHECK, "is not signed"),
        (unreachable, FailureReason.DOWNLOAD_FAIL, "Could not connect to 127.0.0.1:9"),
        (no_index, FailureReason.DOWNLOAD_FAIL, "404"),
        (corrupt, FailureReason.DOWNLOAD_FAIL, "Hash Sum mismatch"),
    ],
)
def test_one_bad_source_among_good_ones_leaves_the_old_set_and_its_lists(
    bench: Bench, damage: Callable[[Bench], None], reason: FailureReason, said: str
) -> None:
    bench.replace(bench.one.source())
    bench.one.publish(DebPackage(name="tool"), DebPackage(name="newer"))
    damage(bench)

    with pytest.raises(NodeFailure, match=said) as failed:
        bench.replace(bench.one.source(), bench.two.source())

    assert failed.value.reason is reason
    assert bench.uris() == [bench.one.url]
    assert bench.names() == ["tool"]
    assert bench.left_over() == []


def test_a_set_that_fails_after_it_took_its_place_gives_it_back(bench: Bench) -> None:
    bench.replace(bench.one.source())
    (bench.root.sources / "foreign.sources").write_text(bench.one.source(URIs=NOTHING_LISTENS))

    with pytest.raises(NodeFailure, match="Could not connect"):
        bench.replace(bench.two.source())

    assert bench.uris() == [bench.one.url]
    assert bench.names() == ["tool"]
    assert bench.left_over() == ["foreign.sources"]


def test_a_source_that_others_have_with_another_key_is_told_before_anything_changes(bench: Bench) -> None:
    foreign = bench.root.sources / "foreign.sources"
    foreign.write_text(bench.one.source("/usr/share/keyrings/theirs.gpg"))

    with pytest.raises(NodeFailure, match="Conflicting values set for option Signed-By"):
        bench.replace(bench.one.source())

    assert bench.left_over() == ["foreign.sources"]
    assert bench.uris() == []


def test_a_source_that_is_not_accepted_changes_nothing(bench: Bench) -> None:
    bench.replace(bench.one.source())

    with pytest.raises(NodeFailure, match="Trusted"):
        bench.replace(bench.one.source(Trusted="yes"))

    assert bench.uris() == [bench.one.url]


def test_files_of_the_original_agent_are_taken_over_and_those_of_others_are_not(bench: Bench) -> None:
    for name in ("pua-0.sources", "pua-11.sources", "foreign.sources", "pua-x.sources", "pua-0.sources.save"):
        (bench.root.sources / name).write_text(bench.one.source())

    bench.replace(bench.one.source(), bench.two.source())

    assert bench.left_over() == ["foreign.sources", "pua-0.sources.save", "pua-x.sources"]
    assert bench.uris() == sorted([bench.one.url, bench.one.url, bench.two.url])


def test_a_failure_leaves_the_files_of_the_original_agent(bench: Bench) -> None:
    (bench.root.sources / "pua-0.sources").write_text(bench.one.source())
    bench.root.apt_get("update")
    (bench.root.sources / "foreign.sources").write_text(bench.one.source(URIs=NOTHING_LISTENS))

    with pytest.raises(NodeFailure, match="Could not connect"):
        bench.replace(bench.two.source())

    assert bench.uris() == [bench.one.url]
    assert bench.left_over() == ["foreign.sources", "pua-0.sources"]
    assert bench.names() == ["tool"]


@pytest.mark.parametrize("name", ["edge-day2.sources", "pua-0.sources"])
def test_a_symbolic_link_in_the_way_is_refused(bench: Bench, name: str) -> None:
    victim = bench.folder / "victim"
    victim.write_text("precious")
    (bench.root.sources / name).symlink_to(victim)

    with pytest.raises(NodeFailure, match="no symbolic link"):
        bench.replace(bench.one.source())

    assert victim.read_text() == "precious"


def test_a_staging_folder_that_is_a_symbolic_link_is_refused(bench: Bench) -> None:
    (bench.folder / "elsewhere").mkdir()
    (bench.folder / "staging").symlink_to(bench.folder / "elsewhere")

    with pytest.raises(NodeFailure, match="no symbolic link"):
        bench.replace(bench.one.source())

    assert list((bench.folder / "elsewhere").iterdir()) == []


def test_a_lock_that_another_apt_holds_is_waited_for_until_the_window_closes(bench: Bench) -> None:
    bench.replace(bench.one.source())
    lock = bench.root.path / "var/lib/apt/lists/lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl; f = open({str(lock)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
         "print('held', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutOfTime, match=str(holder.pid)):
            bench.replace(bench.two.source(), until=datetime.now(UTC) + timedelta(seconds=1))
        holder.kill()

    assert bench.uris() == [bench.one.url]
    assert bench.left_over() == []


def test_a_window_that_closes_during_the_download_leaves_the_old_set(bench: Bench) -> None:
    bench.replace(bench.one.source())
    bench.two.stalled.add(bench.two.index_path)

    with pytest.raises(OutOfTime):
        bench.replace(bench.two.source(), until=datetime.now(UTC) + timedelta(seconds=2))

    assert bench.uris() == [bench.one.url]
    assert bench.left_over() == []


@pytest.mark.parametrize("name", ["edge-day2.sources", "memory.json"])
def test_a_full_disk_leaves_the_old_set(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.replace(bench.one.source())
    fsync = os.fsync

    def no_space(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == f"{name}.new":
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(NodeFailure, match="No space left") as failed:
        bench.replace(bench.two.source())
    monkeypatch.undo()

    assert failed.value.reason is FailureReason.INSUFFICIENT_STORAGE
    assert bench.uris() == [bench.one.url]
    assert bench.left_over() == []


REPLACE = """
import json, os, signal, sys
from datetime import timedelta
from pathlib import Path
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.apt_sources import AptSources
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.deb822_sources import SourceRules, read_sources

folder, calls = Path(sys.argv[1]), int(sys.argv[2])
fsync = os.fsync

def count(descriptor):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)

os.fsync = count
AptSources(
    clock=SystemClock(),
    settings=AptSettings(root=folder / "root", environment={"APT_CONFIG": str(folder / "root/apt.conf")}),
    rules=SourceRules(schemes=frozenset({"http"})),
    memory=folder / "memory.json",
    staging=folder / "staging",
).replace(tuple(json.loads(sys.argv[3])), None)
"""


def replace_in_process(bench: Bench, calls: int, *sources: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", REPLACE, bench.folder, str(calls), json.dumps(sources)])


@pytest.mark.parametrize("call", range(1, 10))
def test_a_process_killed_at_any_of_its_writes_leaves_the_old_or_the_new_set(bench: Bench, call: int) -> None:
    for number in range(2):
        (bench.root.sources / f"pua-{number}.sources").write_text(bench.one.source())
    bench.root.apt_get("update")

    with replace_in_process(bench, call, bench.two.source()) as process:
        killed = process.wait() == -signal.SIGKILL
    bench.two.missing.add(bench.two.index_path)
    with pytest.raises(NodeFailure):
        bench.replace(bench.two.source(), bench.one.source())

    old, new = [bench.one.url] * 2, [bench.two.url]
    assert killed
    assert bench.uris() in (old, new)
    assert bench.names() == (["tool"] if bench.uris() == old else ["other"])
    assert "memory.json" not in bench.left_over()


def test_nine_writes_are_all_of_them(bench: Bench) -> None:
    for number in range(2):
        (bench.root.sources / f"pua-{number}.sources").write_text(bench.one.source())

    with replace_in_process(bench, 10, bench.two.source()) as process:
        assert process.wait() == 0


@pytest.mark.parametrize("where", ["trying", "refreshing"])
def test_a_process_killed_while_apt_works_leaves_the_old_or_the_new_set(bench: Bench, where: str) -> None:
    bench.replace(bench.one.source())
    if where == "trying":
        bench.two.stalled.add(bench.two.index_path)
    else:
        (bench.root.sources / "foreign.sources").write_text(bench.two.source())
        bench.two.publish(DebPackage(name="other"), DebPackage(name="newer"))
        bench.two.stalled.add(bench.two.index_path)
    wanted = bench.two.source() if where == "trying" else bench.one.source(Architectures="all")

    with replace_in_process(bench, 0, wanted) as process:
        while bench.two.index_path not in bench.two.requests:
            assert process.poll() is None
            # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
            time.sleep(0.02)
        process.kill()
    bench.two.stalled.clear()
    bench.two.go_on.set()
    bench.replace(bench.one.source(), bench.two.source())

    assert bench.uris() == sorted([bench.one.url, bench.two.url])
    assert bench.left_over() == ([] if where == "trying" else ["foreign.sources"])


DANGEROUS = st.sampled_from(
    [
        "Trusted: yes", "Allow-Insecure: yes", "Allow-Weak: yes", "Check-Valid-Until: no", "[trusted=yes]", "\n", "\n ",
        "\n\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\0", "#", ":", " ", "\t", ",",
    ]
)  # fmt: skip


def test_whatever_is_put_into_a_source_apt_never_trusts_an_unsigned_repository(bench: Bench) -> None:
    unsigned(bench)
    unsigned_source = bench.two.source("/usr/share/keyrings/theirs.gpg")
    rules = SourceRules(schemes=frozenset({"http"}))
    codes: dict[str, int] = {}

    @settings(max_examples=400)
    @given(st.lists(st.tuples(st.integers(0, len(unsigned_source)), DANGEROUS), max_size=4))
    def attack(insertions: list[tuple[int, str]]) -> None:
        text = unsigned_source
        for place, piece in insertions:
            text = text[:place] + piece + text[place:]
        try:
            sources = read_sources((text,), rules)
        except InvalidValue:
            return
        written = "\n".join(source.to_deb822() for source in sources)
        if written not in codes:
            (bench.root.sources / "attack.sources").write_text(written)
            codes[written] = subprocess.run(
                ["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"],
                env={**bench.root.environment, "PATH": os.environ["PATH"]},
                capture_output=True,
                check=False,
            ).returncode
        assert codes[written] != 0

    attack()

    assert codes


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"../passwd": "x"}', b'{"edge-day2.sources": 5}'])
def test_a_memory_that_can_not_be_read_is_thrown_away(bench: Bench, content: bytes) -> None:
    bench.replace(bench.one.source())
    bench.memory.write_bytes(content)

    bench.replace(bench.two.source())

    assert bench.uris() == [bench.two.url]
    assert bench.left_over() == []


def test_a_staging_folder_that_a_chroot_can_not_see_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidValue, match="staging"):
        AptSources(clock=bench.clock, settings=AptSettings(root=bench.root.path, enter=("chroot", "x")))
