"""A Release Service in an OCI registry: what is read of a well-behaved one, and what a bad one can't do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.release_service import OciReleaseService, ReadLimits
from edge_day2.errors import Internal, InvalidProfile, InvalidValue, NotFound, Unauthenticated, Unavailable
from edge_day2.ports.release_service import FetchedManifest, RejectedManifest
from registry_server import MANIFEST, PREFIX, FakeRegistry, Reply, digest_of, image_manifest, serving_registry

HASTY = ReadLimits(attempts=3, first_wait_seconds=0.001, longest_wait_seconds=0.01)
UBUNTU = f"v2/{PREFIX}/ubuntu"
PROFILES = ("microvisor", "ubuntu")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with serving_registry() as registry:
        registry.publish("ubuntu", {"0.9.9": "ubuntu 9", "0.9.10": "ubuntu 10", "main": "ubuntu main"})
        registry.publish("microvisor", {"0.9.9": "microvisor 9"})
        registry.say("/v2/_catalog", Reply(json.dumps({"repositories": [f"{PREFIX}/ubuntu", "other/thing"]}).encode()))
        yield registry


@pytest.fixture
def service(registry: FakeRegistry) -> Iterator[OciReleaseService]:
    with OciReleaseService(registry.address, profiles=PROFILES, limits=HASTY) as service:
        yield service


def read(service: OciReleaseService, revision: str) -> list[tuple[str, str, str]]:
    """What can be read, as (revision, name, text)."""
    return [
        (item.revision, item.name, item.text)
        for item in service.manifests(revision)
        if isinstance(item, FetchedManifest)
    ]


def rejected(service: OciReleaseService, revision: str) -> dict[str, Exception]:
    return {item.name: item.error for item in service.manifests(revision) if isinstance(item, RejectedManifest)}


def test_revisions_are_the_tags_of_all_profiles_oldest_first(service: OciReleaseService) -> None:
    assert service.revisions() == ("0.9.9", "0.9.10", "main")


def test_a_revision_is_the_first_layer_of_each_profile_that_has_the_tag(service: OciReleaseService) -> None:
    assert read(service, "0.9.9") == [
        ("0.9.9", "microvisor.yaml", "microvisor 9"),
        ("0.9.9", "ubuntu.yaml", "ubuntu 9"),
    ]
    assert read(service, "main") == [("main", "ubuntu.yaml", "ubuntu main")]


def test_a_selector_picks_from_each_profile_its_own_tags_oldest_first(service: OciReleaseService) -> None:
    assert [(revision, name) for revision, name, _ in read(service, "~0.9.0")] == [
        ("0.9.9", "microvisor.yaml"),
        ("0.9.9", "ubuntu.yaml"),
        ("0.9.10", "ubuntu.yaml"),
    ]


def test_an_exact_revision_asks_for_no_list_of_tags(service: OciReleaseService, registry: FakeRegistry) -> None:
    read(service, "0.9.10")
    assert not [path for path in registry.paths() if path.endswith("/tags/list")]


def test_without_names_the_catalog_says_what_is_published(registry: FakeRegistry) -> None:
    with OciReleaseService(registry.address, limits=HASTY) as service:
        assert [name for _, name, _ in read(service, "0.9.9")] == ["ubuntu.yaml"]
        named = service.manifests("0.9.9", ["microvisor", "../etc"])
        assert [item.name for item in named] == ["microvisor.yaml"]


def test_a_registry_without_a_catalog_asks_for_the_names(registry: FakeRegistry) -> None:
    registry.say("/v2/_catalog", Reply(b"{}", 404))
    with OciReleaseService(registry.address, limits=HASTY) as service, pytest.raises(Unavailable, match="names"):
        service.manifests("0.9.9")


def test_a_revision_that_nobody_published_is_not_found(service: OciReleaseService) -> None:
    with pytest.raises(NotFound, match=r"0\.8\.0"):
        service.manifests("0.8.0")


@pytest.mark.parametrize("revision", ["..", "0.9.9/../../etc", "", "~1"])
def test_a_revision_is_never_a_path(service: OciReleaseService, registry: FakeRegistry, revision: str) -> None:
    with pytest.raises(InvalidValue):
        service.manifests(revision)
    assert registry.requests == []


def test_lists_come_in_pages(registry: FakeRegistry, service: OciReleaseService) -> None:
    follow = {"Link": f'</{UBUNTU}/tags/list?last=0.9.9>; rel="next"'}
    registry.say(f"/{UBUNTU}/tags/list", Reply(b'{"tags": ["0.9.9"]}', headers=follow))
    registry.say(f"/{UBUNTU}/tags/list?last=0.9.9", Reply(b'{"tags": ["0.9.10"]}'))
    assert service.revisions() == ("0.9.9", "0.9.10")


def test_a_list_that_never_ends_is_given_up(registry: FakeRegistry, service: OciReleaseService) -> None:
    follow = {"Link": f'</{UBUNTU}/tags/list>; rel="next"'}
    registry.say(f"/{UBUNTU}/tags/list", Reply(b'{"tags": []}', headers=follow))
    with pytest.raises(Unavailable, match="100 pages"):
        service.revisions()


def test_a_page_on_another_host_is_not_asked_for(registry: FakeRegistry, service: OciReleaseService) -> None:
    with serving_registry() as elsewhere:
        follow = {"Link": f'<{elsewhere.address}/{UBUNTU}/tags/list>; rel="next"'}
        registry.say(f"/{UBUNTU}/tags/list", Reply(b'{"tags": []}', headers=follow))
        with pytest.raises(Unavailable, match="nor on an allowed host"):
            service.revisions()
        assert elsewhere.requests == []


def test_a_busy_registry_is_asked_again(registry: FakeRegistry, service: OciReleaseService) -> None:
    path = f"/{UBUNTU}/manifests/main"
    good = registry.replies[path][0]
    registry.say(path, Reply(b"", 503), Reply(b"", 429, {"Retry-After": "1"}), good)
    assert read(service, "main") == [("main", "ubuntu.yaml", "ubuntu main")]


def test_an_answer_that_is_cut_short_is_asked_for_again(registry: FakeRegistry, service: OciReleaseService) -> None:
    path = f"/{UBUNTU}/blobs/{digest_of(b'ubuntu main')}"
    registry.say(path, Reply(b"ubu", content_length=11), Reply(b"ubuntu main"))
    assert read(service, "main") == [("main", "ubuntu.yaml", "ubuntu main")]


def test_one_bad_profile_never_stops_the_rest(registry: FakeRegistry, service: OciReleaseService) -> None:
    registry.say(f"/v2/{PREFIX}/microvisor/manifests/0.9.9", Reply(b"", 500))
    assert read(service, "0.9.9") == [("0.9.9", "ubuntu.yaml", "ubuntu 9")]
    assert isinstance(rejected(service, "0.9.9")["microvisor"], Unavailable)
    registry.say(f"/v2/{PREFIX}/microvisor/tags/list", Reply(b"not JSON"))
    assert isinstance(rejected(service, "~0.9.0")["microvisor"], Internal)


def test_a_registry_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with serving_registry() as registry:
        address = registry.address
    with OciReleaseService(address, profiles=PROFILES, limits=HASTY) as service:
        with pytest.raises(Unavailable):
            service.revisions()
        with pytest.raises(Unavailable):
            service.manifests("0.9.9")


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(b"<html>log in</html>"), "digest"),
        (Reply(b"ubuntu 10"), "digest"),
        (Reply(b"", 200), "digest"),
        (Reply(b"x" * 300_000), "more than"),
        (Reply(b"", 403), "403"),
        (Reply(b"", 418), "418"),
        (Reply(b"", 302, {"Location": "http://127.0.0.1:1/elsewhere"}), "allowed host"),
        (Reply(b"", 302, {"Location": "file:///etc/passwd"}), "allowed host"),
        (Reply(b"", 302, {"Location": "http://[nonsense"}), "allowed host"),
        (Reply(b"", 302, {"Location": "?again"}), "redirects"),
    ],
)
def test_a_blob_that_isn_t_what_the_manifest_says_is_rejected(
    registry: FakeRegistry, service: OciReleaseService, reply: Reply, says: str
) -> None:
    path = f"/{UBUNTU}/blobs/{digest_of(b'ubuntu main')}"
    registry.say(path, reply)
    registry.say(f"{path}?again", reply)
    assert says in str(rejected(service, "main")["ubuntu.yaml"])


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (b"[]", "JSON object"),
        (b"[" * 100_000, "JSON"),
        (b'{"layers": []}', "no layer"),
        (b'{"layers": {"0": 1}}', "no layer"),
        (b'{"layers": [{"digest": "sha256:../../../etc/passwd", "size": 1}]}', "digest"),
        (json.dumps({"layers": [{"digest": digest_of(b""), "size": 0}]}).encode(), "title"),
        (image_manifest([("ubuntu.yaml", b"x" * 300_000)]), "300000 bytes"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_rejected(
    registry: FakeRegistry, service: OciReleaseService, manifest: bytes, says: str
) -> None:
    registry.say(f"/{UBUNTU}/manifests/main", Reply(manifest, headers={"Content-Type": MANIFEST}))
    assert says in str(rejected(service, "main")["ubuntu"])


def test_a_manifest_of_another_media_type_or_digest_is_rejected(
    registry: FakeRegistry, service: OciReleaseService
) -> None:
    good = registry.replies[f"/{UBUNTU}/manifests/main"][0]
    registry.say(f"/{UBUNTU}/manifests/main", Reply(good.content, headers={"Content-Type": "text/html"}))
    assert "media type" in str(rejected(service, "main")["ubuntu"])
    other = {**good.headers, "Docker-Content-Digest": digest_of(b"other")}
    registry.say(f"/{UBUNTU}/manifests/main", Reply(good.content, headers=other))
    assert "digest" in str(rejected(service, "main")["ubuntu"])


def test_a_manifest_that_is_not_text_is_rejected(registry: FakeRegistry, service: OciReleaseService) -> None:
    content = b"\xff\xfe"
    manifest = image_manifest([("ubuntu.yaml", content)])
    registry.say(f"/{UBUNTU}/manifests/main", Reply(manifest, headers={"Content-Type": MANIFEST}))
    registry.say(f"/{UBUNTU}/blobs/{digest_of(content)}", Reply(content))
    assert isinstance(rejected(service, "main")["ubuntu.yaml"], InvalidProfile)


def test_a_title_is_a_name_and_never_a_path(registry: FakeRegistry, service: OciReleaseService) -> None:
    registry.publish("ubuntu", {"main": "text"}, title="../../ubuntu.yaml")
    assert read(service, "main") == [("main", "ubuntu.yaml", "text")]


def test_an_allowed_host_may_hold_the_blobs_and_never_sees_the_token(registry: FakeRegistry, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    path = f"/{UBUNTU}/blobs/{digest_of(b'ubuntu main')}"
    with serving_registry() as elsewhere:
        registry.say(path, Reply(b"", 307, {"Location": elsewhere.address + "/blob"}))
        elsewhere.say("/blob", Reply(b"ubuntu main"))
        with OciReleaseService(
            registry.address, profiles=PROFILES, token_file=token, allowed_hosts=[elsewhere.host], limits=HASTY
        ) as service:
            assert read(service, "main") == [("main", "ubuntu.yaml", "ubuntu main")]
        assert {headers.get("authorization") for _, headers in registry.requests} == {"Bearer secret"}
        assert [headers.get("authorization") for _, headers in elsewhere.requests] == [None]


def test_what_comes_with_a_redirect_is_not_read(registry: FakeRegistry, service: OciReleaseService) -> None:
    path = f"/{UBUNTU}/blobs/{digest_of(b'ubuntu main')}"
    registry.say(path, Reply(b"", 302, {"Location": "/elsewhere"}, content_length=1 << 40))
    registry.say("/elsewhere", Reply(b"ubuntu main"))
    assert read(service, "main") == [("main", "ubuntu.yaml", "ubuntu main")]


def test_the_token_file_is_read_for_every_request(registry: FakeRegistry, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    with OciReleaseService(registry.address, profiles=PROFILES, token_file=token, limits=HASTY) as service:
        service.revisions()
        token.write_text("new")
        service.revisions()
        token.unlink()
        with pytest.raises(Unavailable, match="token file"):
            service.revisions()
    assert {headers["authorization"] for _, headers in registry.requests} == {"Bearer old", "Bearer new"}


def ask_for_token(registry: FakeRegistry, realm: str) -> None:
    """Let the registry want a token of its token service."""

    def guard(path: str, headers: dict[str, str]) -> Reply | None:
        if path.startswith("/v2/") and headers.get("authorization") != "Bearer given":
            challenge = f'Bearer realm="{realm}",service="tests",scope="repository:x:pull"'
            return Reply(b"", 401, {"WWW-Authenticate": challenge})
        return None

    registry.guard = guard


def test_an_anonymous_token_is_fetched_where_the_registry_asks_for_one(
    registry: FakeRegistry, service: OciReleaseService
) -> None:
    ask_for_token(registry, registry.address + "/token")
    scopes = [
        f"/token?service=tests&scope=repository%3A{PREFIX.replace('/', '%2F')}%2F{name}%3Apull" for name in PROFILES
    ]
    for path in scopes:
        registry.say(path, Reply(b'{"token": "given", "expires_in": 300}'))
    assert len(read(service, "0.9.9")) == 2
    assert len(read(service, "0.9.9")) == 2
    assert [path for path in registry.paths() if path.startswith("/token")] == scopes


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"\xff", b'{"token": 5}', b'{"token": "a\\nb"}', b"[" * 60_000])
def test_a_token_service_that_gives_none_is_said(
    registry: FakeRegistry, service: OciReleaseService, answer: bytes
) -> None:
    ask_for_token(registry, registry.address + "/token?x=1")
    scope = f"repository%3A{PREFIX.replace('/', '%2F')}%2Fubuntu%3Apull"
    registry.say(f"/token?x=1&service=tests&scope={scope}", Reply(answer))
    assert "gave no token" in str(rejected(service, "0.9.9").get("ubuntu"))


@pytest.mark.parametrize("term", ["1" + "0" * 400, "1e999", "NaN", "-1", '"soon"', "null", "true"])
def test_a_token_with_a_term_that_makes_no_sense_is_used(
    registry: FakeRegistry, service: OciReleaseService, term: str
) -> None:
    ask_for_token(registry, registry.address + "/token?x=1")
    for name in PROFILES:
        scope = f"repository%3A{PREFIX.replace('/', '%2F')}%2F{name}%3Apull"
        answer = f'{{"token": "given", "expires_in": {term}}}'.encode()
        registry.say(f"/token?x=1&service=tests&scope={scope}", Reply(answer))
    assert len(read(service, "0.9.9")) == 2


def test_a_token_service_on_a_host_that_is_not_allowed_is_not_asked(
    registry: FakeRegistry, service: OciReleaseService
) -> None:
    with serving_registry() as elsewhere:
        ask_for_token(registry, elsewhere.address + "/token")
        with pytest.raises(Unavailable, match="token service"):
            service.manifests("0.9.9")
        assert elsewhere.requests == []


def test_a_401_without_a_challenge_is_unauthenticated(registry: FakeRegistry, service: OciReleaseService) -> None:
    registry.say(f"/{UBUNTU}/manifests/0.9.9", Reply(b"", 401))
    assert isinstance(rejected(service, "0.9.9")["ubuntu"], Unauthenticated)


@pytest.mark.parametrize("address", ["", "http_reader", "ftp://registry", "https://a:b@registry", "http://[x"])
def test_an_address_that_makes_no_sense_is_refused(address: str) -> None:
    with pytest.raises(InvalidValue, match="base_url"):
        OciReleaseService(address)


def test_names_that_no_repository_has_are_refused_and_a_token_without_encryption_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="repository"):
        OciReleaseService("https://registry.example", repository="../x")
    with pytest.raises(InvalidValue, match="profiles"):
        OciReleaseService("https://registry.example", profiles=["a/../b"])
    with pytest.raises(InvalidValue, match="https"):
        OciReleaseService("http://registry.example", token_file=tmp_path / "token")


def cached(registry: FakeRegistry, folder: Path) -> OciReleaseService:
    return OciReleaseService(registry.address, profiles=PROFILES, cache=folder, limits=HASTY)


def test_with_a_cache_tags_are_asked_for_with_their_validator_and_layers_once(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    for _ in range(2):
        with cached(registry, tmp_path / "cache") as service:
            assert len(read(service, "0.9.9")) == 2
    asked = [headers.get("if-none-match") for path, headers in registry.requests if "/manifests/" in path]
    assert asked[:2] == [None, None]
    assert all(etag is not None for etag in asked[2:])
    assert len([path for path in registry.paths() if "/blobs/" in path]) == 2


def test_a_tag_that_was_moved_is_followed(registry: FakeRegistry, tmp_path: Path) -> None:
    with cached(registry, tmp_path) as service:
        assert read(service, "main") == [("main", "ubuntu.yaml", "ubuntu main")]
        registry.publish("ubuntu", {"main": "moved"})
        assert read(service, "main") == [("main", "ubuntu.yaml", "moved")]


def test_what_is_damaged_in_the_cache_is_read_again(registry: FakeRegistry, tmp_path: Path) -> None:
    with cached(registry, tmp_path) as service:
        before = read(service, "0.9.9")
        for path in tmp_path.iterdir():
            path.write_bytes(path.read_bytes()[:-1])
        assert read(service, "0.9.9") == before


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with cached(registry, tmp_path / "file") as service:
        assert len(read(service, "0.9.9")) == 2


def test_a_cache_does_not_grow_for_ever(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_day2.adapters.release_service.download_cache._MOST_FILES", 20)
    with cached(registry, tmp_path) as service:
        for number in range(50):
            registry.publish("ubuntu", {"main": f"text {number}"})
            assert read(service, "main") == [("main", "ubuntu.yaml", f"text {number}")]
    assert len(list(tmp_path.iterdir())) <= 20


def test_several_threads_may_read_at_once(registry: FakeRegistry, tmp_path: Path) -> None:
    seen: list[int] = []
    with cached(registry, tmp_path) as service:
        threads = [threading.Thread(target=lambda: seen.append(len(read(service, "~0.9.0")))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == [3] * 6
