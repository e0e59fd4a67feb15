"""Update statuses, failure reasons, and the status detail in all the forms that real agents send."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from edge_day2.domain.statuses import (
    INVENTORY_STATUS,
    EntryStatus,
    FailureReason,
    InventoryStatus,
    StatusDetail,
    StatusIndicator,
    UpdateAction,
    UpdateLogEntry,
    UpdateRecord,
    UpdateStatusType,
    UpdateType,
    count_changes,
    parse_detail,
)
from edge_day2.testing import strategies

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)

# What a Maintenance Manager of the original understands; it drops a whole status detail that holds another word.
UNDERSTOOD_BY_THE_ORIGINAL = {
    "unspecified", "nofailure", "download", "bootloader", "insufficientstorage", "rsauthentication", "signaturecheck",
    "utwrite", "utbootconfiguration", "criticalservices", "inbm", "oscommit",
}  # fmt: skip
WORDS_OF_THE_DESCRIPTION = {"NoFailure", "DownloadFail", "InstallationFail", "BootloaderFail", "OSCommitFail"}


@pytest.mark.parametrize(
    ("reported", "recorded", "text", "indicator"),
    [
        (UpdateStatusType.UNSPECIFIED, InventoryStatus.UNKNOWN, "Unknown", StatusIndicator.UNSPECIFIED),
        (UpdateStatusType.UP_TO_DATE, InventoryStatus.UP_TO_DATE, "No new updates available", StatusIndicator.IDLE),
        (UpdateStatusType.STARTED, InventoryStatus.UPDATE_IN_PROGRESS, "Updating", StatusIndicator.IN_PROGRESS),
        (UpdateStatusType.UPDATED, InventoryStatus.DONE, "Update completed", StatusIndicator.IDLE),
        (UpdateStatusType.FAILED, InventoryStatus.FAILED, "Update failed", StatusIndicator.ERROR),
        (UpdateStatusType.DOWNLOADING, InventoryStatus.DOWNLOADING, "Downloading artifacts", StatusIndicator.IDLE),
        (UpdateStatusType.DOWNLOADED, InventoryStatus.DOWNLOADED, "Download complete", StatusIndicator.IDLE),
    ],
)
def test_the_status_map_is_that_of_the_original(
    reported: UpdateStatusType, recorded: InventoryStatus, text: str, indicator: StatusIndicator
) -> None:
    assert INVENTORY_STATUS[reported] is recorded
    assert (recorded.text, recorded.indicator) == (text, indicator)


def test_every_reported_status_is_mapped() -> None:
    assert set(INVENTORY_STATUS) == set(UpdateStatusType)
    assert [kind.value for kind in UpdateStatusType] == list(range(7))


def test_an_instance_begins_without_an_update() -> None:
    assert UpdateRecord().text == "No Current Update"
    assert UpdateRecord().timestamp is None


@pytest.mark.parametrize("reason", FailureReason)
def test_every_reason_has_a_word_of_the_description_and_one_that_the_original_understands(
    reason: FailureReason,
) -> None:
    assert reason.summary in WORDS_OF_THE_DESCRIPTION
    assert reason.wire in UNDERSTOOD_BY_THE_ORIGINAL


@pytest.mark.parametrize("reason", FailureReason)
def test_a_reason_is_read_back_from_its_own_word_in_any_case(reason: FailureReason) -> None:
    assert FailureReason.parse(reason.value) is reason
    assert FailureReason.parse(reason.value.upper()) is reason


@pytest.mark.parametrize("word", sorted(WORDS_OF_THE_DESCRIPTION))
def test_a_reason_is_read_from_the_words_of_the_description(word: str) -> None:
    assert FailureReason.parse(word).summary == word


@given(st.text(max_size=20))
def test_an_unknown_reason_is_unspecified(text: str) -> None:
    known = {reason.value for reason in FailureReason} | {word.lower() for word in WORDS_OF_THE_DESCRIPTION}

    assert text.lower() in known or FailureReason.parse(text) is FailureReason.UNSPECIFIED


@given(strategies.status_details())
def test_a_status_detail_is_read_back_as_it_was_written(detail: StatusDetail) -> None:
    assert parse_detail(detail.to_json()) == detail


@given(strategies.status_details())
def test_a_status_detail_on_the_wire_has_only_words_that_the_original_understands(detail: StatusDetail) -> None:
    for entry in json.loads(detail.to_json())["update_log"]:
        assert entry["failure_reason"] in UNDERSTOOD_BY_THE_ORIGINAL
        assert entry["status"] in {"installed", "failed", "rolledback"}
        assert entry["action"] in {"upgrade", "install"}
        assert datetime.fromisoformat(entry["update_time"]).tzinfo is not None


def test_a_reason_that_the_original_does_not_know_goes_beside_one_that_it_does() -> None:
    entry = UpdateLogEntry(
        package_name="edge",
        update_time=NOW,
        status=EntryStatus.ROLLED_BACK,
        failure_reason=FailureReason.TRIAL_INTERRUPTED,
    )

    (document,) = json.loads(StatusDetail(update_log=(entry,)).to_json())["update_log"]

    assert (document["failure_reason"], document["reason"]) == ("unspecified", "trialinterrupted")


def test_times_are_written_in_utc() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    detail = StatusDetail(update_log=(UpdateLogEntry(package_name="edge", update_time=local),))

    assert '"update_time":"2026-03-01T02:00:00Z"' in detail.to_json()


def test_a_message_is_written_only_where_there_is_one() -> None:
    assert StatusDetail().to_json() == '{"update_log":[]}'
    assert StatusDetail(message="paused").to_json() == '{"update_log":[],"message":"paused"}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("update_log", "UpdateLog", "message", "status", "StatusDetail.Status", "update_time", "failure_reason")
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
@example({"update_log": [{"update_time": "0001-01-01T00:00:00+23:59", "status": "failed"}]})
@example({"update_log": [{"update_time": "9999-12-31T23:59:59-23:59"}]})
def test_any_json_is_read_or_refused_and_what_was_read_can_be_written_again(document: object) -> None:
    detail = parse_detail(json.dumps(document))

    has_log = isinstance(document, dict) and isinstance(document.get("update_log", document.get("UpdateLog")), list)
    assert (detail is not None) == has_log
    if detail is not None:
        assert parse_detail(detail.to_json()) is not None


@given(st.text())
@example("")
@example("{")
@example("[" * 100_000)
@example('{"update_log": [' + "[" * 100_000)
@example("1" * 5000)
def test_any_text_is_read_or_refused(text: str) -> None:
    parse_detail(text)


@pytest.mark.parametrize("text", ['{"update_log": null}', '{"update_log": {}}', "{}", "[]", "1", "null", '"x"'])
def test_a_document_without_an_update_log_is_no_status_detail(text: str) -> None:
    assert parse_detail(text) is None


def test_the_form_of_agents_of_immutable_nodes_is_read() -> None:
    text = '{"UpdateLog":[{"StatusDetail.Status":"FAIL","Version":"3.0.1","FailureReason":"OSCommitFail"}]}'

    detail = parse_detail(text)

    assert detail is not None
    (entry,) = detail.update_log
    assert (entry.status, entry.failure_reason) == (EntryStatus.FAILED, FailureReason.OS_COMMIT_FAIL)
    assert entry.version == "3.0.1"
    assert detail.reasons == (FailureReason.OS_COMMIT_FAIL,)


def test_the_form_of_agents_of_mutable_nodes_is_read() -> None:
    text = json.dumps(
        {
            "UpdateLog": [
                {
                    "update_type": "application",
                    "package_name": "curl",
                    "update_time": "2026-03-01T02:00:00",
                    "action": "install",
                    "status": "SUCCESS",
                    "version": "7.81",
                },
                "not an entry",
            ]
        }
    )

    detail = parse_detail(text)

    assert detail is not None
    assert detail.update_log == (
        UpdateLogEntry(
            package_name="curl",
            update_time=NOW,
            update_type=UpdateType.APPLICATION,
            action=UpdateAction.INSTALL,
            version="7.81",
        ),
    )


@pytest.mark.parametrize(
    ("status", "reason", "read"),
    [
        ("rolledback", "bootloader", EntryStatus.ROLLED_BACK),
        ("Rolledback", "BootloaderFail", EntryStatus.ROLLED_BACK),
        ("Failed", "", EntryStatus.FAILED),
        ("SUCCESS", "NoFailure", EntryStatus.INSTALLED),
        ("no such word", "", EntryStatus.INSTALLED),
        ("", "download", EntryStatus.FAILED),
    ],
)
def test_an_entry_with_a_failure_reason_was_not_installed(status: str, reason: str, read: EntryStatus) -> None:
    detail = parse_detail(json.dumps({"update_log": [{"status": status, "failure_reason": reason}]}))

    assert detail is not None
    assert detail.update_log[0].status is read


def test_only_installed_packages_are_counted() -> None:
    package = UpdateLogEntry(package_name="curl", update_time=NOW)
    log = (
        package,
        package,
        evolve(package, update_type=UpdateType.CONFIGURATION),
        evolve(package, status=EntryStatus.FAILED),
    )

    assert count_changes(log) == 2
