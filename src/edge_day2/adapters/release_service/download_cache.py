"""What was read from a registry before, in a folder: contents by their digest, and which tag meant which.

A cache and nothing more: whatever is damaged, missing or can't be stored is read from the registry once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.errors import Internal, shown

_log: Final = logging.getLogger(__name__)

# Two hundred profiles with five revisions each; a manifest and its layer have a few kilobytes.
_MOST_FILES: Final = 2_000


@frozen(kw_only=True)
class KnownTag:
    """What a tag meant: the digest of its manifest, and the validator that the registry gave for it."""

    etag: str
    digest: str


def check_digest(content: bytes, digest: str) -> bytes:
    """Return `content`, whose digest must be `digest` (`sha256:…` or `sha512:…`).

    Raises:
        Internal: it is another one, or the digest isn't one of these.
    """
    algorithm, _, expected = digest.partition(":")
    if algorithm not in ("sha256", "sha512"):
        raise Internal(f"digest {shown(digest)}: expected sha256 or sha512")
    if (found := hashlib.new(algorithm, content).hexdigest()) != expected:
        raise Internal(f"digest {shown(digest)}: the content has {algorithm}:{found}")
    return content


class DownloadCache:
    """A folder of contents. Several processes may share it. It is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def content(self, digest: str) -> bytes | None:
        """Return the content with this digest, None where it isn't here or is damaged."""
        try:
            return check_digest(self._path(digest).read_bytes(), digest)
        except (OSError, Internal):
            return None

    def keep(self, digest: str, content: bytes) -> None:
        """Store `content`, which has this digest, if possible."""
        self._store(self._path(digest), content)

    def tag(self, url: str) -> KnownTag | None:
        """Return what the tag at `url` meant when it was read last, None where that isn't known."""
        try:
            known = json.loads(self._path(url).read_bytes())
            etag, digest = known["etag"], known["digest"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return KnownTag(etag=etag, digest=digest) if isinstance(etag, str) and isinstance(digest, str) else None

    def keep_tag(self, url: str, known: KnownTag) -> None:
        """Store what the tag at `url` means, if possible."""
        self._store(self._path(url), json.dumps({"etag": known.etag, "digest": known.digest}).encode())

    def _path(self, name: str) -> Path:
        # A digest comes from outside: as a file's name it could lead anywhere.
        return self._folder / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    def _store(self, path: Path, content: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, beside = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                Path(beside).replace(path)
            except BaseException:
                Path(beside).unlink(missing_ok=True)
                raise
            self._forget_oldest()
        except OSError as error:
            _log.warning("not kept in %s: %s", self._folder, error)

    def _forget_oldest(self) -> None:
        files = list(self._folder.iterdir())
        if len(files) <= _MOST_FILES:
            return
        ages: list[tuple[float, Path]] = []
        for path in files:
            # Another process may have forgotten it.
            with contextlib.suppress(FileNotFoundError):
                ages.append((path.stat().st_mtime, path))
        for _, path in sorted(ages)[: len(files) - _MOST_FILES // 2]:
            path.unlink(missing_ok=True)
