"""The change from the original agent to ours: what its metadata file is believed, and what isn't."""

from __future__ import annotations

import itertools
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.adapters.journal import FileJournal
from edge_day2.adapters.journal_format import decode, encode
from edge_day2.adapters.original_metadata import ImportingJournal, import_record
from edge_day2.domain.agent import AgentRecord
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule, Window
from edge_day2.domain.statuses import EntryStatus, UpdateStatusType, parse_detail
from edge_day2.testing.agent_bench import OPEN, SHUT, AgentBench, Notebook, edge, image, image_source

START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
SOURCE = "Types: deb\nURIs: https://example.org/debian\nSuites: stable\nComponents: main\nSigned-By: x"


def names(source: OSProfileUpdateSource) -> dict[str, str]:
    """Return an image as the original agent writes it."""
    return {
        "os_image_url": source.os_image_url,
        "os_image_id": source.os_image_id,
        "os_image_sha": source.os_image_sha,
        "profile_name": source.profile_name,
        "profile_version": source.profile_version,
    }


def metadata(**changes: Any) -> dict[str, Any]:
    """Return what the original agent has written on an immutable node that is up to date."""
    return {
        "updateTime": "2026-03-02T10:00:00.123456789Z",
        "updateDuration": 3600,
        "updateInProgress": "NONE",
        "updateStatus": "STATUS_TYPE_UP_TO_DATE",
        "updateLog": "",
        "singleSchedule": None,
        "repeatedSchedule": None,
        "repeatedSchedules": [
            {
                "duration_seconds": 3600,
                "cron_minutes": "0",
                "cron_hours": "22",
                "cron_day_month": "*",
                "cron_month": "*",
                "cron_day_week": "1,3",
            }
        ],
        "updateSource": {"kernel_command": "console=ttyS0"},
        "singleScheduleFinished": False,
        "installedPackages": "",
        "osProfileUpdateSourceActual": names(image_source(1)),
        "osProfileUpdateSourceDesired": names(image_source(2)),
    } | changes


NEVER_OPEN: dict[str, Any] = {"repeatedSchedules": [], "updateSource": {}}


def imported(os_type: OSType = OSType.IMMUTABLE, **changes: Any) -> AgentRecord:
    """Return the record that such a file gives."""
    return import_record(json.dumps(metadata(**changes)).encode(), os_type)


def begin(record: AgentRecord, answer: PlatformUpdateStatusResponse) -> AgentBench:
    """Return a bench whose agent begins with this record."""
    bench = AgentBench(answer, journal=Notebook(record))
    bench.agent.tick()
    return bench


def said(bench: AgentBench) -> list[str]:
    """Report once more, and return what was said, without the repetitions."""
    return [status for status, _ in itertools.groupby(bench.reported())]


def test_an_idle_node_goes_on_repeating_its_last_report() -> None:
    assert imported() == AgentRecord(
        last_report=UpdateStatus(
            status_type=UpdateStatusType.UP_TO_DATE, profile_name="edge", os_image_id=image(1).image_id
        ),
        answer=PlatformUpdateStatusResponse(
            os_type=OSType.IMMUTABLE,
            update_source=UpdateSource(kernel_command="console=ttyS0"),
            update_schedule=UpdateSchedule(
                repeated_schedules=(RepeatedSchedule(minutes="0", hours="22", day_week="1,3", duration_seconds=3600),)
            ),
            os_profile_update_source=image_source(2),
        ),
    )


def test_what_a_mutable_node_should_run_is_known_before_the_first_answer() -> None:
    record = imported(
        OSType.MUTABLE,
        updateSource={"kernel_command": "quiet", "custom_repos": [SOURCE]},
        installedPackages="curl\nvim",
        osProfileUpdateSourceDesired=None,
    )

    assert record.answer is not None
    assert record.answer.update_source == UpdateSource(kernel_command="quiet", custom_repos=(SOURCE,))
    assert record.answer.installed_packages == "curl\nvim"


@pytest.mark.parametrize(
    ("changes", "single"),
    [
        ({"singleSchedule": {"start_seconds": 7200, "end_seconds": 10_800}}, (7200, 10_800)),
        ({"singleSchedule": {"start_seconds": 7200}}, (7200, None)),
        ({"singleSchedule": {}}, None),
        ({"singleSchedule": {"start_seconds": 7200}, "singleScheduleFinished": True}, None),
    ],
)
def test_a_single_schedule_that_was_used_is_not_used_again(
    changes: dict[str, Any], single: tuple[int, int | None] | None
) -> None:
    answer = imported(**changes).answer

    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert answer is not None
    assert answer.update_schedule.single_schedule == (
        None
        if single is None
        else SingleSchedule(
            epoch + timedelta(seconds=single[0]), None if single[1] is None else epoch + timedelta(seconds=single[1])
        )
    )


