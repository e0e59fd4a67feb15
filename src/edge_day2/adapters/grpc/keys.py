"""The keys that tokens are signed with: a JWKS file or URL, loaded again when it is old or a key is missing from it."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import urlsplit

from attrs import field, frozen
from jwt import PyJWK, PyJWKSet

from edge_day2.errors import InvalidValue, Unavailable, shown

_log: Final = logging.getLogger(__name__)

# Never HMAC: whoever knows a public key could sign with it, and a secret has no place in a document for everybody.
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
# A set of keys is a few kilobytes.
_LARGEST: Final = 1 << 20
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class KeySource(Protocol):
    """Where a JWKS document comes from. `fresh_seconds` is for how long what was loaded needn't be loaded again."""

    @property
    def fresh_seconds(self) -> float: ...

    def load(self) -> bytes:
        """Return the document. Blocks.

        Raises:
            OSError: it can't be had now.
        """
        ...


@frozen(kw_only=True)
class JwksFile:
    """A JWKS file, which may be replaced at any time."""

    path: Path = field(converter=Path)
    fresh_seconds: float = 5.0

    def load(self) -> bytes:
        """See `KeySource.load`."""
        with self.path.open("rb") as file:
            return file.read(_LARGEST)


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


@frozen(kw_only=True)
class JwksUrl:
    """A JWKS document behind https, or behind http on this machine. Redirections aren't followed.

    Args:
        url: the address of the identity provider's keys.
        ca_file: whom to believe the server's certificate; None: the system's authorities.
        timeout_seconds: of one attempt.

    Raises:
        InvalidValue: another scheme: whoever sits between could sign tokens.
    """

    url: str
    ca_file: Path | None = None
    timeout_seconds: float = 5.0
    fresh_seconds: float = 300.0

    def __attrs_post_init__(self) -> None:
        if not _is_safe(self.url):
            raise InvalidValue("url", self.url, "https://…, or http:// to this machine")

    def load(self) -> bytes:
        """See `KeySource.load`."""
        context = ssl.create_default_context(cafile=self.ca_file)
        handlers = [urllib.request.HTTPSHandler(context=context), _NoRedirection()]
        if urlsplit(self.url).scheme == "http":
            # A proxy is another machine.
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        try:
            with opener.open(self.url, timeout=self.timeout_seconds) as answer:
                return self._read(answer)
        except urllib.error.HTTPError as error:
            error.close()
            raise OSError(f"{self.url} answers with status {error.code}") from error
        except http.client.HTTPException as error:
            raise OSError(f"{self.url} doesn't speak HTTP: {type(error).__name__}") from error

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        # The timeout of a socket begins again with every byte.
        content, end = b"", time.monotonic() + self.timeout_seconds
        while len(content) < _LARGEST and (part := answer.read1(_LARGEST)):
            content += part
            if time.monotonic() > end:
                raise TimeoutError(f"{self.url} takes longer than {self.timeout_seconds} s")
        return content


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class KeyRing:
    """The keys of one source, as they were loaded last. Belongs to one event loop.

    Keys that are older than the source's `fresh_seconds` are loaded again before they are used; where that fails the
    old ones go on being used, so that an identity provider that is down doesn't stop a fleet. A key that is missing is
    looked for at most every `retry_seconds`, so that tokens with made-up keys can't be used to flood the provider.
    While keys are being loaded the old ones do as well: a provider that hangs holds up nobody whose key is known.

    Args:
        source: where the keys are.
        retry_seconds: the shortest distance of two attempts.
        patience_seconds: for how long a caller waits for keys.
        monotonic: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        retry_seconds: float = 10.0,
        patience_seconds: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._patience = patience_seconds
        self._retry_seconds = min(retry_seconds, source.fresh_seconds)
        self._monotonic = monotonic
        self._document = b""
        self._keys: dict[str | None, PyJWK] = {}
        self._loaded_at: float | None = None
        self._tried_at: float | None = None
        self._loading: asyncio.Task[None] | None = None
        self.generation = 0
        """Grows whenever other keys are loaded: what was verified before has to be verified again."""

    @property
    def fresh(self) -> bool:
        """Whether the keys may be used without a look at the source."""
        now = self._monotonic()
        if self._loaded_at is not None and now - self._loaded_at <= self._source.fresh_seconds:
            return True
        # Where the source is being asked, or failed just now, the old keys do until it is asked again.
        tried = self._tried_at is not None and now - self._tried_at <= self._retry_seconds
        return bool(self._keys) and (tried or self._loading is not None)

    async def key(self, key_id: str | None) -> PyJWK | None:
        """Return the key with this id, None where there is none. Without an id: the only key there is.

        Raises:
            Unavailable: no keys could be loaded yet.
        """
        if not self.fresh or self._find(key_id) is None:
            await self._load()
        if not self._keys:
            raise Unavailable("the keys that tokens are checked with can't be loaded")
        return self._find(key_id)

    def _find(self, key_id: str | None) -> PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _load(self) -> None:
        if self._loading is None:
            now = self._monotonic()
            if self._tried_at is not None and now - self._tried_at <= self._retry_seconds:
                return
            self._tried_at = now
            self._loading = asyncio.create_task(self._load_now(now))
        # A caller that goes away, or loses patience, mustn't take with it what all others wait for.
        await asyncio.wait([self._loading], timeout=self._patience)

    async def _load_now(self, now: float) -> None:
        try:
            document = await asyncio.to_thread(self._source.load)
            if document != self._document:
                self._keys = _keys_of(document)
                self._document = document
                self.generation += 1
            self._loaded_at = now
        except Exception as error:
            # Whatever a provider may send: it must not reach those who wait for keys.
            _log.error("keys can't be loaded, %s are kept: %s", len(self._keys), shown(str(error)))
        finally:
            self._loading = None


def _keys_of(document: bytes) -> dict[str | None, PyJWK]:
    content: Any = json.loads(document)
    if not isinstance(content, dict):
        raise ValueError("not a JWKS document")
    keys = PyJWKSet.from_dict(content).keys
    signing = (key for key in keys if key.public_key_use in ("sig", None) and key.algorithm_name in ALGORITHMS)
    return {key.key_id: key for key in signing}
