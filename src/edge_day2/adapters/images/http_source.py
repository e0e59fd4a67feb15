"""Images over HTTP and HTTPS, from trusted sources alone."""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import requests
import urllib3
from attrs import frozen

from edge_day2.adapters.bearer_token import read_token
from edge_day2.adapters.http_session import DirectSession
from edge_day2.adapters.images.trusted_sources import Address, TrustedSources
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import Unauthenticated, shown
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.image_source import ImageStream, SourceChanged, SourceInterrupted

_log: Final = logging.getLogger(__name__)

_PIECE: Final = 1 << 20
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
# RFC 9110 and 6585: what may be another answer later.
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@frozen(kw_only=True)
class HttpLimits:
    """How long a server is waited for.

    Attributes:
        connect_seconds: for a connection, TLS included.
        stall_seconds: for the next bytes.
        slowest_bytes_per_second: slower, over `stall_seconds` of waiting, counts as broken off.
    """

    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    slowest_bytes_per_second: int = 1024


class HttpImageSource:
    """An `ImageSource` over HTTP.

    Redirects are followed within the trusted sources, and each source gets its own token or none. What is asked for is
    the file as it lies there: `Accept-Encoding: identity`, and nothing is decoded. A range is asked for with the
    validator (strong ETag, else Last-Modified) in `If-Range`, as RFC 9110 section 13.1.5 says.

    Args:
        trusted: where images may come from, and the base of relative addresses.
        ca: PEM file of the authorities to believe instead of the system's.
        proxies: by scheme, as `requests` takes them. None: as the environment says (`HTTPS_PROXY`, `NO_PROXY`).
        limits: time-outs.
    """

    def __init__(
        self,
        trusted: TrustedSources,
        *,
        ca: Path | None = None,
        proxies: Mapping[str, str] | None = None,
        limits: HttpLimits = HttpLimits(),  # frozen
    ) -> None:
        self._trusted = trusted
        self._ca = ca
        self._proxies = None if proxies is None else dict(proxies)
        self._limits = limits

    def open(self, url: str, *, offset: int = 0, validator: str = "") -> ImageStream:
        """See `ImageSource.open`."""
        address = self._trusted.resolve(url)
        session = self._session()
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                response = self._ask(session, address, offset, validator)
                try:
                    if response.status_code not in _REDIRECTS:
                        return self._answered(session, response, address, offset, validator)
                    address = self._trusted.resolve(response.headers.get("Location", ""), seen_at=address)
                except BaseException:
                    response.close()
                    raise
                response.close()
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{address}: more than {_MOST_REDIRECTS} redirects")
        except BaseException:
            session.close()
            raise

    def _session(self) -> requests.Session:
        session = DirectSession()
        if self._proxies is not None:
            session.trust_env = False
            session.proxies.update(self._proxies)
        return session

    def _ask(self, session: requests.Session, address: Address, offset: int, validator: str) -> requests.Response:
        headers = {"Accept-Encoding": "identity", "User-Agent": "edge_day2"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if validator:
                headers["If-Range"] = validator
        try:
            return session.get(
                address.url,
                headers=headers,
                auth=_Token(address),
                stream=True,
                allow_redirects=False,
                timeout=(self._limits.connect_seconds, self._limits.stall_seconds),
                # Said here, since the session's own word gives way to REQUESTS_CA_BUNDLE.
                verify=True if self._ca is None else str(self._ca),
            )
        except requests.exceptions.SSLError as error:
            raise _tls_failure(address, error) from error
        except requests.exceptions.InvalidSchema as error:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{address}: {shown(str(error))}") from error
        except requests.exceptions.RequestException as error:
            raise SourceInterrupted(f"{address} can't be reached: {_words(error)}") from error
        except OSError as error:  # the CA file isn't there, or can't be read
            raise NodeFailure(FailureReason.RS_AUTHENTICATION, f"{address}: {error}") from error
        except Unauthenticated as error:
            raise NodeFailure(FailureReason.RS_AUTHENTICATION, str(error)) from error

    def _answered(
        self, session: requests.Session, response: requests.Response, address: Address, offset: int, validator: str
    ) -> ImageStream:
        status = response.status_code
        found = _validator(response)
        if status == 200 and not offset:
            return _HttpStream(session, response, address, 0, _length(response), found, self._limits)
        if status == 206 and offset:
            start, total = _range(response)
            if start != offset or (validator and found and found != validator):
                raise SourceChanged(
                    f"{address} sends another file, or another part of it than the one from {offset} on"
                )
            return _HttpStream(session, response, address, offset, total, found or validator, self._limits)
        if offset and status in {200, 416}:
            raise SourceChanged(f"{address} answers {status} to a request for what follows byte {offset}")
        words = f"{address} answers {status} {shown(response.reason or '')}"
        if status in {401, 403, 407}:
            raise NodeFailure(FailureReason.RS_AUTHENTICATION, words)
        if status in _LATER:
            raise SourceInterrupted(words, retry_after_seconds=_retry_after(response))
        raise NodeFailure(FailureReason.DOWNLOAD_FAIL, words)


class _Token(requests.auth.AuthBase):
    """Sends the token of an address's own source; for lack of one it sends nothing, not what ~/.netrc says either."""

    def __init__(self, address: Address) -> None:
        self._token_file = address.source.token_file

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token_file is not None:
            request.headers["Authorization"] = f"Bearer {read_token(self._token_file)}"
        return request


class _HttpStream:
    """See `ImageStream`."""

    def __init__(
        self,
        session: requests.Session,
        response: requests.Response,
        address: Address,
        position: int,
        total: int | None,
        validator: str,
        limits: HttpLimits,
    ) -> None:
        self.total = total
        self.validator = validator
        self._session = session
        self._response = response
        self._address = address
        self._position = position
        self._limits = limits
        self._waited_seconds = 0.0
        self._got_bytes = 0

    def read(self) -> bytes:
        """See `ImageStream.read`."""
        began = time.monotonic()
        try:
            piece: bytes = self._response.raw.read1(_PIECE, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # The last two: `abort` took the socket away in another thread.
            raise SourceInterrupted(f"{self._address} broke off at byte {self._position}: {_words(error)}") from error
        self._position += len(piece)
        if not piece and self.total is not None and self._position < self.total:
            raise SourceInterrupted(f"{self._address} ended at byte {self._position} of {self.total}")
        self._mind_rate(time.monotonic() - began, len(piece))
        return piece

    def _mind_rate(self, seconds: float, length: int) -> None:
        # Only the waiting counts: a slow disk makes reads rare, not slow.
        self._waited_seconds += seconds
        self._got_bytes += length
        if self._waited_seconds < self._limits.stall_seconds:
            return
        if self._got_bytes < self._limits.slowest_bytes_per_second * self._waited_seconds:
            rate = f"{self._got_bytes} bytes in {self._waited_seconds:.0f} seconds"
            raise SourceInterrupted(f"{self._address} sends too slowly: {rate}, at byte {self._position}")
        self._waited_seconds, self._got_bytes = 0.0, 0

    def abort(self) -> None:
        """See `ImageStream.abort`."""
        # Closing would wait for the read that is to be ended.
        try:
            self._response.raw.shutdown()
        except (ValueError, RuntimeError, OSError) as error:
            _log.debug("%s: nothing to shut down: %s", self._address, error)

    def close(self) -> None:
        """See `ImageStream.close`."""
        self._response.close()
        self._session.close()


def _tls_failure(address: Address, error: requests.exceptions.SSLError) -> Exception:
    cause: BaseException | None = error
    while cause is not None:
        reason = getattr(cause, "reason", None)
        if isinstance(cause, ssl.SSLCertVerificationError) or isinstance(reason, ssl.SSLCertVerificationError):
            return NodeFailure(FailureReason.RS_AUTHENTICATION, f"{address}: {_words(error)}")
        cause = cause.__cause__ or cause.__context__
    return SourceInterrupted(f"{address} can't be reached: {_words(error)}")


def _words(error: BaseException) -> str:
    text = str(error)[:300]
    return "".join(one if one.isprintable() else " " for one in text) or type(error).__name__


def _validator(response: requests.Response) -> str:
    # RFC 9110 section 13.1.5: a weak ETag must not be used for a range.
    tag = response.headers.get("ETag", "")
    if tag.startswith('"') and len(tag) < 300:
        return tag
    return response.headers.get("Last-Modified", "")[:100]


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    start, total = match.group(1, 3)
    return int(start), None if total == "*" else int(total)


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    when = _date(text)
    if when is None:
        return None
    # The server's own clock says when it is now; ours may stand at 1970.
    now = _date(response.headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (when - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
