"""Package manifests and lists of CVEs: from a real file server, from a folder, and what becomes of them."""

from __future__ import annotations

import bz2
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.release_service import DirectoryReleaseFiles, HttpReleaseFiles, ReadLimits
from edge_day2.adapters.storage import open_inventory
from edge_day2.errors import Internal, InvalidValue, NotFound, PermissionDenied, Unauthenticated, Unavailable
from edge_day2.ports.release_files import ReleaseFiles
from orchestrator import EDGE, EXAMPLES, NEW_EDGE, manager, os_id, stored
from registry_server import FakeRegistry, Reply, serving_registry

HASTY = ReadLimits(attempts=2, first_wait_seconds=0.001, longest_wait_seconds=0.01)
PLACE = "files-edge-orch/repository/microvisor/non_rt/edge-readonly-3.0.20251204.0140_pkg_manifest.json"
PACKAGES = '{"repo":[{"name":"bash","version":"5"}]}'
CVES = '[{"cve_id":"CVE-2026-1","priority":"low","affected_packages":["bash"]}]'
OVAL = b"""<oval_definitions><definition><title>high</title><description>bash - a shell</description>
<reference source="CVE" ref_id="CVE-2026-2"/></definition></oval_definitions>"""

Put = Callable[[str, bytes], None]


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with serving_registry() as server:
        yield server


@pytest.fixture(params=["folder", "server"])
def source(request: pytest.FixtureRequest, tmp_path: Path, server: FakeRegistry) -> Iterator[tuple[ReleaseFiles, Put]]:
    """Where files come from, and a way to put one there."""
    if request.param == "folder":

        def put_file(path: str, content: bytes) -> None:
            place = tmp_path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

        yield DirectoryReleaseFiles(tmp_path), put_file
        return
    with HttpReleaseFiles(server.address + "/base", limits=HASTY) as files:
        yield files, lambda path, content: server.say(f"/base/{path}", Reply(content))


def read(files: ReleaseFiles, url: str, at_most: int = 1 << 20) -> bytes:
    return b"".join(files.read(url, at_most=at_most))


def test_a_file_is_read_as_it_is(source: tuple[ReleaseFiles, Put]) -> None:
    files, put = source
    put("a/b.json", b"content")
    assert read(files, "a/b.json") == read(files, "/a/b.json") == b"content"


@pytest.mark.parametrize("streams", [1, 3])
def test_a_packed_file_is_unpacked(source: tuple[ReleaseFiles, Put], streams: int) -> None:
    files, put = source
    put("a.bz2", b"".join(bz2.compress(b"content " * 10_000) for _ in range(streams)))
    assert read(files, "a.bz2") == b"content " * 10_000 * streams


def test_what_is_not_there_is_not_found(source: tuple[ReleaseFiles, Put]) -> None:
    with pytest.raises(NotFound):
        read(source[0], "missing.json")


def test_a_bomb_does_not_go_off(source: tuple[ReleaseFiles, Put]) -> None:
    files, put = source
    put("bomb.bz2", bz2.compress(bytes(50 << 20)))
    pieces = files.read("bomb.bz2", at_most=1 << 20)
    with pytest.raises(Internal, match="more than 1048576 bytes"):
        assert all(len(piece) <= 1 << 16 for piece in pieces)


@pytest.mark.parametrize("content", [b"BZh9 and nothing more", bz2.compress(b"x" * 1000)[:-5], b"x" * (2 << 20)])
def test_what_is_torn_or_too_long_is_said(source: tuple[ReleaseFiles, Put], content: bytes) -> None:
    files, put = source
    put("a", content)
    with pytest.raises(Internal):
        read(files, "a")


def test_a_path_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret")
    for url in ("../secret", "link", "https://server/../secret"):
        with pytest.raises(Unavailable):
            read(DirectoryReleaseFiles(tmp_path / "files"), url)


def test_an_address_is_read_where_its_host_is_allowed_and_never_with_the_token(
    server: FakeRegistry, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret")
    with serving_registry() as elsewhere:
        elsewhere.say("/list", Reply(b"list"))
        allowed = [elsewhere.host]
        with HttpReleaseFiles(
            server.address, token_file=tmp_path / "token", allowed_hosts=allowed, limits=HASTY
        ) as files:
            assert read(files, elsewhere.address + "/list") == b"list"
        with (
            HttpReleaseFiles(server.address, limits=HASTY) as files,
            pytest.raises(PermissionDenied, match="allowed host"),
        ):
            read(files, elsewhere.address + "/list")
        assert [headers.get("authorization") for _, headers in elsewhere.requests] == [None]


def test_a_refused_token_is_said(server: FakeRegistry) -> None:
    server.say("/a", Reply(b"", 401))
    with HttpReleaseFiles(server.address, limits=HASTY) as files, pytest.raises(Unauthenticated):
        read(files, "a")


def fill(folder: Path) -> None:
    """Put what the example profiles name into a folder, as far as this test needs it."""
    for path, content in {
        PLACE: PACKAGES.encode(),
        "files-edge-orch/microvisor/iso/EdgeMicrovisorToolkit-3.2_cve.json": CVES.encode(),
        "files-edge-orch/microvisor/iso/EdgeMicrovisorToolkit-3.2_fixed_cves.json": b"not JSON",
        "oval/com.ubuntu.jammy.cve.oval.xml.bz2": bz2.compress(OVAL),
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def test_os_resources_get_the_lists_that_their_profiles_name(tmp_path: Path) -> None:
    fill(tmp_path)
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        subject = manager(inventory, files=DirectoryReleaseFiles(tmp_path))
        report = subject.reconcile("tenant")
        edge = stored(inventory)[os_id(EDGE, NEW_EDGE)]
        assert (edge.installed_packages, edge.existing_cves, edge.fixed_cves) == (PACKAGES, CVES, "")
        ubuntu = next(one for one in stored(inventory).values() if one.profile_name == "ubuntu-22.04-lts-generic")
        assert [cve["cve_id"] for cve in json.loads(ubuntu.existing_cves)] == ["CVE-2026-2"]
        assert {type(item.error) for item in report.rejected} == {InvalidValue, NotFound}
        assert len(stored(inventory)) == len(list((EXAMPLES / "0.9.8").glob("*.yaml")))

        assert subject.reconcile("tenant").patched == ()


def test_a_list_that_changed_is_stored_and_one_that_can_not_be_had_is_kept(tmp_path: Path) -> None:
    fill(tmp_path)
    with open_inventory("memory://") as inventory:
        subject = manager(inventory, files=DirectoryReleaseFiles(tmp_path))
        subject.reconcile("tenant")
        (tmp_path / "files-edge-orch/microvisor/iso/EdgeMicrovisorToolkit-3.2_cve.json").write_text("[]")
        (tmp_path / PLACE).unlink()
        assert os_id(EDGE, NEW_EDGE) in subject.reconcile("tenant").patched
        edge = stored(inventory)[os_id(EDGE, NEW_EDGE)]
        assert (edge.installed_packages, edge.existing_cves) == (PACKAGES, "[]")
        manager(inventory).reconcile("tenant")
        assert stored(inventory)[os_id(EDGE, NEW_EDGE)] == edge


def test_a_file_that_many_profiles_name_is_read_once(server: FakeRegistry) -> None:
    with open_inventory("memory://") as inventory, HttpReleaseFiles(server.address, limits=HASTY) as files:
        manager(inventory, files=files).discover()
    assert len(server.paths()) == len(set(server.paths())) > 3
