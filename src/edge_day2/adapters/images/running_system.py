"""Which image runs, as the running system itself says."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure

_DEFAULT: Final = (Path("/etc/image-id"), Path("/etc/os-release"), Path("/usr/lib/os-release"))


class RunningSystem:
    """Reads the image's version from os-release(5) and the original system's /etc/image-id.

    `IMAGE_VERSION` is the version (of the image `IMAGE_ID`). Without it, an `IMAGE_BUILD_DATE` (20251204.0140) follows
    the `VERSION_ID` (3.0), as in the file names of Edge Microvisor images (3.0.20251204.0140); one of three parts or
    more is the version as it stands. A file that comes first is believed first.

    Args:
        paths: the files, of which any may be missing.
    """

    def __init__(self, paths: Iterable[Path] = _DEFAULT) -> None:
        self._paths = tuple(paths)

    def image_id(self) -> str:
        """Return the version of the running image.

        Raises:
            NodeFailure: no file tells it.
        """
        said: dict[str, str] = {}
        for path in self._paths:
            for name, value in _assignments(path).items():
                said.setdefault(name, value)
        if version := said.get("IMAGE_VERSION", ""):
            return version
        if built := said.get("IMAGE_BUILD_DATE", ""):
            release = said.get("VERSION_ID", "")
            return built if built.count(".") > 1 or not release else f"{release}.{built}"
        paths = ", ".join(map(str, self._paths))
        raise NodeFailure(FailureReason.UNSPECIFIED, f"none of {paths} tells the IMAGE_VERSION or IMAGE_BUILD_DATE")


def _assignments(path: Path) -> Mapping[str, str]:
    """Return what a file of shell-like assignments says, a line that can't be read left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NodeFailure(FailureReason.UNSPECIFIED, str(error)) from error
    found = {}
    for line in lines:
        name, separator, value = line.strip().partition("=")
        if not separator or name.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        found[name] = words[0] if len(words) == 1 else ""
    return found
