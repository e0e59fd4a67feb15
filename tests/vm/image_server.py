"""An HTTP file server with ranges, which can stop in the middle of a file and say so."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
_RANGE: Final = re.compile(r"bytes=(\d+)-")


class ImageServer:
    """Serves files on this machine's loopback. `hold` makes it stop before a byte of the image."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.starts: list[int] = []
        self._hold: int | None = None
        self._reached = threading.Event()
        self._go_on = threading.Event()
        self._go_on.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1]

    @property
    def holding(self) -> bool:
        """Whether somebody waits for the byte of `hold`."""
        return self._reached.is_set()

    def hold(self, byte: int) -> None:
        """Send nothing from this byte on, until `go_on`."""
        self._reached.clear()
        self._go_on.clear()
        self._hold = byte

    def go_on(self) -> None:
        """Send everything."""
        self._hold = None
        self._go_on.set()

    def room_before(self, byte: int) -> int | None:
        """Return how many bytes may be sent from `byte` on, None where there is no limit. Waits where it is none."""
        while (limit := self._hold) is not None:
            if byte < limit:
                return limit - byte
            self._reached.set()
            self._go_on.wait()
        return None

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            self.go_on()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _handler(images: ImageServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            file = images.files.get(self.path.lstrip("/"))
            if file is None:
                self.send_error(404)
                return
            size = file.stat().st_size
            tag = f'"{hashlib.sha256(str(file).encode()).hexdigest()[:16]}-{size}"'
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            if self.headers.get("If-Range", tag) != tag or start >= size:
                asked, start = None, 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(size - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", tag)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            if body:
                images.starts.append(start)
                try:
                    self._send(file, start)
                except OSError:  # the node went away
                    self.close_connection = True

        def _send(self, file: Path, start: int) -> None:
            with file.open("rb") as opened:
                opened.seek(start)
                while True:
                    room = images.room_before(opened.tell())
                    chunk = opened.read(_CHUNK_BYTES if room is None else min(room, _CHUNK_BYTES))
                    if not chunk:
                        return
                    self.wfile.write(chunk)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
