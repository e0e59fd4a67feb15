"""Update statuses: what a node reports, what the Inventory records for it, and the detail that goes with it.

The map from node status to Inventory status, its texts and indicators are those of the original Maintenance Manager;
LOST is ours: a node that began an update and was never heard of again.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from attrs import frozen


class UpdateStatusType(enum.Enum):
    """Status that a node reports; numbers as in maintmgr.v1 UpdateStatus.StatusType."""

    UNSPECIFIED = 0
    UP_TO_DATE = 1
    STARTED = 2
    UPDATED = 3
    FAILED = 4
    DOWNLOADING = 5
    DOWNLOADED = 6


class StatusIndicator(enum.Enum):
    """Traffic light beside a status text; numbers as in the original's StatusIndication."""

    UNSPECIFIED = 0
    ERROR = 1
    IN_PROGRESS = 2
    IDLE = 3


class InventoryStatus(enum.Enum):
    """Update status of an instance as the Inventory records it; the value is (text, indicator)."""

    NONE = ("No Current Update", StatusIndicator.UNSPECIFIED)
    UNKNOWN = ("Unknown", StatusIndicator.UNSPECIFIED)
    UP_TO_DATE = ("No new updates available", StatusIndicator.IDLE)
    UPDATE_IN_PROGRESS = ("Updating", StatusIndicator.IN_PROGRESS)
    DONE = ("Update completed", StatusIndicator.IDLE)
    FAILED = ("Update failed", StatusIndicator.ERROR)
    DOWNLOADING = ("Downloading artifacts", StatusIndicator.IDLE)
    DOWNLOADED = ("Download complete", StatusIndicator.IDLE)
    LOST = ("Lost during update", StatusIndicator.ERROR)

    @property
    def text(self) -> str:
        """What a person reads."""
        return self.value[0]

    @property
    def indicator(self) -> StatusIndicator:
        """The traffic light."""
        return self.value[1]


INVENTORY_STATUS: Final[Mapping[UpdateStatusType, InventoryStatus]] = {
    UpdateStatusType.UNSPECIFIED: InventoryStatus.UNKNOWN,
    UpdateStatusType.UP_TO_DATE: InventoryStatus.UP_TO_DATE,
    UpdateStatusType.STARTED: InventoryStatus.UPDATE_IN_PROGRESS,
    UpdateStatusType.UPDATED: InventoryStatus.DONE,
    UpdateStatusType.FAILED: InventoryStatus.FAILED,
    UpdateStatusType.DOWNLOADING: InventoryStatus.DOWNLOADING,
    UpdateStatusType.DOWNLOADED: InventoryStatus.DOWNLOADED,
}


@frozen(kw_only=True)
class UpdateRecord:
    """The update status that the Inventory holds for an instance or a run.

    `text` is the status's text, for a mutable DONE with the number of packages. `timestamp` is the server's, and moves
    only when the status does. `detail` is what the node sent, kept where it could be read.
    """

    status: InventoryStatus = InventoryStatus.NONE
    text: str = InventoryStatus.NONE.text
    timestamp: datetime | None = None
    detail: str = ""


