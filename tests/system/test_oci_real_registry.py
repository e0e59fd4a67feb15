"""The Release Service against a real registry: the one that Debian's package docker-registry installs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from edge_day2.adapters.release_service import OciReleaseService
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.resources import OSResource
from edge_day2.errors import NotFound, Unavailable
from edge_day2.ports.release_service import FetchedManifest
from registry_server import MANIFEST, PREFIX, digest_of, image_manifest

pytestmark = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="needs docker-registry (Debian package docker-registry)"
)

CONFIG = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}
http:
  addr: 127.0.0.1:{port}
"""
PROFILES = Path(__file__).parents[2] / "examples" / "profiles"
TENANT = "0b1d7a7c-35b6-4c93-9b14-3d0f0f8f3c01"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_registry(folder: Path, more: str = "") -> Iterator[str]:
    """The address of a registry that answers."""
    port = free_port()
    config = folder / "config.yml"
    config.write_text(CONFIG.format(folder=folder / "storage", port=port) + more)
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                requests.get(f"{address}/v2/", timeout=5).close()
                break
            except requests.RequestException:
                assert process.poll() is None, (folder / "log").read_text()
                # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the examples' profiles, published as `oras push` does it."""
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        for path in PROFILES.glob("*/*.yaml"):
            publish(address, path.stem, path.parent.name, path.read_bytes())
        yield address


def publish(address: str, profile: str, tag: str, content: bytes) -> None:
    repository = f"{address}/v2/{PREFIX}/{profile}"
    for blob in (content, b"{}"):
        begun = requests.post(f"{repository}/blobs/uploads/", timeout=30)
        begun.raise_for_status()
        place = begun.headers["Location"]
        separator = "&" if "?" in place else "?"
        requests.put(f"{place}{separator}digest={digest_of(blob)}", data=blob, timeout=30).raise_for_status()
    manifest = image_manifest([(f"{profile}.yaml", content)])
    headers = {"Content-Type": MANIFEST}
    requests.put(f"{repository}/manifests/{tag}", data=manifest, headers=headers, timeout=30).raise_for_status()


def test_what_was_published_is_read_byte_for_byte(registry: str) -> None:
    published = {(path.parent.name, path.name): path.read_text() for path in PROFILES.glob("*/*.yaml")}
    with OciReleaseService(registry) as service:
        assert service.revisions() == ("0.9.0", "0.9.8")
        found = {
            (item.revision, item.name): item.text
            for item in service.manifests("~0.9.0")
            if isinstance(item, FetchedManifest)
        }
    assert found == published


def test_the_os_resource_manager_makes_os_resources_of_it(registry: str, tmp_path: Path) -> None:
    with open_inventory("memory://") as inventory:
        for _ in range(2):
            with OciReleaseService(registry, cache=tmp_path) as service:
                manager = OSResourceManager(inventory, service, revision="0.9.8", mode=LinkingMode.MANUAL)
                report = manager.reconcile(TENANT)
            assert report.rejected == ()
        with inventory.reading() as read:
            names = {resource.profile_name for resource in read.all(OSResource, TENANT)}
    assert names == {path.stem for path in (PROFILES / "0.9.8").glob("*.yaml")}


def test_what_nobody_published_is_not_found(registry: str) -> None:
    with OciReleaseService(registry, profiles=["nothing"]) as service:
        assert service.revisions() == ()
        with pytest.raises(NotFound):
            service.manifests("0.9.8")


def test_a_registry_that_wants_a_password_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text("")
    password = f"auth:\n  htpasswd:\n    realm: tests\n    path: {tmp_path / 'htpasswd'}\n"
    with (
        running_registry(tmp_path, password) as address,
        OciReleaseService(address, profiles=["ubuntu"]) as service,
        pytest.raises(Unavailable, match="401"),
    ):
        service.revisions()