def test_an_old_file_has_one_repeated_schedule() -> None:
    only = metadata()["repeatedSchedules"][0]

    assert imported(repeatedSchedules=None, repeatedSchedule=only) == imported()


def test_a_failure_is_told_again_in_the_form_that_the_server_reads() -> None:
    log = '{"UpdateLog":[{"StatusDetail.Status":"FAIL","FailureReason":"bootloader"}]}'

    report = imported(updateStatus="STATUS_TYPE_FAILED", updateLog=log).last_report

    assert report is not None
    assert '"update_log"' in report.status_detail
    detail = parse_detail(report.status_detail)
    assert detail is not None
    assert [entry.status for entry in detail.update_log] == [EntryStatus.FAILED]


def test_a_log_that_is_no_json_is_told_as_a_sentence() -> None:
    report = imported(updateStatus="STATUS_TYPE_FAILED", updateLog="it didn't work " * 1000).last_report

    assert report is not None
    detail = parse_detail(report.status_detail)
    assert detail is not None
    assert detail.message.startswith("it didn't work")
    assert len(report.status_detail) < 2000


@pytest.mark.parametrize(
    "changes",
    [
        {"updateStatus": "STATUS_TYPE_STARTED"},
        {"updateStatus": "STATUS_TYPE_STARTED", "updateInProgress": "OS"},
        {"updateStatus": "STATUS_TYPE_UP_TO_DATE", "updateInProgress": "SELF"},
        {"updateStatus": "STATUS_TYPE_UPDATED"},
        {"updateStatus": "STATUS_TYPE_UNSPECIFIED"},
        {"updateStatus": None},
        {"updateStatus": 1},
        {"updateInProgress": "FIRMWARE"},
    ],
)
class TestWhatMayBeHalfDone:
    def test_an_immutable_node_that_runs_the_wanted_image_says_so(self, changes: dict[str, Any]) -> None:
        record = imported(**changes, **NEVER_OPEN, osProfileUpdateSourceDesired=names(image_source(1)))
        bench = begin(record, edge(1, SHUT))

        bench.run()

        assert said(bench) == ["STARTED", "UP_TO_DATE"]
        assert bench.link.heard[-1].os_image_id == image(1).image_id

    def test_an_immutable_node_that_runs_another_image_goes_on_in_the_next_window(
        self, changes: dict[str, Any]
    ) -> None:
        bench = begin(imported(**changes, **NEVER_OPEN), edge(2, SHUT))

        bench.run()
        assert said(bench) == ["STARTED"]
        assert bench.state == "paused"
        bench.link.answer = edge(2, OPEN)
        bench.run()

        assert bench.node.contents[Slot.B] == image(2)
        assert said(bench) == ["STARTED", "UPDATED", "UP_TO_DATE"]

    def test_an_unknown_trial_is_rolled_back_and_never_believed(self, changes: dict[str, Any]) -> None:
        bench = AgentBench(edge(2, SHUT), journal=Notebook(imported(**changes, **NEVER_OPEN)))
        bench.node.contents[Slot.B] = image(2)
        bench.node.entries[BootEntry(Slot.B)] = ""
        bench.node.boot_into(BootEntry(Slot.B), boot=1)
        bench.start()

        bench.run()

        assert bench.node.active == BootEntry(Slot.A)
        assert said(bench)[:2] == ["STARTED", "FAILED"]

    def test_a_mutable_node_begins_again_in_the_next_window(self, changes: dict[str, Any]) -> None:
        shut = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE)
        bench = begin(imported(OSType.MUTABLE, **changes, **NEVER_OPEN), shut)

        bench.run()
        assert said(bench) == ["STARTED"]
        bench.link.answer = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_schedule=OPEN)
        bench.run()

        assert said(bench) == ["STARTED", "UPDATED", "UP_TO_DATE"]


def test_the_update_works_in_the_window_in_which_it_was_begun() -> None:
    record = imported(updateStatus="STATUS_TYPE_STARTED")

    assert record.flow is not None
    assert isinstance(record.flow.data, ImmutableUpdate)
    assert record.flow.data.window == Window(
        START.replace(microsecond=123456), START.replace(hour=11, microsecond=123456)
    )


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b'{"updateStatus": "STATUS_TYPE_UP', b"[" * 9999]
)
def test_a_damaged_file_may_hide_an_update(content: bytes) -> None:
    bench = begin(import_record(content, OSType.IMMUTABLE), edge(1, SHUT))

    bench.run()

    assert said(bench) == ["STARTED", "UP_TO_DATE"]