class FailureReason(enum.Enum):
    """Why an update failed. The value is the node's own word for it.

    `summary` is the coarser word of the system's description (DownloadFail, …); `wire` is what a Maintenance Manager
    of the original understands: it drops a whole status detail that holds a reason it doesn't know.
    """

    NO_FAILURE = "nofailure"
    DOWNLOAD_FAIL = "download"
    INSTALLATION_FAIL = "installation"
    BOOTLOADER_FAIL = "bootloader"
    OS_COMMIT_FAIL = "oscommit"
    UNSPECIFIED = "unspecified"
    INSUFFICIENT_STORAGE = "insufficientstorage"
    RS_AUTHENTICATION = "rsauthentication"
    SIGNATURE_CHECK = "signaturecheck"
    UT_WRITE = "utwrite"
    UT_BOOT_CONFIGURATION = "utbootconfiguration"
    CRITICAL_SERVICES = "criticalservices"
    INBM = "inbm"
    UPDATE_TOOL = "updatetool"
    TRIAL_INTERRUPTED = "trialinterrupted"
    WINDOW_CLOSED = "windowclosed"
    WITHDRAWN = "withdrawn"

    @property
    def summary(self) -> str:
        """The description's word: NoFailure, DownloadFail, InstallationFail, BootloaderFail or OSCommitFail."""
        return _SUMMARY[self]

    @property
    def wire(self) -> str:
        """The word that goes into a status detail on the wire."""
        return _WIRE.get(self, self.value)

    @classmethod
    def parse(cls, text: str) -> FailureReason:
        """Return the reason that `text` names: the node's word or the description's, in any case; else UNSPECIFIED."""
        return _BY_WORD.get(text.lower(), cls.UNSPECIFIED)


_SUMMARY: Final[Mapping[FailureReason, str]] = {
    FailureReason.NO_FAILURE: "NoFailure",
    FailureReason.DOWNLOAD_FAIL: "DownloadFail",
    FailureReason.RS_AUTHENTICATION: "DownloadFail",
    FailureReason.SIGNATURE_CHECK: "DownloadFail",
    FailureReason.INSUFFICIENT_STORAGE: "DownloadFail",
    FailureReason.INSTALLATION_FAIL: "InstallationFail",
    FailureReason.UT_WRITE: "InstallationFail",
    FailureReason.INBM: "InstallationFail",
    FailureReason.UPDATE_TOOL: "InstallationFail",
    FailureReason.UNSPECIFIED: "InstallationFail",
    FailureReason.WINDOW_CLOSED: "InstallationFail",
    FailureReason.WITHDRAWN: "InstallationFail",
    FailureReason.BOOTLOADER_FAIL: "BootloaderFail",
    FailureReason.UT_BOOT_CONFIGURATION: "BootloaderFail",
    FailureReason.TRIAL_INTERRUPTED: "BootloaderFail",
    FailureReason.OS_COMMIT_FAIL: "OSCommitFail",
    FailureReason.CRITICAL_SERVICES: "OSCommitFail",
}
_WIRE: Final[Mapping[FailureReason, str]] = {
    FailureReason.INSTALLATION_FAIL: "utwrite",
    FailureReason.UPDATE_TOOL: "unspecified",
    FailureReason.TRIAL_INTERRUPTED: "unspecified",
    FailureReason.WINDOW_CLOSED: "unspecified",
    FailureReason.WITHDRAWN: "unspecified",
}
_BY_WORD: Final[Mapping[str, FailureReason]] = {
    "downloadfail": FailureReason.DOWNLOAD_FAIL,
    "installationfail": FailureReason.INSTALLATION_FAIL,
    "bootloaderfail": FailureReason.BOOTLOADER_FAIL,
    "oscommitfail": FailureReason.OS_COMMIT_FAIL,
    **{reason.value: reason for reason in FailureReason},
}


class UpdateType(enum.Enum):
    """What an update log entry is about."""

    OS = "OS"
    APPLICATION = "application"
    FIRMWARE = "firmware"
    CONTAINER = "container"
    CONFIGURATION = "configuration"


class UpdateAction(enum.Enum):
    """What was done to it."""

    UPGRADE = "upgrade"
    INSTALL = "install"


class EntryStatus(enum.Enum):
    """How it ended."""

    INSTALLED = "installed"
    FAILED = "failed"
    ROLLED_BACK = "rolledback"


@frozen(kw_only=True)
class UpdateLogEntry:
    """One line of the update log: a package, an image or a configuration, and what became of it.

    `version` is the version after the change, `previous_version` the one before ("" where there was none).
    """

    package_name: str
    update_time: datetime
    update_type: UpdateType = UpdateType.OS
    action: UpdateAction = UpdateAction.UPGRADE
    status: EntryStatus = EntryStatus.INSTALLED
    version: str = ""
    previous_version: str = ""
    failure_reason: FailureReason = FailureReason.NO_FAILURE
    failure_log: str = ""


