"""From the bytes of a report to the bytes of its answer, or to a refusal that an agent understands. No gRPC in here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from edge_day2.adapters.grpc.conversion import decode_request, encode_response
from edge_day2.adapters.grpc.report_workers import MISTAKE, Outcome, Refusal
from edge_day2.adapters.grpc.tokens import Caller
from edge_day2.application.maintenance_manager import MaintenanceManager, Report
from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.messages import PlatformUpdateStatusResponse
from edge_day2.errors import InvalidArgument, InvalidMessage, PermissionDenied, RequestError

_log: Final = logging.getLogger(__name__)

# What is in an error is for this server's log. Only a mistake in the report itself is explained to its sender.
_TEXTS: Final[Mapping[str, str]] = {
    "NOT_FOUND": "no such host, or nothing is installed on it",
    "UNAUTHENTICATED": "the host isn't trusted",
    "FAILED_PRECONDITION": "the instance isn't provisioned",
    "ABORTED": "others changed the same at once, send it again",
    "UNAVAILABLE": "the report couldn't be recorded now, send it again later",
}
_AT_WORK: Final = Refusal(code="ABORTED", text="an earlier report of this host is still being recorded, send it again")
# Two reports of one node at once make the same run twice: the second will find it.
_CODES: Final[Mapping[str, str]] = {"ALREADY_EXISTS": "ABORTED"}


class Answers:
    """Answers reports through `manager`. Safe to use from several threads.

    Reports of one host are answered one after the other. An agent that was told that its report takes too long sends
    the same again, and then the next: what it gave up, and a thread still holds, mustn't be recorded after that.
    """

    def __init__(self, manager: MaintenanceManager) -> None:
        self._manager = manager
        self._at_work: set[tuple[str, str]] = set()
        self._changing = threading.Lock()

    def answer(self, reports: Sequence[tuple[Caller, bytes]]) -> list[Outcome]:
        """Return for each report its answer, or why there is none."""
        outcomes: list[Outcome | Report] = [self._read(caller, content) for caller, content in reports]
        mine: set[tuple[str, str]] = set()
        with self._changing:
            for number, outcome in enumerate(outcomes):
                if isinstance(outcome, Report):
                    host = (outcome.tenant, outcome.request.host_guid.lower())
                    if host in self._at_work:
                        outcomes[number] = _AT_WORK
                    else:
                        mine.add(host)
            self._at_work |= mine
        try:
            answers = self._answers([outcome for outcome in outcomes if isinstance(outcome, Report)])
            return [next(answers) if isinstance(outcome, Report) else outcome for outcome in outcomes]
        finally:
            with self._changing:
                self._at_work -= mine

    def _read(self, caller: Caller, content: bytes) -> Refusal | Report:
        try:
            request = decode_request(content)
        except InvalidMessage as error:
            return Refusal(code=InvalidArgument.code, text=str(error))
        try:
            caller.check_host(request.host_guid)
        except PermissionDenied as error:
            return Refusal(code=error.code, text=str(error))
        return Report(tenant=caller.tenant, request=request)

    def _answers(self, reports: Sequence[Report]) -> Iterator[Outcome]:
        if len(reports) > 1:
            try:
                found = self._manager.answer_each(reports)
            except Exception:
                # One by one: what spoils it for one must not spoil it for all.
                _log.exception("%d reports can't be answered at once", len(reports))
            else:
                return map(self._outcome, reports, found)
        return map(self._answer_one, reports)

    def _answer_one(self, report: Report) -> Outcome:
        try:
            answer = self._manager.platform_update_status(report.request, tenant=report.tenant)
        except RequestError as error:
            return self._outcome(report, error)
        except Exception:
            _log.exception("a report of tenant %s can't be answered", report.tenant, extra=_ids(report))
            return MISTAKE
        return self._outcome(report, answer)

    def _outcome(self, report: Report, answer: PlatformUpdateStatusResponse | RequestError) -> Outcome:
        if isinstance(answer, PlatformUpdateStatusResponse):
            try:
                return encode_response(answer)
            except InvalidMessage:
                _log.exception("an answer to tenant %s can't be said", report.tenant, extra=_ids(report))
                return MISTAKE
        if isinstance(answer, InvalidArgument):
            return Refusal(code=answer.code, text=str(answer))
        code = _CODES.get(answer.code, answer.code)
        text = "tenant %s, host %s: %s: %s"
        _log.info(text, report.tenant, report.request.host_guid, code, answer, extra=_ids(report, code=code))
        return Refusal(code=code, text=_TEXTS.get(code, MISTAKE.text))


def _ids(report: Report, *, code: str = "") -> dict[str, str]:
    kind = report.request.update_status.status_type.name
    return log_fields(tenant_id=report.tenant, host_guid=report.request.host_guid, status_type=kind, code=code)