@pytest.mark.parametrize(
    "changes",
    [
        {"updateSource": []},
        {"updateSource": {"kernel_command": 5}},
        {"updateSource": {"kernel_command": "a; reboot"}},
        {"updateSource": {"custom_repos": "deb"}},
        {"updateSource": {"custom_repos": [None]}},
        {"singleSchedule": 5},
        {"singleSchedule": {"start_seconds": -1}},
        {"singleSchedule": {"start_seconds": "7200"}},
        {"singleSchedule": {"start_seconds": True}},
        {"singleScheduleFinished": "no", "singleSchedule": {"start_seconds": 1}},
        {"repeatedSchedules": {}},
        {"repeatedSchedules": [5]},
        {"repeatedSchedules": [{"duration_seconds": 60, "cron_minutes": "*/5"}]},
        {"repeatedSchedules": [{**metadata()["repeatedSchedules"][0], "duration_seconds": 86_401}]},
        {"osProfileUpdateSourceDesired": {"os_image_id": "3.0", "os_image_sha": "short"}},
        {"osProfileUpdateSourceDesired": {**names(image_source(2)), "os_image_url": "\ud800"}},
        {"installedPackages": ["curl"]},
    ],
)
def test_an_answer_with_a_damaged_part_is_not_used_at_all(changes: dict[str, Any]) -> None:
    record = imported(**changes)

    assert record.answer is None
    assert record.last_report == imported().last_report


def test_no_source_is_not_an_empty_list_of_sources() -> None:
    assert imported(OSType.MUTABLE, updateSource=None).answer is None


def test_the_file_is_read_until_our_journal_holds_a_record(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    content = json.dumps(metadata())
    path.write_text(content)
    journal = ImportingJournal(FileJournal(tmp_path / "journal.json"), os_type=OSType.IMMUTABLE, metadata=path)

    assert [journal.load(), journal.load()] == [imported(), imported()]
    journal.store(AgentRecord(refused="ours"))

    assert journal.load() == AgentRecord(refused="ours")
    assert path.read_text() == content


def test_without_a_file_the_agent_begins_with_nothing(tmp_path: Path) -> None:
    for metadata_path in (tmp_path / "metadata.json", tmp_path / "no" / "folder"):
        journal = ImportingJournal(Notebook(), os_type=OSType.IMMUTABLE, metadata=metadata_path)
        assert journal.load() is None


def test_what_is_no_file_is_a_damaged_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        journal = ImportingJournal(Notebook(), os_type=OSType.IMMUTABLE, metadata=tmp_path / name)
        assert journal.load() == import_record(b"", OSType.IMMUTABLE)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
_keys = st.sampled_from(sorted(metadata()))
_words = st.sampled_from(
    ["NONE", "OS", "STATUS_TYPE_UPDATED", "STATUS_TYPE_FAILED", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", 10**18]
)
_inner = st.sampled_from(
    ["start_seconds", "end_seconds", "cron_hours", "duration_seconds", "custom_repos", "os_image_sha", "os_image_id"]
)
_values = _json | _words | st.dictionaries(_inner, _json | _words) | st.lists(st.dictionaries(_inner, _json | _words))


def holds(content: bytes, os_type: OSType) -> None:
    """Check what holds for every file there can be."""
    record = import_record(content, os_type)

    assert decode(encode(record)) == record
    told = [*record.outbox, *([record.last_report] if record.last_report is not None else [])]
    assert told
    assert UpdateStatusType.UPDATED not in {report.status_type for report in told}
    answer = edge(1, SHUT) if os_type is OSType.IMMUTABLE else PlatformUpdateStatusResponse(os_type=os_type)
    bench = begin(record, answer)
    bench.run()
    assert bench.agent.tick().problem == ""


@given(content=st.binary() | _json.map(lambda document: json.dumps(document).encode()), os_type=st.sampled_from(OSType))
def test_any_content_gives_a_record_that_an_agent_can_begin_with(content: bytes, os_type: OSType) -> None:
    holds(content, os_type)


@given(changes=st.dictionaries(_keys, _values), os_type=st.sampled_from(OSType))
def test_any_damage_to_a_file_gives_a_record_that_an_agent_can_begin_with(
    changes: dict[str, Any], os_type: OSType
) -> None:
    holds(json.dumps(metadata(**changes)).encode(), os_type)
