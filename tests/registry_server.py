"""A registry of the tests: as much of the OCI distribution protocol as is read, and every way to break it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import define, field

PREFIX = "edge-orch/en/files/os-profile"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image_manifest(layers: list[tuple[str, bytes]]) -> bytes:
    """A manifest as `oras push` makes it."""
    described = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest_of(content),
            "size": len(content),
            "annotations": {"org.opencontainers.image.title": title},
        }
        for title, content in layers
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
    return json.dumps(document).encode()


@define
class Reply:
    """What is sent for a path. `content_length` other than the truth cuts the answer short."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(factory=dict)
    content_length: int | None = None


@define
class FakeRegistry:
    """Replies by path. A list of replies is used up one by one; the last one stays."""

    address: str = ""
    replies: dict[str, list[Reply]] = field(factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(factory=list)
    connections: int = 0
    guard: Callable[[str, dict[str, str]], Reply | None] = field(default=lambda path, headers: None)

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")

    def say(self, path: str, *replies: Reply) -> None:
        self.replies[path] = list(replies)

    def publish(self, profile: str, tags: dict[str, str], *, title: str | None = None) -> None:
        """Publish the texts of a profile's revisions."""
        base = f"/v2/{PREFIX}/{profile}"
        self.say(f"{base}/tags/list", Reply(json.dumps({"name": profile, "tags": list(tags)}).encode()))
        for tag, text in tags.items():
            manifest = image_manifest([(title or f"{profile}.yaml", text.encode())])
            headers = {
                "Content-Type": MANIFEST,
                "Docker-Content-Digest": digest_of(manifest),
                "ETag": f'"{digest_of(manifest)}"',
            }
            self.say(f"{base}/manifests/{tag}", Reply(manifest, headers=headers))
            self.say(f"{base}/blobs/{digest_of(text.encode())}", Reply(text.encode()))

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def reply(self, path: str, headers: dict[str, str]) -> Reply:
        self.requests.append((path, headers))
        if (refusal := self.guard(path, headers)) is not None:
            return refusal
        waiting = self.replies.get(path)
        if not waiting:
            return Reply(b'{"errors":[]}', 404)
        reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if reply.headers.get("ETag") and headers.get("if-none-match") == reply.headers["ETag"]:
            return Reply(b"", 304, {"ETag": reply.headers["ETag"]})
        return reply


@contextmanager
def serving_registry() -> Iterator[FakeRegistry]:
    """Serve a registry on loopback."""
    registry = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            registry.connections += 1
            super().setup()

        def do_GET(self) -> None:
            reply = registry.reply(self.path, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(reply.status)
            length = len(reply.content) if reply.content_length is None else reply.content_length
            for name, value in {"Content-Length": str(length), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.content)
            if length != len(reply.content):
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
