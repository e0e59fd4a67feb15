"""The bench itself: a repository that the tests sign, and a root folder in which real apt and dpkg work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apt_repository import AptRepository, DebPackage, SigningKey, apt_repository, missing_tools
from apt_root import AptRoot

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "apt is here")

TOOL = DebPackage(name="tool")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[AptRepository]:
    with apt_repository(tmp_path / "repository") as served:
        yield served


@pytest.fixture
def root(tmp_path: Path) -> AptRoot:
    return AptRoot(tmp_path / "root")


def test_a_package_of_the_repository_can_be_installed(repository: AptRepository, root: AptRoot) -> None:
    repository.publish(TOOL)
    root.use(repository)

    root.apt_get("install", "tool")

    assert root.installed() == {"tool": "1"}


def test_a_release_by_another_key_is_refused(repository: AptRepository, root: AptRoot) -> None:
    with SigningKey("somebody else") as other:
        repository.publish(TOOL, key=other)

    with pytest.raises(AssertionError, match="NO_PUBKEY"):
        root.use(repository)


def test_an_expired_release_is_refused(repository: AptRepository, root: AptRoot) -> None:
    repository.publish(TOOL, valid_until=datetime.now(UTC) - timedelta(days=1))

    with pytest.raises(AssertionError, match="expired"):
        root.use(repository)


def test_an_index_that_was_tampered_with_is_refused(repository: AptRepository, root: AptRoot) -> None:
    repository.publish(TOOL)
    repository.corrupt.add(repository.index_path)

    with pytest.raises(AssertionError, match="Hash Sum mismatch"):
        root.use(repository)


def test_a_package_that_is_gone_can_not_be_installed(repository: AptRepository, root: AptRoot) -> None:
    repository.publish(TOOL)
    root.use(repository)
    repository.missing.add(repository.pool_path(TOOL))

    with pytest.raises(AssertionError, match="404"):
        root.apt_get("install", "tool")
