"""The folder that serves as a Release Service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import edge_day2.adapters.release_service as package
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.domain.profiles import MAX_MANIFEST_CHARACTERS
from edge_day2.errors import EdgeDay2Error, InvalidProfile, InvalidValue, NotFound, Unavailable
from edge_day2.ports.release_service import FetchedManifest, RejectedManifest, ReleaseService


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "profiles"
    for revision in ("0.9.10", "0.9.9", "0.8.0", "main"):
        (root / revision).mkdir(parents=True)
        (root / revision / "ubuntu.yaml").write_text(f"revision: {revision}")
    (root / "0.9.9" / "microvisor.yml").write_text("é", encoding="utf-8")
    (root / "0.9.9" / "notes.txt").write_text("not a manifest")
    (root / "0.9.9" / "deeper").mkdir()
    (root / "README.yaml").write_text("not a revision")
    (root / ".git").mkdir()
    return root


def rejected_in(folder: Path, revision: str) -> dict[str, EdgeDay2Error]:
    service: ReleaseService = DirectoryReleaseService(folder)
    return {item.name: item.error for item in service.manifests(revision) if isinstance(item, RejectedManifest)}


def test_revisions_are_the_folders_oldest_first(folder: Path) -> None:
    assert DirectoryReleaseService(str(folder)).revisions() == ("0.8.0", "0.9.9", "0.9.10", "main")


def test_manifests_are_the_yaml_files_of_the_revision(folder: Path) -> None:
    assert list(DirectoryReleaseService(folder).manifests("0.9.9")) == [
        FetchedManifest(revision="0.9.9", name="microvisor.yml", text="é"),
        FetchedManifest(revision="0.9.9", name="ubuntu.yaml", text="revision: 0.9.9"),
    ]


def test_a_selector_yields_the_manifests_of_all_its_revisions_oldest_first(folder: Path) -> None:
    found = DirectoryReleaseService(folder).manifests("~0.9.0")

    assert [(item.revision, item.name) for item in found] == [
        ("0.9.9", "microvisor.yml"),
        ("0.9.9", "ubuntu.yaml"),
        ("0.9.10", "ubuntu.yaml"),
    ]


def test_only_the_wanted_profiles_are_read(folder: Path) -> None:
    found = DirectoryReleaseService(folder).manifests("~0.9.0", ["microvisor", "unknown"])

    assert [(item.revision, item.name) for item in found] == [("0.9.9", "microvisor.yml")]


def test_a_revision_that_is_not_there_is_not_found_at_once(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"4 revisions, 0\.8\.0 to main"):
        DirectoryReleaseService(folder).manifests("0.7.0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no revision"):
        DirectoryReleaseService(tmp_path / "empty").manifests("~0.7.0")


@pytest.mark.parametrize("revision", ["..", "../elsewhere", "0.9.9/deeper", ""])
def test_a_revision_is_never_a_path(folder: Path, revision: str) -> None:
    with pytest.raises(InvalidValue):
        DirectoryReleaseService(folder).manifests(revision)


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        DirectoryReleaseService(tmp_path / "missing").revisions()


def test_a_file_in_the_place_of_the_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable):
        DirectoryReleaseService(tmp_path / "file").revisions()


def test_a_link_out_of_the_folder_is_refused_and_the_rest_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "0.9.9" / "stolen.yaml").symlink_to(tmp_path / "secret")

    assert list(rejected_in(folder, "0.9.9")) == ["stolen.yaml"]
    assert isinstance(rejected_in(folder, "0.9.9")["stolen.yaml"], Unavailable)
    assert len(list(DirectoryReleaseService(folder).manifests("0.9.9"))) == 3


def test_a_revision_that_leads_out_of_the_folder_is_refused_and_the_others_are_read(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "0.9.11").symlink_to(tmp_path / "elsewhere")

    found = list(DirectoryReleaseService(folder).manifests("~0.9.10"))

    assert [(item.revision, item.name, type(item)) for item in found] == [
        ("0.9.10", "ubuntu.yaml", FetchedManifest),
        ("0.9.11", "", RejectedManifest),
    ]


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    (folder / "latest").symlink_to(folder / "0.9.10")
    (folder / "0.9.10" / "alias.yaml").symlink_to(folder / "0.9.10" / "ubuntu.yaml")

    found = DirectoryReleaseService(folder).manifests("latest")

    assert [item.name for item in found if isinstance(item, FetchedManifest)] == ["alias.yaml", "ubuntu.yaml"]


def test_links_in_a_circle_and_to_nowhere_are_refused(folder: Path) -> None:
    (folder / "0.9.9" / "a.yaml").symlink_to(folder / "0.9.9" / "b.yaml")
    (folder / "0.9.9" / "b.yaml").symlink_to(folder / "0.9.9" / "a.yaml")
    (folder / "0.9.9" / "c.yaml").symlink_to(folder / "0.9.9" / "missing.yaml")

    assert set(rejected_in(folder, "0.9.9")) == {"a.yaml", "b.yaml", "c.yaml"}


def test_what_is_not_a_regular_file_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "0.9.9" / "pipe.yaml")
    (folder / "0.9.9" / "folder.yaml").mkdir()

    assert set(rejected_in(folder, "0.9.9")) == {"pipe.yaml", "folder.yaml"}


def test_a_huge_file_is_refused_by_its_first_bytes(folder: Path) -> None:
    with (folder / "0.9.9" / "huge.yaml").open("wb") as file:
        file.truncate(1 << 40)

    error = rejected_in(folder, "0.9.9")["huge.yaml"]

    assert isinstance(error, InvalidProfile)
    assert error.expected == f"at most {4 * MAX_MANIFEST_CHARACTERS} bytes"


def test_a_file_may_be_as_large_as_the_limit(folder: Path) -> None:
    limit = 4 * MAX_MANIFEST_CHARACTERS
    (folder / "0.9.9" / "largest.yaml").write_text("#" * limit)
    (folder / "0.9.9" / "larger.yaml").write_text("#" * (limit + 1))

    assert list(rejected_in(folder, "0.9.9")) == ["larger.yaml"]


def test_what_is_not_utf_8_is_refused(folder: Path) -> None:
    (folder / "0.9.9" / "latin.yaml").write_bytes(b"name: caf\xe9")

    error = rejected_in(folder, "0.9.9")["latin.yaml"]

    assert isinstance(error, InvalidProfile)
    assert error.value == b"\xe9"


def test_a_revision_that_vanishes_while_reading_is_reported(folder: Path) -> None:
    found = DirectoryReleaseService(folder).manifests("0.8.0")
    (folder / "0.8.0" / "ubuntu.yaml").unlink()
    (folder / "0.8.0").rmdir()

    (item,) = found

    assert isinstance(item, RejectedManifest)
    assert isinstance(item.error, Unavailable)


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="OtherReleaseService"):
        package.OtherReleaseService  # noqa: B018
