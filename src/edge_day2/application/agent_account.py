"""What an agent tells metrics and the log about its updates and reports."""

from __future__ import annotations

import logging
from typing import Final

from edge_day2.domain.agent import AgentRecord, Update, flow_of
from edge_day2.domain.immutable_events import ImmutableTarget
from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import RequestError, shown
from edge_day2.ports.metrics import AGENT_BEGUN, AGENT_ENDED, AGENT_OUTBOX, AGENT_REPORTS, HarmlessMetrics, Metrics

_log: Final = logging.getLogger(__name__)

_FAILED: Final = ("failed", "rolled_back")


class AgentAccount:
    """Measures and logs what the agent of the node `host_guid` does."""

    def __init__(self, host_guid: str, metrics: Metrics) -> None:
        self._host_guid = host_guid
        self._metrics = HarmlessMetrics(metrics)
        self._undelivered = ""

    def begun(self, before: Update | None, state: Update) -> None:
        """An update begins with `state`; `before` is the one that ended last."""
        again = before is not None and before.name in _FAILED and before.data.target == state.data.target
        self._metrics.count(AGENT_BEGUN, {"attempt": "retry" if again else "first"})
        target = state.data.target
        image = target.image.image_id if isinstance(target, ImmutableTarget) and target.image is not None else ""
        text = f"an update{f' to image {shown(image)}' if image else ''} begins{', once more' if again else ''}"
        self._say(logging.INFO, "update_began", text, image_id=image)

    def entered(self, state: Update) -> None:
        """The update has come to `state`."""
        if not flow_of(state).is_final(state):
            self._say(logging.INFO, "", f"update: {state.name}")
            return
        self._metrics.count(AGENT_ENDED, {"outcome": state.name})
        failure = state.data.failure
        if state.name not in _FAILED or failure is None:
            event = "update_done" if state.name == "updated" else "update_not_needed"
            self._say(logging.INFO, event, f"the update ended: {state.name}")
            return
        event = "update_rolled_back" if state.name == "rolled_back" else "update_failed"
        text = f"the update ended: {state.name}: {failure.reason.value}: {shown(failure.log)}"
        self._say(logging.WARNING, event, text, failure_reason=failure.reason.value)

    def delivered(self, kind: UpdateStatusType, record: AgentRecord) -> None:
        """The Maintenance Manager answered a report; `record` is what is left to say."""
        if self._undelivered:
            self._say(logging.INFO, "reports_delivered_again", "reports are delivered again", status_type=kind.name)
        self._undelivered = ""
        self._reported("delivered", record)

    def undelivered(self, error: RequestError, kind: UpdateStatusType, record: AgentRecord) -> None:
        """A report wasn't taken. It is sent again; the same kind of error is said once."""
        self._reported(error.code.lower(), record)
        if self._undelivered != error.code:
            text = f"the report {kind.name} isn't delivered, and is sent again: {error.code}: {error}"
            self._say(logging.WARNING, "report_undelivered", text, code=error.code, status_type=kind.name)
        self._undelivered = error.code

    def refused(self, error: Exception) -> None:
        """The Maintenance Manager's answer can't be used."""
        self._say(logging.WARNING, "answer_refused", f"answer refused: {error}")

    def lost_journal(self, error: Exception) -> None:
        """The journal can't be read."""
        self._say(logging.ERROR, "journal_lost", str(error))

    def _reported(self, outcome: str, record: AgentRecord) -> None:
        self._metrics.count(AGENT_REPORTS, {"outcome": outcome})
        self._metrics.record(AGENT_OUTBOX, len(record.outbox), {})

    def _say(self, level: int, event: str, text: str, **more: str) -> None:
        if not _log.isEnabledFor(level):
            return
        fields = log_fields(event=event, host_guid=self._host_guid, **more)
        _log.log(level, "%s: %s", self._host_guid, text, extra=fields)
