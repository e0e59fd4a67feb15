"""A signed apt repository on loopback, with packages that the tests build, a throw-away key, and faults to order."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

TOOLS: Final = ("apt-get", "dpkg", "dpkg-deb", "gpg", "gpgconf")
_DATE: Final = "%a, %d %b %Y %H:%M:%S UTC"


def missing_tools() -> str:
    """Return why tests with real apt can't run here, "" where they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(missing)} (Debian or Ubuntu)" if missing else ""


@cache
def architecture() -> str:
    """Return this machine's Debian architecture."""
    return _output("dpkg", "--print-architecture").decode().strip()


def _output(*command: str | Path, home: Path | None = None, text: bytes = b"") -> bytes:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    if home is not None:
        environment["GNUPGHOME"] = str(home)
    done = subprocess.run(command, input=text, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
    return done.stdout


class SigningKey:
    """A GnuPG key that lives as long as the `with` block. `public_key` is armored."""

    def __init__(self, name: str = "edge_day2 tests") -> None:
        # The agent's sockets need a short path.
        self._home = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
        try:
            _output(
                "gpg", "--batch", "--quiet", "--passphrase", "",
                "--quick-generate-key", name, "ed25519", "sign", "never",
                home=self._home,
            )  # fmt: skip
            self.public_key = _output("gpg", "--batch", "--armor", "--export", home=self._home).decode()
            listing = _output("gpg", "--batch", "--with-colons", "--fingerprint", home=self._home).decode()
        except BaseException:
            self.close()
            raise
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def clear_signed(self, text: bytes) -> bytes:
        """Return `text` inside its signature, as an InRelease file is."""
        return _output("gpg", "--batch", "--clearsign", "--digest-algo", "SHA512", home=self._home, text=text)

    def signature(self, text: bytes) -> bytes:
        """Return a signature of `text` for a file beside it."""
        return _output("gpg", "--batch", "--armor", "--detach-sign", home=self._home, text=text)

    def close(self) -> None:
        """End the key's agent and remove the key."""
        subprocess.run(["gpgconf", "--homedir", self._home, "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@frozen(kw_only=True)
class DebPackage:
    """A binary package. Paths in `files` and `conffiles` are absolute; `fields` are more lines of its control file."""

    name: str
    version: str = "1"
    architecture: str = "all"
    depends: str = ""
    files: Mapping[str, str] = field(factory=dict)
    conffiles: Mapping[str, str] = field(factory=dict)
    scripts: Mapping[str, str] = field(factory=dict)
    fields: Mapping[str, str] = field(factory=dict)
    installed_size: int = 1

    @property
    def file_name(self) -> str:
        """The name that apt gives the file in its archive."""
        version = self.version.replace(":", "%3a")
        return f"{self.name}_{version}_{self.architecture}.deb"

    def control(self) -> dict[str, str]:
        """Return the fields of its control file."""
        return {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": "edge_day2 tests <tests@example.org>",
            "Installed-Size": str(self.installed_size),
            "Description": f"{self.name} of a test",
            **({"Depends": self.depends} if self.depends else {}),
            **self.fields,
        }

    def build(self, folder: Path) -> Path:
        """Make the .deb file in `folder` with dpkg-deb and return its path."""
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch) / "package"
            debian = tree / "DEBIAN"
            debian.mkdir(parents=True)
            debian.joinpath("control").write_text(_paragraph(self.control()))
            if self.conffiles:
                debian.joinpath("conffiles").write_text("".join(f"{path}\n" for path in self.conffiles))
            for name, script in self.scripts.items():
                debian.joinpath(name).write_text(f"#!/bin/sh\n{script}\n")
                debian.joinpath(name).chmod(0o755)
            own = {f"/usr/share/{self.name}/version": f"{self.version}\n"}
            for path, content in {**own, **self.files, **self.conffiles}.items():
                target = tree / path.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(content)
            deb = folder / self.file_name
            _output("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, deb)
            return deb


def _paragraph(fields: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        repository = self.server.repository
        repository.requests.append(path)
        file = repository.folder / path
        if path in repository.missing or ".." in path or not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        if path in repository.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if path in repository.stalled:
            self.wfile.flush()
            repository.go_on.wait(600)
        self.wfile.write(content[half:])

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    repository: AptRepository

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed hangs up; that is no news."""


class AptRepository:
    """A repository with one suite `stable` and one component `main`.

    Paths in `missing` get 404, those in `corrupt` one wrong bit, those in `stalled` wait in the middle until `go_on`
    is set; paths are relative to `url`, such as `pool/tool_1_all.deb`. `requests` are the paths that were asked for.
    """

    suite = "stable"
    component = "main"

    def __init__(self, folder: Path, key: SigningKey) -> None:
        self.folder = folder
        self.key = key
        self.missing: set[str] = set()
        self.corrupt: set[str] = set()
        self.stalled: set[str] = set()
        self.go_on = threading.Event()
        self.requests: list[str] = []
        self._index: dict[str, dict[str, str]] = {}
        (folder / "pool").mkdir(parents=True)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.repository = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def index_path(self) -> str:
        """Path of the list of packages."""
        return f"dists/{self.suite}/{self.component}/binary-{architecture()}/Packages"

    def pool_path(self, package: DebPackage) -> str:
        """Return the path of the package's file."""
        return f"pool/{package.file_name}"

    def publish(
        self, *packages: DebPackage, key: SigningKey | None = None, valid_until: datetime | None = None
    ) -> None:
        """Make these the packages of the repository, signed with `key` (the repository's own where none is given)."""
        index = "\n".join(self._index_entry(package) for package in packages).encode()
        suite = self.folder / "dists" / self.suite
        path = self.folder / self.index_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(index)
        release = self._release(index, valid_until).encode()
        signer = key or self.key
        (suite / "Release").write_bytes(release)
        (suite / "Release.gpg").write_bytes(signer.signature(release))
        (suite / "InRelease").write_bytes(signer.clear_signed(release))

    def source(self, signed_by: str | None = None, **changes: str) -> str:
        """Return the repository as a deb822 source, its key inside where `signed_by` names no file."""
        key = signed_by or "".join(f"\n {line or '.'}" for line in self.key.public_key.splitlines())
        fields = {
            "Types": "deb",
            "URIs": self.url,
            "Suites": self.suite,
            "Components": self.component,
            "Signed-By": key,
            **changes,
        }
        return _paragraph(fields)

    def _index_entry(self, package: DebPackage) -> str:
        known = repr(package)
        if known not in self._index:
            content = package.build(self.folder / "pool").read_bytes()
            self._index[known] = {
                **package.control(),
                "Filename": self.pool_path(package),
                "Size": str(len(content)),
                "SHA256": hashlib.sha256(content).hexdigest(),
            }
        return _paragraph(self._index[known])

    def _release(self, index: bytes, valid_until: datetime | None) -> str:
        # An older date than that of the lists which a client has would look like an attack.
        made = min(datetime.now(UTC), (valid_until or datetime.max.replace(tzinfo=UTC)) - timedelta(minutes=1))
        fields = {
            "Origin": "edge_day2 tests",
            "Label": "edge_day2 (tests)",
            "Suite": self.suite,
            "Codename": self.suite,
            "Date": made.strftime(_DATE),
            **({"Valid-Until": valid_until.strftime(_DATE)} if valid_until else {}),
            "Architectures": f"all {architecture()}",
            "Components": self.component,
        }
        listed = self.index_path.removeprefix(f"dists/{self.suite}/")
        return f"{_paragraph(fields)}SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} {listed}\n"


@contextmanager
def apt_repository(folder: Path) -> Iterator[AptRepository]:
    """Serve a repository in `folder` with a key of its own."""
    with SigningKey() as key:
        repository = AptRepository(folder, key)
        try:
            yield repository
        finally:
            repository.close()
