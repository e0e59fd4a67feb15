"""Package manifests and lists of CVEs from a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_day2.adapters.release_service.bzip2 import unpacked
from edge_day2.adapters.release_service.directory import read_inside
from edge_day2.errors import Internal, NotFound, shown

_LARGEST_FILE: Final = 64 << 20


class DirectoryReleaseFiles:
    """`ReleaseFiles` in a folder, for a site without a network. Of an address its path counts."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = Path(path)

    def read(self, url: str, *, at_most: int) -> Iterator[bytes]:
        """See `ReleaseFiles.read`."""
        path = self._root / urlsplit(url).path.lstrip("/")
        if not path.exists():
            raise NotFound(f"{self._root} has no file for {shown(url)}")
        content = read_inside(self._root, path, at_most=_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise Internal(f"{shown(url)}: more than {_LARGEST_FILE} bytes")
        return unpacked(content, url, at_most)
