"""From the bytes of a report to the bytes of its answer, or to a refusal that an agent understands. No gRPC in here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from edge_day2.adapters.grpc.conversion import decode_request, encode_response
from edge_day2.adapters.grpc.report_workers import Outcome, Refusal
from edge_day2.adapters.grpc.tokens import Caller
from edge_day2.application.maintenance_manager import MaintenanceManager
from edge_day2.errors import InvalidArgument, InvalidMessage, RequestError

_log: Final = logging.getLogger(__name__)

# What is in an error is for this server's log. Only a mistake in the report itself is explained to its sender.
_TEXTS: Final[Mapping[str, str]] = {
    "NOT_FOUND": "no such host, or nothing is installed on it",
    "UNAUTHENTICATED": "the host isn't trusted",
    "PERMISSION_DENIED": "the token is for another host",
    "FAILED_PRECONDITION": "the instance isn't provisioned",
    "ABORTED": "others changed the same at once, send it again",
    "UNAVAILABLE": "the report couldn't be recorded now, send it again later",
}
_MISTAKE: Final = Refusal(code="INTERNAL", text="internal error")
# Two reports of one node at once make the same run twice: the second will find it.
_CODES: Final[Mapping[str, str]] = {"ALREADY_EXISTS": "ABORTED"}


class Answers:
    """Answers reports through `manager`. Safe to use from several threads."""

    def __init__(self, manager: MaintenanceManager) -> None:
        self._manager = manager

    def answer(self, caller: Caller, content: bytes) -> Outcome:
        """Return the answer to a report, or why there is none. Never raises."""
        try:
            return self._answer(caller, content)
        except Exception:
            _log.exception("a report of tenant %s can't be answered", caller.tenant)
            return _MISTAKE

    def _answer(self, caller: Caller, content: bytes) -> Outcome:
        try:
            request = decode_request(content)
        except InvalidMessage as error:
            return Refusal(code=InvalidArgument.code, text=str(error))
        try:
            caller.check_host(request.host_guid)
            response = self._manager.platform_update_status(request, tenant=caller.tenant)
        except InvalidArgument as error:
            return Refusal(code=error.code, text=str(error))
        except RequestError as error:
            code = _CODES.get(error.code, error.code)
            _log.info("tenant %s, host %s: %s: %s", caller.tenant, request.host_guid, code, error)
            return Refusal(code=code, text=_TEXTS.get(code, _MISTAKE.text))
        return encode_response(response)
