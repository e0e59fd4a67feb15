"""Which image runs, as the running system says."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_day2.adapters.images import RunningSystem
from edge_day2.ports.failures import NodeFailure


@pytest.mark.parametrize(
    ("image_id", "os_release", "expected"),
    [
        (None, 'IMAGE_ID=edge\nIMAGE_VERSION="3.0.20251204.0140"\n', "3.0.20251204.0140"),
        (None, "IMAGE_VERSION='3.1'\r\n", "3.1"),
        ("IMAGE_BUILD_DATE=20251204.0140\n", 'VERSION_ID="3.0"\n', "3.0.20251204.0140"),
        ("IMAGE_BUILD_DATE=3.0.20251204.0140\n", 'VERSION_ID="3.0"\n', "3.0.20251204.0140"),
        ("IMAGE_BUILD_DATE=20251204.0140\n", None, "20251204.0140"),
        ("IMAGE_BUILD_DATE=20251204.0140\n", "IMAGE_VERSION=3.1\n", "3.1"),
        ("IMAGE_VERSION=3.2\n", "IMAGE_VERSION=3.1\n", "3.2"),
        (None, '# IMAGE_VERSION=1\n\nnonsense\nNAME="not closed\n  IMAGE_VERSION=3.1\n', "3.1"),
    ],
)
def test_the_version_is_found(tmp_path: Path, image_id: str | None, os_release: str | None, expected: str) -> None:
    paths = [tmp_path / "image-id", tmp_path / "os-release"]
    for path, text in zip(paths, (image_id, os_release), strict=True):
        if text is not None:
            path.write_text(text)

    assert RunningSystem(paths).image_id() == expected


@pytest.mark.parametrize("text", [None, "", "NAME=Edge\n", "IMAGE_VERSION=\n", "IMAGE_VERSION=two words\n"])
def test_a_system_that_does_not_say_is_a_failure(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "os-release"
    if text is not None:
        path.write_text(text)

    with pytest.raises(NodeFailure, match="os-release"):
        RunningSystem([path]).image_id()


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(NodeFailure, match="directory"):
        RunningSystem([tmp_path]).image_id()
