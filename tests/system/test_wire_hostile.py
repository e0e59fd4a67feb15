"""What strangers and broken clients may do to the port: agents are answered all the same."""

from __future__ import annotations

import os
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from edge_day2.adapters.grpc import ServerLimits
from edge_day2.adapters.grpc.conversion import encode_request
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import ResourceExhausted
from wire_server import IDLE, RunningServer, bearer, channel_of, says, serving, streaming, unary

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@contextmanager
def encrypted(server: RunningServer) -> Iterator[ssl.SSLSocket]:
    """Open a TLS connection to the server, with HTTP/2 agreed on and nothing said yet."""
    context = ssl.create_default_context(cafile=server.authority.ca)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", server.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        yield wrapped


def is_well(server: RunningServer) -> bool:
    """Return whether an agent is answered."""
    with server.link() as link:
        return link.platform_update_status(IDLE).os_profile_update_source is not None


def closed(connection: socket.socket) -> bool:
    """Wait until the server closes a connection."""
    try:
        while connection.recv(65_536):
            pass
    except (ConnectionError, ssl.SSLError):
        return True
    return True


def test_garbage_on_the_port_disturbs_nobody(tmp_path: Path) -> None:
    chance = random.Random(5)
    with serving(tmp_path) as server:
        for _ in range(20):
            with socket.create_connection(("localhost", server.port), timeout=30) as connection:
                connection.sendall(chance.randbytes(chance.randrange(1, 5000)))
        for start in (b"", PREFACE, PREFACE + SETTINGS):
            for _ in range(10):
                with encrypted(server) as inside:
                    inside.sendall(start + chance.randbytes(chance.randrange(1, 5000)))

        assert is_well(server)


def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    with (
        serving(tmp_path, limits=ServerLimits(handshake_seconds=0.5)) as server,
        socket.create_connection(("localhost", server.port), timeout=30) as silent,
        encrypted(server) as mute,
    ):
        assert is_well(server)
        assert closed(silent)
        assert closed(mute)


def test_a_handshake_that_comes_drop_by_drop_is_closed(tmp_path: Path) -> None:
    with serving(tmp_path, limits=ServerLimits(handshake_seconds=0.5)) as server:
        with socket.create_connection(("localhost", server.port), timeout=30) as slow:
            slow.sendall(b"\x16\x03\x01\x02")

            assert closed(slow)
        assert is_well(server)


def test_a_stranger_that_never_sends_its_report_is_turned_away_by_its_headers(tmp_path: Path) -> None:
    with serving(tmp_path) as server, channel_of(server) as opened:
        held = Held()
        call = streaming(opened)
        with pytest.raises(grpc.RpcError) as caught:
            call(held, metadata=(("authorization", "Bearer garbage"),), timeout=30)
        held.let_go()

        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_report_that_is_never_sent_has_a_deadline(tmp_path: Path) -> None:
    with serving(tmp_path, limits=ServerLimits(seconds_per_report=0.5)) as server, channel_of(server) as opened:
        held = Held()
        call = streaming(opened)
        with pytest.raises(grpc.RpcError) as caught:
            call(held, metadata=bearer(server), timeout=30)
        held.let_go()

        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no report" in str(caught.value.details())


def test_reports_that_are_never_sent_by_a_known_agent_end_with_their_connection(tmp_path: Path) -> None:
    limits = ServerLimits(connection_seconds=0.5, seconds_per_report=0.5)
    with serving(tmp_path, limits=limits) as server, channel_of(server) as opened:
        known = bearer(server)
        unary(opened)(encode_request(IDLE), metadata=known, timeout=30)
        helds = [Held() for _ in range(10)]
        calls = [streaming(opened).future(held, metadata=known, timeout=30) for held in helds]

        assert is_well(server)
        assert {call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
        for held in helds:
            held.let_go()


def test_a_report_of_four_megabytes_is_refused_and_one_just_below_is_not(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.link() as link:
        large = says(UpdateStatusType.STARTED, status_detail="x" * (4 << 20))
        with pytest.raises(ResourceExhausted):
            link.platform_update_status(large)

        below = says(UpdateStatusType.STARTED, status_detail="x" * ((4 << 20) - 200))
        assert link.platform_update_status(below).os_type is OSType.IMMUTABLE


def test_a_compressed_report_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = encode_request(says(UpdateStatusType.STARTED, status_detail="x" * (200 << 20)))
    with serving(tmp_path) as server, channel_of(server) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            unary(opened)(bomb, metadata=bearer(server), compression=grpc.Compression.Gzip, timeout=60)

        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert is_well(server)


def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as server, channel_of(server) as opened:
        with pytest.raises(grpc.RpcError):
            unary(opened)(encode_request(IDLE), metadata=(("authorization", "Bearer " + "x" * 200_000),), timeout=30)

        assert is_well(server)


class Held:
    """A stream of messages that sends none until it is let go."""

    def __init__(self) -> None:
        self._pipe = os.pipe()

    def __iter__(self) -> Held:
        return self

    def __next__(self) -> bytes:
        os.read(self._pipe[0], 1)
        raise StopIteration

    def let_go(self) -> None:
        os.write(self._pipe[1], b"x")
