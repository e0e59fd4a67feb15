"""Keys of an identity provider: when they are loaded, kept and looked for, and over which ways."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

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


@pytest.mark.parametrize("content", ["", "[]", "7", "{}", '{"keys": 7}', '{"keys": [{"kty": "nonsense"}]}', "\0"])
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
