"""A real HTTP server for images, which can be told to misbehave once, or always."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import frozen

from edge_day2.testing.local_authority import KeyPair

PIECE = 256 << 10


@frozen(kw_only=True)
class Asked:
    """What one request said."""

    path: str
    host: str
    range: str
    if_range: str
    authorization: str
    accept_encoding: str


class Handler(BaseHTTPRequestHandler):
    """Answers one request: by the server's script while there is one, else as a good server does."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        home = self.server.home
        asked = Asked(
            path=self.path,
            host=self.headers.get("Host", ""),
            range=self.headers.get("Range", ""),
            if_range=self.headers.get("If-Range", ""),
            authorization=self.headers.get("Authorization", ""),
            accept_encoding=self.headers.get("Accept-Encoding", ""),
        )
        home.asked.append(asked)
        misbehave = home.script.popleft() if home.script else home.always
        self.close_connection = True
        try:
            if misbehave is None:
                self.serve()
            else:
                misbehave(self)
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass

    def content(self) -> bytes | Path | None:
        """Return what is at the path that was asked for."""
        return self.server.home.files.get(self.path.partition("?")[0])

    def serve(
        self,
        *,
        most: int | None = None,
        ranges: bool = True,
        shift: int = 0,
        etag: str | None = None,
        rate: int | None = None,
        release: threading.Event | None = None,
    ) -> None:
        """Answer with the file.

        Args:
            most: bytes of the body before the connection is cut, or stalls until `release`.
            ranges: whether a range is honoured.
            shift: added to the start of the range that is answered.
            etag: instead of the right one; "" for none at all.
            rate: bytes per second.
        """
        content = self.content()
        if content is None:
            self.send_error(404)
            return
        total = len(content) if isinstance(content, bytes) else content.stat().st_size
        tag = etag if etag is not None else self.server.home.etag(self.path, content)
        start = 0
        asked = self.headers.get("Range", "")
        if asked and ranges and self.headers.get("If-Range", tag) in (tag, self.server.home.modified):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= total > 0 and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if start:
            start += shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(total - start))
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Last-Modified", self.server.home.modified)
        self.end_headers()
        self._body(content, start, most, rate)
        if release is not None:
            self.wfile.flush()
            release.wait(60)

    def _body(self, content: bytes | Path, start: int, most: int | None, rate: int | None) -> None:
        if isinstance(content, Path):
            with content.open("rb") as file:
                if most is None and rate is None and not isinstance(self.connection, ssl.SSLSocket):
                    self.connection.sendfile(file, start)
                    return
                file.seek(start)
                content, start = file.read(), 0
        body = memoryview(content)[start:]
        body = body if most is None else body[:most]
        piece = PIECE if rate is None else max(rate // 50, 1)
        for begin in range(0, len(body), piece):
            self.wfile.write(body[begin : begin + piece])
            if rate is not None:
                # The rate itself: a fiftieth of a second for a fiftieth of it.
                time.sleep(0.02)

    def end_headers(self) -> None:
        # Said, so that a client doesn't use the connection again while it is closed.
        self.send_header("Connection", "close")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


Misbehaviour = Callable[[Handler], None]


def answers(status: int, **headers: str) -> Misbehaviour:
    """Answer with this status, these headers (_ for -) and no body."""

    def misbehave(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return misbehave


def serves(**how: Any) -> Misbehaviour:
    """Serve the file as `Handler.serve` does with these arguments."""
    return lambda handler: handler.serve(**how)


def hangs_up(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def serves_other(content: bytes, **how: Any) -> Misbehaviour:
    """Serve another file from now on, then as `serves`."""

    def misbehave(handler: Handler) -> None:
        handler.server.home.files[handler.path] = content
        handler.serve(**how)

    return misbehave


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    home: ImageServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes in the middle is none of our business."""


class ImageServer:
    """Serves `files` (path to content) on 127.0.0.1. Use it as a context manager.

    Attributes:
        script: what is done to the next requests, one each.
        always: what is done to all others; None: they are served well.
        asked: what was asked so far.
    """

    def __init__(self, *, tls: KeyPair | None = None) -> None:
        self.files: dict[str, bytes | Path] = {}
        self.script: deque[Misbehaviour] = deque()
        self.always: Misbehaviour | None = None
        self.asked: list[Asked] = []
        self.modified = "Sun, 01 Mar 2026 12:00:00 GMT"
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.home = self
        self._scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def etag(self, path: str, content: bytes | Path) -> str:
        """Return the strong ETag of a file."""
        text = content if isinstance(content, bytes) else f"{path} {content.stat().st_mtime_ns}".encode()
        return f'"{hashlib.sha256(text).hexdigest()[:16]}"'

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
