"""The way from an agent to a Maintenance Manager over gRPC: ours, or the original one.

Nothing is kept here: a report that isn't answered waits in the agent's outbox, in order, and is sent again at its next
tick. A few attempts are made at once, at growing random distances, so that a fleet doesn't come back in step; after
the last one the connection is given up, and the next report opens a new one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import grpc
from attrs import frozen
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from edge_day2.adapters.bearer_token import read_token
from edge_day2.adapters.grpc.conversion import decode_response, encode_request
from edge_day2.adapters.grpc.tls import ClientTls, Stamp
from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse
from edge_day2.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    InvalidMessage,
    InvalidValue,
    NotFound,
    PermissionDenied,
    RequestError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    shown,
)

_log: Final = logging.getLogger(__name__)

METHOD: Final = "/maintmgr.v1.MaintmgrService/PlatformUpdateStatus"
_ERRORS: Final[Mapping[str, type[RequestError]]] = {
    kind.code: kind
    for kind in (
        AlreadyExists,
        Conflict,
        DeadlineExceeded,
        FailedPrecondition,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
    )
}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST_TEXT: Final = 300


@frozen(kw_only=True)
class RetryPolicy:
    """How often a report is sent at once, and how long a link waits.

    Attributes:
        attempts: of one report within one call, the first included.
        first_wait_seconds: before the second attempt at most; doubles with each further one.
        longest_wait_seconds: between two attempts at most. Waits are random, from nothing up to their greatest length.
        deadline_seconds: of one attempt, connecting included.
    """

    attempts: int = 4
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 8.0
    deadline_seconds: float = 15.0


class GrpcLink:
    """A `MaintenanceLink`. For one thread at a time; use it as a context manager, or call `close`.

    Args:
        target: host and port of the Maintenance Manager, `maintenance.example.org:443` for example.
        tls: whom to believe; None for no encryption.
        token_file: holds the bearer token. It is read for every attempt, since somebody else renews it. None: no token.
        retry: attempts, waits and deadlines.
        message_bytes: the largest answer that is taken.

    Raises:
        InvalidValue: no target, or a token without encryption to another machine: anybody between could use it.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: ClientTls | None,
        token_file: str | os.PathLike[str] | None = None,
        retry: RetryPolicy = RetryPolicy(),  # frozen
        message_bytes: int = 4 << 20,
    ) -> None:
        if not target:
            raise InvalidValue("target", target, "host and port of the Maintenance Manager")
        if tls is None and token_file is not None and urlsplit(f"//{target}").hostname not in _LOOPBACK:
            raise InvalidValue("tls", None, f"TLS, to send a token to {shown(target)}")
        self._target = target
        self._tls = tls
        self._token_file = None if token_file is None else Path(token_file)
        self._host_guid = ""
        self._deadline = retry.deadline_seconds
        self._message_bytes = message_bytes
        self._channel: grpc.Channel | None = None
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] | None = None
        self._stamp: Stamp = ()
        self._retrying = Retrying(
            retry=retry_if_exception_type((Unavailable, Conflict)),
            stop=stop_after_attempt(retry.attempts),
            wait=wait_random_exponential(multiplier=retry.first_wait_seconds, max=retry.longest_wait_seconds),
            before_sleep=self._note_retry,
            reraise=True,
        )

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        """See `MaintenanceLink.platform_update_status`.

        Raises:
            InvalidArgument, NotFound, Unauthenticated, PermissionDenied, FailedPrecondition: the Maintenance Manager
                refuses the report. Unauthenticated also where the token can't be read.
            Unavailable, ResourceExhausted, DeadlineExceeded, Conflict: it can't be reached or has no time, also after
                several attempts. The report may have been recorded, and may be sent again.
            Internal: it failed, or its answer breaks the protocol.
        """
        try:
            content = encode_request(request)
        except InvalidMessage as error:
            raise InvalidArgument(str(error)) from error
        self._host_guid = request.host_guid
        try:
            answer: bytes = self._retrying(self._attempt, content)
        except (Unavailable, Unauthenticated, PermissionDenied):
            # Whatever it was, a new connection may go to another server, or carry a new certificate.
            self.close()
            raise
        try:
            return decode_response(answer)
        except InvalidMessage as error:
            raise Internal(f"the Maintenance Manager's answer breaks the protocol: {error}") from error

    def _note_retry(self, state: RetryCallState) -> None:
        outcome = state.outcome
        error = None if outcome is None else outcome.exception()
        code = error.code if isinstance(error, RequestError) else ""
        fields = log_fields(event="report_undelivered", host_guid=self._host_guid, code=code)
        _log.info("report not delivered, attempt %d: %s", state.attempt_number, error, extra=fields)

    def close(self) -> None:
        """Close the connection; the next report opens a new one. Safe to call twice."""
        channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, content: bytes) -> bytes:
        call, metadata = self._connected(), self._metadata()
        try:
            return call(content, timeout=self._deadline, metadata=metadata)
        except grpc.RpcError as error:
            raise _translated(error) from error

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._token_file is None:
            return ()
        return (("authorization", f"Bearer {read_token(self._token_file)}"),)

    def _connected(self) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        tls = self._tls
        try:
            stamp = () if tls is None else tls.stamp()
            if self._call is not None and stamp == self._stamp:
                return self._call
            self.close()
            credentials = None if tls is None else tls.credentials()
        except OSError as error:
            raise Unavailable(f"a certificate can't be read: {error}") from error
        options = self._options()
        if credentials is None:
            channel = grpc.insecure_channel(self._target, options)
        else:
            channel = grpc.secure_channel(self._target, credentials, options)
        self._channel, self._stamp = channel, stamp
        self._call = channel.unary_unary(METHOD)
        return self._call

    def _options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", self._message_bytes),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # Attempts are counted and spread here alone.
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            # Whatever its name says: how long a connection with its handshake may take. Slow ways are common.
            ("grpc.min_reconnect_backoff_ms", round(self._deadline * 1000)),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            # A new link must not wait for the back-off of one that was closed.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._tls is None:
            # What isn't encrypted stays on its way; with TLS a proxy (`https_proxy`) only passes it on.
            options.append(("grpc.enable_http_proxy", 0))
        if self._tls is not None and self._tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return options


def _translated(error: grpc.RpcError) -> RequestError:
    code = error.code() if isinstance(error, grpc.Call) else None
    text = _readable(error.details() or "") if isinstance(error, grpc.Call) else "no status"
    if code is None:
        return Internal(text)
    if code is grpc.StatusCode.CANCELLED:
        return Unavailable(text)
    kind = _ERRORS.get(code.name)
    return Internal(f"{code.name}: {text}") if kind is None else kind(text)


def _readable(text: str) -> str:
    # It goes into logs, and comes from outside.
    return "".join(one if one.isprintable() else " " for one in text[:_LONGEST_TEXT])
