"""What strangers and broken clients may do to the port: agents are answered all the same."""

from __future__ import annotations

import base64
import os
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from edge_day2.adapters.grpc import RetryPolicy, ServerLimits
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
        socket.create_connection(("localhost", server.port), timeout=120) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        yield wrapped


def is_well(server: RunningServer) -> bool:
    """Return whether an agent is answered, which comes again where a deadline was too short for this machine."""
    retry = RetryPolicy(attempts=50, first_wait_seconds=0.05, longest_wait_seconds=0.2, deadline_seconds=120)
    with server.link(retry=retry) as link:
        return link.platform_update_status(IDLE).os_profile_update_source is not None


def closed(connection: socket.socket) -> bool:
    """Wait until the server closes a connection."""
    connection.settimeout(120)
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
            with socket.create_connection(("localhost", server.port), timeout=120) as connection:
                connection.sendall(chance.randbytes(chance.randrange(1, 5000)))
        for start in (b"", PREFACE, PREFACE + SETTINGS):
            for _ in range(10):
                with encrypted(server) as inside:
                    inside.sendall(start + chance.randbytes(chance.randrange(1, 5000)))

        assert is_well(server)


def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    with serving(tmp_path, limits=ServerLimits(handshake_seconds=0.5)) as server:
        with socket.create_connection(("localhost", server.port)) as silent:
            assert closed(silent)
        # On a slow machine TLS itself takes longer than is allowed.
        with suppress(ConnectionError, ssl.SSLError), encrypted(server) as mute:
            assert closed(mute)
        assert is_well(server)


def test_a_handshake_that_comes_drop_by_drop_is_closed(tmp_path: Path) -> None:
    with serving(tmp_path, limits=ServerLimits(handshake_seconds=0.5)) as server:
        with socket.create_connection(("localhost", server.port), timeout=120) as slow:
            slow.sendall(b"\x16\x03\x01\x02")

            assert closed(slow)
        assert is_well(server)


def test_a_stranger_that_never_sends_its_report_is_turned_away_by_its_headers(tmp_path: Path) -> None:
    with serving(tmp_path) as server, channel_of(server) as opened:
        held = Held()
        call = streaming(opened)
        with pytest.raises(grpc.RpcError) as caught:
            call(held, metadata=(("authorization", "Bearer garbage"),), timeout=120)
        held.let_go()

        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_report_that_is_never_sent_has_a_deadline(tmp_path: Path) -> None:
    with serving(tmp_path, limits=ServerLimits(seconds_per_report=0.5)) as server, channel_of(server) as opened:
        held = Held()
        call = streaming(opened)
        with pytest.raises(grpc.RpcError) as caught:
            call(held, metadata=bearer(server), timeout=120)
        held.let_go()

        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no report" in str(caught.value.details())


def test_reports_that_are_never_sent_by_a_known_agent_end_with_their_connection(tmp_path: Path) -> None:
    limits = ServerLimits(connection_seconds=1.0, seconds_per_report=1.0)
    with serving(tmp_path, limits=limits) as server, channel_of(server) as opened:
        known = bearer(server)
        with suppress(grpc.RpcError):
            unary(opened)(encode_request(IDLE), metadata=known)
        helds = [Held() for _ in range(10)]
        # Without a deadline of their own: the server alone ends them.
        calls = [streaming(opened).future(held, metadata=known) for held in helds]

        assert is_well(server)
        assert all(call.exception(timeout=120) is not None for call in calls)
        for held in helds:
            held.let_go()


def test_more_connections_than_are_allowed_are_closed_and_come_in_when_others_have_left(tmp_path: Path) -> None:
    with serving(tmp_path, limits=ServerLimits(connections=3, handshake_seconds=120)) as server:
        with ExitStack() as crowd:
            # One kind of address, since each has a limit of its own.
            family, *_, address = socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM)[0]
            sockets = [crowd.enter_context(socket.socket(family)) for _ in range(4)]
            for one in sockets:
                one.connect(address)

            assert closed(sockets[3])
        assert is_well(server)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("[" * 9_000, id="deep header"),
        pytest.param('{"alg":"ES256","kid":["key-1"]}', id="key id of another kind"),
        pytest.param('{"alg":"ES256","kid":"key-1","crit":["exp"],"exp":1}', id="what must be understood and isn't"),
        pytest.param('{"alg":1e999,"kid":"key-1"}', id="no algorithm"),
        pytest.param("\0", id="no JSON"),
    ],
)
def test_a_token_of_any_shape_is_turned_away_with_a_code_that_agents_know(tmp_path: Path, token: str) -> None:
    strange = f"{base64.urlsafe_b64encode(token.encode()).decode().rstrip('=')}.e30.AAAA"
    with serving(tmp_path) as server, channel_of(server) as opened, pytest.raises(grpc.RpcError) as caught:
        unary(opened)(encode_request(IDLE), metadata=(("authorization", f"Bearer {strange}"),), timeout=120)

    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code().name in {"UNAUTHENTICATED", "PERMISSION_DENIED"}
    assert strange not in str(caught.value.details())


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
            unary(opened)(encode_request(IDLE), metadata=(("authorization", "Bearer " + "x" * 200_000),), timeout=120)

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