@frozen(kw_only=True)
class StatusDetail:
    """The status detail of a report: the update log, and a sentence for people (why a node waits, for example)."""

    update_log: tuple[UpdateLogEntry, ...] = ()
    message: str = ""

    @property
    def reasons(self) -> tuple[FailureReason, ...]:
        """The failure reasons of the entries that failed or were rolled back, in order."""
        return tuple(entry.failure_reason for entry in self.update_log if entry.status is not EntryStatus.INSTALLED)

    def to_json(self) -> str:
        """Return the JSON text for `UpdateStatus.status_detail`, in the form that the original server reads."""
        document: dict[str, object] = {"update_log": [_entry_to_json(entry) for entry in self.update_log]}
        if self.message:
            document["message"] = self.message
        return _encode(document)


# `json.dumps` with separators would make an encoder for each call.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def _entry_to_json(entry: UpdateLogEntry) -> dict[str, str]:
    document = {
        "update_type": entry.update_type.value,
        "package_name": entry.package_name,
        "update_time": entry.update_time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "action": entry.action.value,
        "status": entry.status.value,
        "version": entry.version,
        "failure_reason": entry.failure_reason.wire,
        "failure_log": entry.failure_log,
    }
    if entry.previous_version:
        document["previous_version"] = entry.previous_version
    if entry.failure_reason.wire != entry.failure_reason.value:
        document["reason"] = entry.failure_reason.value
    return document


def parse_detail(text: str) -> StatusDetail | None:
    """Return the status detail that `text` holds, or None where it can't be read.

    Reads the server's form (`update_log`) and the forms that real agents send instead (`UpdateLog`, with
    `StatusDetail.Status` and capitalised keys). An unknown word becomes the field's default; the entry is kept.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    entries = document.get("update_log", document.get("UpdateLog"))
    if not isinstance(entries, list):
        return None
    message = document.get("message", "")
    return StatusDetail(
        update_log=tuple(_entry_from_json(entry) for entry in entries if isinstance(entry, dict)),
        message=message if isinstance(message, str) else "",
    )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENTRY_STATUS: Final[Mapping[str, EntryStatus]] = {
    **{status.value: status for status in EntryStatus},
    "success": EntryStatus.INSTALLED,
    "fail": EntryStatus.FAILED,
}


def _entry_from_json(document: Mapping[str, object]) -> UpdateLogEntry:
    def word(*names: str) -> str:
        for name in names:
            if isinstance(value := document.get(name), str):
                return value
        return ""

    status = _ENTRY_STATUS.get(word("status", "Status", "StatusDetail.Status").lower(), EntryStatus.INSTALLED)
    reason = FailureReason.parse(word("reason", "failure_reason", "FailureReason") or "nofailure")
    if status is EntryStatus.INSTALLED and reason is not FailureReason.NO_FAILURE:
        status = EntryStatus.FAILED
    return UpdateLogEntry(
        package_name=word("package_name", "PackageName"),
        update_time=_time(word("update_time", "UpdateTime")),
        update_type=next((kind for kind in UpdateType if kind.value == word("update_type")), UpdateType.OS),
        action=UpdateAction.INSTALL if word("action", "Action") == "install" else UpdateAction.UPGRADE,
        status=status,
        version=word("version", "Version"),
        previous_version=word("previous_version"),
        failure_reason=reason,
        failure_log=word("failure_log", "FailureLog"),
    )


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return _EPOCH


def count_changes(entries: Iterable[UpdateLogEntry]) -> int:
    """Return how many packages an update installed or upgraded."""
    return sum(
        entry.status is EntryStatus.INSTALLED and entry.update_type is not UpdateType.CONFIGURATION for entry in entries
    )
