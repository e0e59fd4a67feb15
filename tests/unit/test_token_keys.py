"""Keys of an identity provider: when they are loaded, kept and looked for, and over which ways."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from edge_day2.adapters.grpc import JwksFile, JwksUrl
from edge_day2.adapters.grpc.keys import KeyRing
from edge_day2.errors import InvalidValue, Unavailable
from edge_day2.testing.local_authority import LocalAuthority


class Source:
    """An identity provider of which a test knows how often it was asked."""

    fresh_seconds = 100.0

    def __init__(self, authority: LocalAuthority) -> None:
        self.authority = authority
        self.asked = 0
        self.down = False

    def load(self) -> bytes:
        self.asked += 1
        if self.down:
            raise OSError("the identity provider is down")
        return self.authority.jwks.read_bytes()


class Ring:
    """A key ring on a clock that a test moves."""

    def __init__(self, authority: LocalAuthority) -> None:
        self.now = 1000.0
        self.source = Source(authority)
        self.ring = KeyRing(self.source, retry_seconds=10, monotonic=lambda: self.now)

    def knows(self, key_id: str | None = "key-1") -> bool:
        return asyncio.run(self.ring.key(key_id)) is not None


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(LocalAuthority(tmp_path))


def test_keys_are_loaded_once_while_they_are_fresh(ring: Ring) -> None:
    assert ring.knows()
    ring.now += 99
    assert ring.knows()
    assert ring.source.asked == 1


def test_keys_are_loaded_again_when_they_are_old(ring: Ring) -> None:
    assert ring.knows()
    ring.source.authority.rotate_token_key("key-2")
    ring.now += 101
    assert ring.knows("key-2")
    assert not ring.knows("key-1")
    assert ring.ring.generation == 2


def test_the_same_keys_again_are_no_new_generation(ring: Ring) -> None:
    assert ring.knows()
    ring.now += 101
    assert ring.knows()
    assert (ring.source.asked, ring.ring.generation) == (2, 1)


def test_a_key_that_is_missing_is_looked_for_at_once_but_not_again_and_again(ring: Ring) -> None:
    assert ring.knows()
    ring.now += 11
    ring.source.authority.rotate_token_key("key-2")
    assert ring.knows("key-2")
    for number in range(50):
        assert not ring.knows(f"made up {number}")
    assert ring.source.asked == 2


def test_old_keys_are_kept_while_the_provider_is_down(ring: Ring) -> None:
    assert ring.knows()
    ring.source.down = True
    ring.now += 1000
    assert ring.knows()
    assert ring.ring.fresh
    ring.now += 11
    assert not ring.ring.fresh
    assert ring.knows()
    assert ring.source.asked == 3


def test_without_any_keys_it_is_said_that_they_are_missing(ring: Ring) -> None:
    ring.source.down = True

    with pytest.raises(Unavailable, match="can't be loaded"):
        ring.knows()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "7", "{}", '{"keys": 7}', '{"keys": [7]}', '{"keys": [{"kty": "nonsense"}]}', "\0", "[" * 100_000]
    + [f'{{"keys": [{{"kty": {kty}, "kid": [], "n": 7}}]}}' for kty in ('"RSA"', "[]", "{}")],
)
def test_what_is_no_jwks_document_replaces_no_keys(ring: Ring, content: str) -> None:
    assert ring.knows()
    ring.source.authority.jwks.write_text(content)
    ring.now += 101
    assert ring.knows()


def test_calls_at_once_load_keys_once(ring: Ring) -> None:
    async def many() -> None:
        await asyncio.gather(*(ring.ring.key("key-1") for _ in range(20)))

    asyncio.run(many())

    assert ring.source.asked == 1


def test_a_caller_that_goes_away_takes_no_keys_with_it(ring: Ring) -> None:
    async def story() -> None:
        hasty = asyncio.create_task(ring.ring.key("key-1"))
        await asyncio.sleep(0)
        hasty.cancel()
        assert await ring.ring.key("key-1") is not None

    asyncio.run(story())

    assert ring.source.asked == 1


def test_a_file_is_read_as_it_is_now(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    source = JwksFile(path=authority.jwks)
    authority.rotate_token_key("key-2")

    assert json.loads(source.load())["keys"][0]["kid"] == "key-2"


@pytest.mark.parametrize(
    "url", ["http://identity.example.org/certs", "file:///etc/passwd", "ftp://localhost/x", "certs"]
)
def test_keys_over_a_way_that_others_can_change_are_refused(url: str) -> None:
    with pytest.raises(InvalidValue, match="url"):
        JwksUrl(url=url)


class Provider(BaseHTTPRequestHandler):
    """Answers with keys, or sends the client elsewhere."""

    documents: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/certs")
            self.end_headers()
            return
        self.send_response(200 if self.path in self.documents else 404)
        self.end_headers()
        self.wfile.write(self.documents.get(self.path, b""))

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def provider(authority: LocalAuthority) -> Iterator[str]:
    """Serve the authority's keys on this machine; yield the address."""
    Provider.documents = {"/certs": authority.jwks.read_bytes()}
    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_keys_are_loaded_from_a_url(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    with provider(authority) as address:
        assert JwksUrl(url=f"{address}/certs").load() == authority.jwks.read_bytes()


@pytest.mark.parametrize("path", ["/moved", "/nothing"])
def test_a_redirection_and_a_missing_page_are_no_keys(tmp_path: Path, path: str) -> None:
    with provider(LocalAuthority(tmp_path)) as address, pytest.raises(OSError, match="answers with status"):
        JwksUrl(url=f"{address}{path}").load()


def test_a_provider_that_hangs_holds_up_nobody_whose_key_is_known(tmp_path: Path) -> None:
    hangs = threading.Event()

    class Hanging(Source):
        def load(self) -> bytes:
            if self.asked:
                self.asked += 1
                assert hangs.wait(120)
            return super().load()

    async def story() -> None:
        source, now = Hanging(LocalAuthority(tmp_path)), [0.0]
        ring = KeyRing(source, patience_seconds=0.05, monotonic=lambda: now[0])
        assert await ring.key("key-1") is not None
        now[0] += 1000
        try:
            # The first one waits for so long as it has patience, in vain.
            assert await asyncio.wait_for(ring.key("key-1"), 60) is not None
            now[0] += 1000
            assert ring.fresh
            assert await asyncio.wait_for(ring.key("key-1"), 60) is not None
            assert await asyncio.wait_for(ring.key("made up"), 60) is None
        finally:
            hangs.set()
        assert source.asked == 2

    asyncio.run(story())


def test_a_secret_among_the_keys_is_no_key(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    document = json.loads(authority.jwks.read_text())
    secret = {"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
    authority.jwks.write_text(json.dumps({"keys": [secret, *document["keys"]]}))
    ring = Ring(authority)

    assert not ring.knows("secret")
    assert ring.knows("key-1")


@contextmanager
def speaking(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """Take one connection and say what `talk` does; yield the address."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(65_536)
                talk(connection, ended)

        threads.submit(serve)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/certs"
        finally:
            ended.set()


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_a_provider_that_speaks_something_else_is_down(answer: bytes) -> None:
    with speaking(lambda connection, ended: connection.sendall(answer)) as address, pytest.raises(OSError, match=r"."):
        JwksUrl(url=address).load()


def test_a_provider_that_answers_drop_by_drop_is_down() -> None:
    def talk(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not ended.wait(0.02):
            connection.sendall(b" ")

    with speaking(talk) as address, pytest.raises(OSError, match=r"takes longer|timed out"):
        JwksUrl(url=address, timeout_seconds=0.5).load()


def test_keys_on_this_machine_are_not_asked_for_through_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, forger = LocalAuthority(tmp_path), LocalAuthority(tmp_path / "forger")
    forged = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + forger.jwks.read_bytes()
    with provider(authority) as address, speaking(lambda connection, ended: connection.sendall(forged)) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        found = JwksUrl(url=f"{address}/certs").load()
        socket.create_connection(("127.0.0.1", urlsplit(proxy).port or 0)).close()

    assert found == authority.jwks.read_bytes()
