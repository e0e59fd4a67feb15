"""The journal: what comes back after a restart, and what doesn't come back."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_day2.adapters.journal import FileJournal
from edge_day2.adapters.journal_format import FORMAT, decode, encode
from edge_day2.domain.agent import AgentRecord
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.immutable_events import Image, ImmutableTarget
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.node_windows import ClockMemory
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule, Window
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import NewerFormat, UnreadableState
from edge_day2.testing import Budget, Exploration
from edge_day2.testing.agent_bench import AgentBench, Notebook, ubuntu
from edge_day2.testing.model_nodes import ModelNode
from edge_day2.testing.scenarios import ABScenario, AptScenario, Snapshots
from edge_day2.testing.worlds import Scenario, World

DATA = Path(__file__).parent.parent / "data"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
IMAGE = Image(profile_name="microvisor-nonrt", image_id="3.0.20260301", sha256="a" * 64, url="files/image.raw.gz")
ANSWER = PlatformUpdateStatusResponse(
    os_type=OSType.IMMUTABLE,
    update_source=UpdateSource(kernel_command="console=ttyS0", custom_repos=("Types: deb\nURIs: https://a",)),
    update_schedule=UpdateSchedule(
        single_schedule=SingleSchedule(NOW, NOW + timedelta(hours=1)),
        repeated_schedules=(RepeatedSchedule(hours="1,2", time_zone="Europe/Warsaw"),),
    ),
    os_profile_update_source=OSProfileUpdateSource(
        os_image_url=IMAGE.url, os_image_id=IMAGE.image_id, os_image_sha=IMAGE.sha256, profile_name=IMAGE.profile_name
    ),
)
IMMUTABLE = AgentRecord(
    flow=IMMUTABLE_FLOW.start(
        ImmutableUpdate(
            target=ImmutableTarget(image=IMAGE),
            window=Window(NOW, None),
            origin=BootEntry(Slot.A),
            trial=BootEntry(Slot.B),
        )
    ),
    outbox=(UpdateStatus(status_type=UpdateStatusType.STARTED, status_detail='{"update_log":[]}'),),
    answer=ANSWER,
    clock=ClockMemory(latest=NOW, begun=(Window(NOW, NOW + timedelta(hours=1)),)),
)
MUTABLE = AgentRecord(
    flow=MUTABLE_FLOW.start(
        MutableUpdate(target=PackageTarget(update_packages=("curl",)), before=(("curl", "7"), ("vim", "9")))
    )
)


def changed(record: AgentRecord, **changes: object) -> bytes:
    """Return an envelope of another content, with a checksum that fits it."""
    document = json.loads(encode(record))
    document["record"].update(changes)
    text = json.dumps(document["record"], separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    document["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(document).encode()


@pytest.mark.parametrize("record", [AgentRecord(), IMMUTABLE, MUTABLE], ids=["empty", "immutable", "mutable"])
def test_a_record_comes_back_as_it_was(record: AgentRecord) -> None:
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "scenario",
    [
        ABScenario((2, ""), (3, "quiet")),
        AptScenario((("curl",), "console=tty0"), (("vim",), ""), snapshots=Snapshots.TAKEN),
    ],
    ids=["A/B", "apt"],
)
def test_every_record_that_an_exploration_meets_comes_back(
    scenario: Scenario[ModelNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    met = set()
    key = World.key

    def remember(world: World[ModelNode]) -> tuple[object, ...]:
        met.add(world.record)
        return key(world)

    monkeypatch.setattr(World, "key", remember)
    Exploration(scenario, Budget(faults=1, changes=1)).run()

    assert len(met) > 50
    for record in met:
        assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"format": true}',
        b'{"format": 0}',
        b'{"format": "1"}',
        b'{"format": 1}',
        b'{"format": 1, "sha256": "0", "record": {}}',
        b"\xff\xfe",
        b"[" * 100_000,
        encode(IMMUTABLE)[:-20],
        encode(IMMUTABLE).replace(b"ttyS0", b"ttyS1"),
        encode(IMMUTABLE).replace(b"3.0.20260301", b"3.0.20260302"),
        encode(IMMUTABLE).replace(b"ttyS0", b"tty\xed\xbf\xbf"),
        encode(IMMUTABLE).replace(b"ttyS0", rb"tty\ud800"),
    ],
)
def test_what_is_torn_or_foreign_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableState, match="journal"):
        decode(content)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("outbox", [5]),
        ("outbox", "STARTED"),
        ("clock", {"latest": "2026-03-01T12:00:00"}),
        ("clock", {"latest": 5}),
        ("refused", None),
        ("extra", 1),
        ("flow", "scheduled"),
        ("flow", {"flow": "firmware", "name": "scheduled", "data": {}}),
        ("flow", {"flow": "immutable", "name": "dreaming", "data": {"target": {}}}),
        ("flow", {"flow": "immutable", "name": "scheduled", "data": {"target": {}, "rollbacks": "2"}}),
        ("flow", {"flow": "immutable", "name": "scheduled", "data": {"target": {}, "rollbacks": True}}),
    ],
)
def test_nothing_is_coerced_and_nothing_is_guessed(field: str, value: object) -> None:
    with pytest.raises(UnreadableState, match="journal"):
        decode(changed(IMMUTABLE, **{field: value}))


def stored_in_format_1(state: str) -> bytes:
    lines = (DATA / "journal_format_1.jsonl").read_bytes().splitlines()
    return next(line for line in lines if json.loads(line)["record"]["flow"]["name"] == state)


def test_a_text_that_is_no_unicode_can_be_stored() -> None:
    record = AgentRecord(refused="a file named \udc80")

    assert decode(encode(record)) == AgentRecord(refused="a file named ?")


@pytest.mark.parametrize(
    ("stored", "goes_on"),
    [
        ("restarting", "restarting"),
        ("installing_packages", "downloading_packages"),
        ("installing_upgrade", "downloading_upgrade"),
        ("rebooting", "rebooting"),
    ],
)
def test_an_apt_update_of_format_1_goes_on_with_a_plan(stored: str, goes_on: str) -> None:
    record = decode(stored_in_format_1(stored))

    assert record.flow is not None
    assert record.flow.name == goes_on
    assert isinstance(record.flow.data, MutableUpdate)
    assert record.flow.data.before == (("agent", "1"), ("helper", "1"))
    assert record.outbox == (UpdateStatus(status_type=UpdateStatusType.STARTED),)


@pytest.mark.parametrize("stored", ["restarting", "installing_packages", "installing_upgrade", "rebooting"])
def test_an_agent_ends_the_update_that_it_finds_in_format_1(stored: str) -> None:
    answer = ubuntu(update_source=UpdateSource(kernel_command="quiet", custom_repos=("Types: deb",)))
    bench = AgentBench(answer, journal=Notebook(decode(stored_in_format_1(stored))))
    bench.node.available["agent"] = "2"
    # What the update had done when the journal was written.
    bench.node.packages = {"agent": "2", "helper": "1" if stored == "restarting" else "2"}
    if stored in ("installing_upgrade", "rebooting"):
        bench.node.packages["curl"] = "7"
    if stored != "restarting":
        bench.node.grub_command_line = "quiet"

    bench.run()

    assert bench.state == "updated"
    assert bench.node.packages == {"agent": "2", "helper": "2", "curl": "7"}
    assert bench.reported() == ["STARTED", "UPDATED", "UP_TO_DATE"]


def test_an_ab_update_is_written_so_that_an_older_agent_can_go_on_after_a_rollback() -> None:
    stored = stored_in_format_1("downloading")

    assert encode(decode(stored)).strip() == stored


def test_a_newer_format_is_told_apart_from_damage() -> None:
    with pytest.raises(NewerFormat, match=f"format {FORMAT + 1}"):
        decode(json.dumps({"format": FORMAT + 1, "whatever": []}).encode())


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert FileJournal(tmp_path / "journal.json").load() is None


def test_a_stored_record_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "journal.json"

    FileJournal(path).store(MUTABLE)
    FileJournal(path).store(IMMUTABLE)

    assert FileJournal(path).load() == IMMUTABLE
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["journal.json"]


def test_an_unreadable_file_is_kept_aside_until_a_record_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(b"torn")

    for _ in range(2):
        with pytest.raises(UnreadableState, match=r"journal\.json\.unreadable"):
            FileJournal(path).load()
    FileJournal(path).store(IMMUTABLE)

    assert (tmp_path / "journal.json.unreadable").read_bytes() == b"torn"
    assert FileJournal(path).load() == IMMUTABLE


def test_no_copy_of_an_unreadable_file_is_lost_and_their_number_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    said = []
    for content in (b"one", b"two", b"one", b"three", b"four", b"five", b"six", b"two"):
        path.write_bytes(content)
        with pytest.raises(UnreadableState) as caught:
            FileJournal(path).load()
        said.append(str(caught.value).rpartition("; ")[2].replace(f"{path}.", ""))

    assert said == [
        "kept as unreadable",
        "kept as unreadable-2",
        "kept as unreadable",
        "kept as unreadable-3",
        "kept as unreadable-4",
        "kept as unreadable-5",
        "not kept: there are 5 copies of others already",
        "kept as unreadable-2",
    ]
    path.unlink()
    assert {kept.read_bytes() for kept in tmp_path.iterdir()} == {b"one", b"two", b"three", b"four", b"five"}


def test_the_agent_goes_on_where_an_unreadable_file_cannot_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(b"torn")
    (tmp_path / "journal.json.unreadable.new").mkdir()

    with pytest.raises(UnreadableState, match=r"it couldn't be kept: .*directory"):
        FileJournal(path).load()


def test_a_copy_is_never_written_through_a_symbolic_link(tmp_path: Path) -> None:
    path, victim = tmp_path / "journal.json", tmp_path / "victim"
    path.write_bytes(b"torn")
    (tmp_path / "journal.json.unreadable").symlink_to(victim)

    with pytest.raises(UnreadableState, match=r"unreadable-2"):
        FileJournal(path).load()

    assert not victim.exists()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(b'{"format": 99}')

    with pytest.raises(NewerFormat):
        FileJournal(path).load()

    assert [found.name for found in tmp_path.iterdir()] == ["journal.json"]


def test_a_symbolic_link_is_never_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "journal.json.new").symlink_to(victim)
    journal = FileJournal(tmp_path / "journal.json")

    journal.store(IMMUTABLE)

    assert victim.read_text() == "precious"
    assert journal.load() == IMMUTABLE

    (tmp_path / "link.json").symlink_to(victim)

    with pytest.raises(OSError, match=r"link\.json"):
        FileJournal(tmp_path / "link.json").store(IMMUTABLE)

    assert victim.read_text() == "precious"


def test_a_full_disk_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(tmp_path / "journal.json")
    journal.store(MUTABLE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.store(IMMUTABLE)

    assert journal.load() == MUTABLE
