"""Reading from a registry or a file server over HTTP, with suspicion: sizes, redirects, tokens, times.

What lives here: one request and everything that may go wrong with it. What never will: what a tag, a layer or a file
means (oci.py, http_files.py).

Registries share a token handshake (`WWW-Authenticate: Bearer realm=…`); it is made without a password.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import requests
from attrs import frozen
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from edge_day2.adapters.bearer_token import read_token
from edge_day2.adapters.http_session import DirectSession
from edge_day2.errors import Internal, InvalidValue, NotFound, PermissionDenied, Unauthenticated, Unavailable, shown

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
_CHUNK: Final = 1 << 16
# What one says of a token is a few kilobytes.
_LARGEST_TOKEN_ANSWER: Final = 1 << 16
# A token without a term is good for 60 s (distribution's token specification); renewed a little before its end.
_TOKEN_SECONDS: Final = 60
_TOKEN_MARGIN_SECONDS: Final = 5
_LONGEST_TOKEN_SECONDS: Final = 86_400
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CHALLENGE: Final = re.compile(r"bearer\s+(.*)", re.IGNORECASE | re.DOTALL)


@frozen(kw_only=True)
class Answer:
    """What the server said. `content` is empty where `status` is 304: it is still what it was."""

    status: int
    content: bytes
    headers: Mapping[str, str]


@frozen(kw_only=True)
class ReadLimits:
    """How long a server may take, and how often it is asked.

    Attributes:
        attempts: of one request, the first included.
        first_wait_seconds: before the second attempt at most; doubles with each further one. Waits are random.
        longest_wait_seconds: between two attempts at most, also where the server asks for more.
        connect_seconds: until a connection stands.
        silence_seconds: without a byte.
        deadline_seconds: of one attempt in all, so that a trickle ends too.
    """

    attempts: int = 4
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 20.0
    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    deadline_seconds: float = 120.0


class _TryAgain(Unavailable):
    """The server has no time; `after_seconds` is what it asks for, None where it says nothing."""

    def __init__(self, text: str, after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.after_seconds = after_seconds


class HttpReader:
    """One server. Safe to use from several threads, which take turns.

    Args:
        base_url: the server's address, `https://registry.example.org` for example.
        token_file: holds a bearer token that the server takes as it is; it is read for every request. None: anonymous,
            with the server's own token service where it asks for that.
        allowed_hosts: other hosts, `host` or `host:port`, that may be read from, that the server may redirect to, and
            where its token service may be. A token file's token is never sent there.
        ca_bundle: certificates to believe instead of the system's.
        limits: times and attempts.

    Raises:
        InvalidValue: `base_url` isn't an http or https address, or a token would travel without encryption.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token_file: Path | None = None,
        allowed_hosts: Iterable[str] = (),
        ca_bundle: Path | None = None,
        limits: ReadLimits = ReadLimits(),  # frozen
    ) -> None:
        parts = _split(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise InvalidValue("base_url", base_url, "an address such as https://registry.example.org")
        if token_file is not None and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise InvalidValue("base_url", base_url, "https, to send a token there")
        self._base = base_url.rstrip("/") + "/"
        self._home = (parts.scheme, parts.netloc)
        self._allowed = frozenset(allowed_hosts)
        self._token_file = token_file
        self._limits = limits
        self._tokens: dict[str, tuple[str, float]] = {}
        self._turn = threading.RLock()
        self._session = DirectSession()
        # A ~/.netrc would send its passwords; proxies are taken from the environment all the same.
        self._session.auth = _no_auth
        self._session.headers["Accept-Encoding"] = "identity"
        if ca_bundle is not None:
            self._session.verify = str(ca_bundle)
        self._retrying = Retrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_after_attempt(limits.attempts),
            wait=self._wait,
            reraise=True,
        )

    @property
    def base_url(self) -> str:
        """The server's address, ending in a slash."""
        return self._base

    def get(self, path: str, *, at_most: int, accept: str = "*/*", etag: str = "") -> Answer:
        """Return what lies at `path`, which may be a whole address, of at most `at_most` bytes.

        `etag` says what is known already: where it still is, the answer has status 304 and no content.

        Raises:
            NotFound: there is no such thing.
            Unauthenticated, PermissionDenied: the server wants another token, or none will do; or `path` leads to a
                host that isn't allowed.
            Unavailable: it can't be reached or has no time, also after several attempts; or a redirect leads to a host
                that isn't allowed.
            Internal: its answer breaks the protocol or is too large.
        """
        headers = {"Accept": accept, **({"If-None-Match": etag} if etag else {})}
        url = _joined(self._base, path)
        if not self._may_lead_to(url):
            raise PermissionDenied(f"{shown(url)} is neither on {self._base} nor on an allowed host")
        with self._turn:
            answer: Answer = self._retrying(self._attempt, url, headers, at_most)
        return answer

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._session.close()

    def _wait(self, state: RetryCallState) -> float:
        limits = self._limits
        error = None if state.outcome is None else state.outcome.exception()
        asked = error.after_seconds if isinstance(error, _TryAgain) else None
        by_chance = wait_random_exponential(multiplier=limits.first_wait_seconds, max=limits.longest_wait_seconds)
        return min(max(asked or 0.0, by_chance(state)), limits.longest_wait_seconds)

    def _attempt(self, url: str, headers: Mapping[str, str], at_most: int) -> Answer:
        scope = _scope(url)
        answer = self._follow(url, headers, self._authorization(scope), at_most)
        if answer.status == 401 and self._token_file is None:
            self._fetch_token(scope, answer.headers.get("WWW-Authenticate", ""))
            answer = self._follow(url, headers, self._authorization(scope), at_most)
        _raise_for(answer, url)
        return answer

    def _authorization(self, scope: str) -> dict[str, str]:
        if self._token_file is not None:
            return {"Authorization": f"Bearer {read_token(self._token_file)}"}
        token, until = self._tokens.get(scope, ("", 0.0))
        return {"Authorization": f"Bearer {token}"} if time.monotonic() < until else {}

    def _follow(self, url: str, headers: Mapping[str, str], secret: Mapping[str, str], at_most: int) -> Answer:
        for _ in range(_MOST_REDIRECTS):
            at_home = _split(url)[:2] == self._home
            answer = self._read(url, {**headers, **secret} if at_home else headers, at_most)
            if answer.status not in _REDIRECTS:
                return answer
            url = _joined(url, answer.headers.get("Location", ""))
            if not self._may_lead_to(url):
                raise Unavailable(f"{self._base} leads to {shown(url)}, which isn't on an allowed host")
        raise Internal(f"{self._base}: more than {_MOST_REDIRECTS} redirects")

    def _may_lead_to(self, url: str) -> bool:
        scheme, host = _split(url)[:2]
        if (scheme, host) == self._home:
            return True
        return host in self._allowed and (scheme == "https" or (scheme == "http" and self._home[0] == "http"))

    def _read(self, url: str, headers: Mapping[str, str], at_most: int) -> Answer:
        limits = self._limits
        ends = time.monotonic() + limits.deadline_seconds
        content = bytearray()
        try:
            with self._session.get(
                url,
                headers=dict(headers),
                stream=True,
                allow_redirects=False,
                timeout=(limits.connect_seconds, limits.silence_seconds),
            ) as response:
                if response.status_code in _REDIRECTS:
                    return Answer(status=response.status_code, content=b"", headers=response.headers)
                for chunk in response.iter_content(_CHUNK):
                    content += chunk
                    if len(content) > at_most:
                        raise Internal(f"{shown(url)}: more than {at_most} bytes")
                    if time.monotonic() > ends:
                        raise _TryAgain(f"{shown(url)}: not done after {limits.deadline_seconds:g} s")
                announced = response.headers.get("Content-Length", "")
                if announced.isdecimal() and int(announced) != len(content) and response.status_code == 200:
                    raise _TryAgain(f"{shown(url)}: {len(content)} bytes of {announced}")
                return Answer(status=response.status_code, content=bytes(content), headers=response.headers)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _TryAgain(f"{shown(url)}: {_short(error)}") from error
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(f"{shown(url)}: {_short(error)}") from error

    def _fetch_token(self, scope: str, challenge: str) -> None:
        realm, service = _challenge(challenge)
        if not realm:
            return
        if not self._may_lead_to(realm):
            raise Unauthenticated(
                f"{self._base} sends to the token service {shown(realm)}, which isn't an allowed host"
            )
        query = urlencode({name: value for name, value in (("service", service), ("scope", scope)) if value})
        answer = self._read(f"{realm}{'&' if '?' in realm else '?'}{query}", {}, _LARGEST_TOKEN_ANSWER)
        _raise_for(answer, realm)
        token, seconds = _token(answer.content, realm)
        self._tokens[scope] = (token, time.monotonic() + max(seconds - _TOKEN_MARGIN_SECONDS, 1))


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _joined(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:  # brackets that hold no address
        return url


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # brackets that hold no address
        return urlsplit("")


def _scope(url: str) -> str:
    repository = re.search(r"/v2/(.+)/(?:tags|manifests|blobs)/", _split(url).path)
    return f"repository:{repository[1]}:pull" if repository else "registry:catalog:*"


def _challenge(header: str) -> tuple[str, str]:
    """Return realm and service of a Bearer challenge, "" where it names none."""
    found = _CHALLENGE.match(header)
    items = parse_http_list(found[1]) if found else []
    fields = parse_keqv_list([item for item in items if "=" in item])
    return fields.get("realm", ""), fields.get("service", "")


def _token(content: bytes, realm: str) -> tuple[str, float]:
    """Return a token service's token and its term in seconds."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    fields = document if isinstance(document, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    seconds = fields.get("expires_in", _TOKEN_SECONDS)
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise Internal(f"the token service {shown(realm)} gave no token")
    if not isinstance(seconds, int | float) or not seconds > 0:  # NaN is neither
        seconds = _TOKEN_SECONDS
    return token, float(min(seconds, _LONGEST_TOKEN_SECONDS))


def _raise_for(answer: Answer, url: str) -> None:
    status, text = answer.status, f"{shown(url)}: status {answer.status}"
    if status in (200, 304):
        return
    if status == 404:
        raise NotFound(text)
    if status == 401:
        raise Unauthenticated(text)
    if status == 403:
        raise PermissionDenied(text)
    if status in (408, 429) or status >= 500:
        asked = answer.headers.get("Retry-After", "")
        raise _TryAgain(text, float(asked) if asked.isdecimal() and len(asked) < 10 else None)
    raise Internal(text)


def _short(error: Exception) -> str:
    return shown(str(error))
