"""A Release Service in a folder: one folder per revision, in it one `<profileName>.yaml` per profile.

For a site without a network, for tests and for the demo. What never lives here: judging a manifest's content.

The folder is trusted to hold manifests, its links aren't: a path that leads out of it is refused, and so is what isn't
a regular file (opening a FIFO would wait for ever) or is larger than a manifest can be.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from edge_day2.domain.profiles import MAX_MANIFEST_CHARACTERS
from edge_day2.domain.revisions import REVISION, revision_order, select_revisions
from edge_day2.errors import EdgeDay2Error, InvalidProfile, NotFound, Unavailable
from edge_day2.ports.release_service import FetchedManifest, RejectedManifest

_SUFFIXES: Final = (".yaml", ".yml")
# UTF-8 needs up to four bytes for a character.
_MAX_BYTES: Final = 4 * MAX_MANIFEST_CHARACTERS


class DirectoryReleaseService:
    """`ReleaseService` over a folder with one folder per revision."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = Path(path)

    def revisions(self) -> tuple[str, ...]:
        """As `ReleaseService.revisions`."""
        root = _resolved(self._root)
        try:
            found = [entry.name for entry in root.iterdir() if REVISION.fullmatch(entry.name) and entry.is_dir()]
        except OSError as error:
            raise Unavailable(f"Release Service folder {self._root}: {error}") from error
        return tuple(sorted(found, key=revision_order))

    def manifests(
        self, revision: str, profile_names: Collection[str] | None = None
    ) -> Iterator[FetchedManifest | RejectedManifest]:
        """As `ReleaseService.manifests`."""
        available = self.revisions()
        selected = select_revisions(revision, available)
        if not selected:
            listed = f"{len(available)} revisions, {available[0]} to {available[-1]}" if available else "no revision"
            raise NotFound(f"revision {revision!r} isn't in Release Service folder {self._root}, which has {listed}")
        return (manifest for chosen in selected for manifest in self._read_revision(chosen, profile_names))

    def _read_revision(
        self, revision: str, profile_names: Collection[str] | None
    ) -> Iterator[FetchedManifest | RejectedManifest]:
        try:
            folder = _inside(self._root, self._root / revision)
            names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(_SUFFIXES))
        except (OSError, Unavailable) as error:
            yield RejectedManifest(revision=revision, name="", error=Unavailable(f"revision {revision!r}: {error}"))
            return
        for name in names:
            if profile_names is not None and name.removesuffix(".yaml").removesuffix(".yml") not in profile_names:
                continue
            try:
                yield FetchedManifest(revision=revision, name=name, text=_read_manifest(self._root, folder / name))
            except EdgeDay2Error as error:
                yield RejectedManifest(revision=revision, name=name, error=error)


def _resolved(root: Path) -> Path:
    try:
        return root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise Unavailable(f"Release Service folder {root}: {error}") from error


def _inside(root: Path, path: Path) -> Path:
    """Return what `path` leads to, which must be inside `root`."""
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise Unavailable(f"{path.name}: {error}") from error
    if not resolved.is_relative_to(_resolved(root)):
        raise Unavailable(f"{path.name} leads out of the Release Service folder {root}")
    return resolved


def read_inside(root: Path, path: Path, *, at_most: int) -> bytes:
    """Return the first `at_most` bytes of a regular file at `path`, which is in the folder `root`.

    Raises:
        Unavailable: it can't be read, isn't a regular file, or leads out of the folder.
    """
    resolved = _inside(root, path)
    try:
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unavailable(f"{path.name} isn't a regular file")
            return file.read(at_most)
    except OSError as error:
        raise Unavailable(f"{path.name}: {error}") from error


def _read_manifest(root: Path, path: Path) -> str:
    content = read_inside(root, path, at_most=_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InvalidProfile("manifest", f"more than {_MAX_BYTES} bytes", f"at most {_MAX_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidProfile("manifest", content[error.start : error.start + 8], "UTF-8 text") from error
