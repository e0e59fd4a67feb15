"""A Release Service in an OCI registry: one repository per profile, one tag per revision, the manifest as first layer.

This is how the original system publishes its OS profiles (`oras push <registry>/<repository>/<profile>:<revision>`).
What lives here: which repository, tag and layer. What never will: HTTP (http_reader.py) and what a manifest says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from attrs import frozen

from edge_day2.adapters.release_service.download_cache import DownloadCache, KnownTag, check_digest
from edge_day2.adapters.release_service.http_reader import HttpReader, ReadLimits
from edge_day2.domain.profiles import MAX_MANIFEST_CHARACTERS
from edge_day2.domain.revisions import REVISION, check_revision, revision_order, select_revisions
from edge_day2.errors import (
    Internal,
    InvalidProfile,
    InvalidValue,
    NotFound,
    PermissionDenied,
    RequestError,
    Unauthenticated,
    Unavailable,
    shown,
)
from edge_day2.ports.release_service import FetchedManifest, RejectedManifest

# UTF-8 needs up to four bytes for a character.
_LARGEST_LAYER: Final = 4 * MAX_MANIFEST_CHARACTERS
# What the specification asks registries to take.
_LARGEST_MANIFEST: Final = 4 << 20
_LARGEST_LIST: Final = 4 << 20
_MOST_PAGES: Final = 100
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TITLE: Final = "org.opencontainers.image.title"
# A repository's name by the specification, and one part of it.
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PROFILE: Final = re.compile(_PART)
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_NEXT: Final = re.compile(r"<([^>]*)>\s*;\s*rel=\"?next\"?", re.IGNORECASE)


@frozen(kw_only=True)
class _Found:
    """The layer that holds a manifest."""

    revision: str
    profile: str
    title: str
    digest: str


class OciReleaseService:
    """`ReleaseService` over an OCI registry. Safe to use from several threads.

    Close it after use, or use it as a context manager.

    Args:
        base_url: the registry's address, `https://registry.example.org` for example.
        repository: what stands before the profile's name in a repository's name.
        profiles: the names of the profiles that are published. None: those of the registry's catalog, which not every
            registry shows.
        token_file: holds a bearer token, read for every request. None: anonymous.
        allowed_hosts: other hosts that the registry may redirect to, or where its token service is.
        ca_bundle: certificates to believe instead of the system's.
        cache: a folder that keeps what was read. A tag is then asked for with its validator, and a layer is read once.
        limits: times and attempts.

    Raises:
        InvalidValue: `base_url`, `repository` or a profile's name makes no sense.
        MissingExtra: requests or tenacity isn't installed (extra `oci`).
    """

    def __init__(
        self,
        base_url: str,
        *,
        repository: str = "edge-orch/en/files/os-profile",
        profiles: Collection[str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        allowed_hosts: Iterable[str] = (),
        ca_bundle: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        limits: ReadLimits = ReadLimits(),  # noqa: B008  # frozen
    ) -> None:
        if _REPOSITORY.fullmatch(repository) is None:
            raise InvalidValue("repository", repository, "a repository's name, parts of lower-case letters and digits")
        for name in profiles or ():
            if _PROFILE.fullmatch(name) is None:
                raise InvalidValue("profiles", name, "profile names of lower-case letters, digits and . _ -")
        self._repository = repository
        self._profiles = None if profiles is None else tuple(sorted(set(profiles)))
        self._cache = None if cache is None else DownloadCache(Path(cache))
        self._registry = HttpReader(
            base_url,
            token_file=None if token_file is None else Path(token_file),
            allowed_hosts=allowed_hosts,
            ca_bundle=None if ca_bundle is None else Path(ca_bundle),
            limits=limits,
        )

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def revisions(self) -> tuple[str, ...]:
        """As `ReleaseService.revisions`: the tags of all profiles. Every one of them must be readable."""
        try:
            found = {tag for profile in self._published() for tag in self._tags(profile)}
        except RequestError as error:
            raise _unavailable(error) from error
        return tuple(sorted(found, key=revision_order))

    def manifests(
        self, revision: str, profile_names: Collection[str] | None = None
    ) -> Iterator[FetchedManifest | RejectedManifest]:
        """As `ReleaseService.manifests`. Tags are resolved at once, layers are read one by one."""
        check_revision(revision)
        found: list[_Found | RejectedManifest] = []
        for profile in self._wanted(profile_names):
            found += self._resolved(profile, revision)
        if not found:
            raise NotFound(f"revision {revision!r} isn't in {self._registry.base_url}{self._repository}")
        failures = [item.error for item in found if isinstance(item, RejectedManifest)]
        if len(failures) == len(found) and all(isinstance(error, _UNREACHABLE) for error in failures):
            raise _unavailable(failures[0])
        found.sort(key=lambda item: revision_order(item.revision))
        return (item if isinstance(item, RejectedManifest) else self._read(item) for item in found)

    def _wanted(self, profile_names: Collection[str] | None) -> list[str]:
        if profile_names is None or self._profiles is not None:
            try:
                published = self._published()
            except RequestError as error:
                raise _unavailable(error) from error
            return [name for name in published if profile_names is None or name in profile_names]
        return sorted(name for name in profile_names if _PROFILE.fullmatch(name))

    def _published(self) -> tuple[str, ...]:
        if self._profiles is not None:
            return self._profiles
        prefix = f"{self._repository}/"
        try:
            names = self._listed("v2/_catalog", "repositories")
        except (NotFound, Unauthenticated, PermissionDenied) as error:
            raise Unavailable(f"{error}; a registry without a catalog needs the profiles' names") from error
        published = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        return tuple(sorted({name for name in published if _PROFILE.fullmatch(name)}))

    def _tags(self, profile: str) -> list[str]:
        try:
            tags = self._listed(f"v2/{self._repository}/{profile}/tags/list", "tags")
        except NotFound:
            return []  # not published, in this registry or yet
        return [tag for tag in tags if REVISION.fullmatch(tag)]

    def _listed(self, path: str, key: str) -> list[str]:
        """Return a list that may come in pages."""
        items: list[str] = []
        for _ in range(_MOST_PAGES):
            answer = self._registry.get(path, at_most=_LARGEST_LIST)
            found = _json(answer.content, path).get(key)
            # A repository whose tags were all deleted says null.
            if not isinstance(found, list) and found is not None:
                raise Internal(f"{path}: {key} is {shown(found)}, expected a list")
            items += [item for item in found or () if isinstance(item, str)]
            following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None:
                return items
            path = following[1]
        raise Internal(f"{path}: more than {_MOST_PAGES} pages")

    def _resolved(self, profile: str, revision: str) -> Iterator[_Found | RejectedManifest]:
        """Yield the layers of a profile in the selected revisions; none where it isn't published in them."""
        tags: tuple[str, ...] = (revision,)
        if revision.startswith("~"):
            try:
                tags = select_revisions(revision, self._tags(profile))
            except RequestError as error:
                yield RejectedManifest(revision=revision, name=profile, error=error)
                return
        for tag in tags:
            try:
                yield self._layer(profile, tag)
            except NotFound:
                continue
            except RequestError as error:
                yield RejectedManifest(revision=tag, name=profile, error=error)

    def _layer(self, profile: str, tag: str) -> _Found:
        path = f"v2/{self._repository}/{profile}/manifests/{tag}"
        manifest = _json(self._manifest(path), path)
        layers = manifest.get("layers")
        first = layers[0] if isinstance(layers, list) and layers else None
        if not isinstance(first, dict):
            raise Internal(f"{path}: no layer, expected the OS profile as the first one")
        digest, size, notes = first.get("digest"), first.get("size"), first.get("annotations")
        title = notes.get(_TITLE) if isinstance(notes, dict) else None
        if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
            raise Internal(f"{path}: the first layer's digest is {shown(digest)}, expected sha256:… or sha512:…")
        if not isinstance(title, str) or not title:
            raise Internal(f"{path}: the first layer has no {_TITLE}")
        if not isinstance(size, int) or not 0 <= size <= _LARGEST_LAYER:
            raise Internal(f"{path}: the first layer has {shown(size)} bytes, expected at most {_LARGEST_LAYER}")
        return _Found(revision=tag, profile=profile, title=title.rpartition("/")[2], digest=digest)

    def _manifest(self, path: str) -> bytes:
        cache, url = self._cache, self._registry.base_url + path
        known = None if cache is None else cache.tag(url)
        before = None if cache is None or known is None else cache.content(known.digest)
        etag = known.etag if known is not None and before is not None else ""
        answer = self._registry.get(path, at_most=_LARGEST_MANIFEST, accept=", ".join(_MANIFESTS), etag=etag)
        if answer.status == 304:
            if before is None:
                raise Internal(f"{path}: not modified, though nothing was known of it")
            return before
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind not in _MANIFESTS:
            raise Internal(f"{path}: media type {shown(kind)}, expected one of {', '.join(_MANIFESTS)}")
        digest = answer.headers.get("Docker-Content-Digest", "")
        if digest:
            check_digest(answer.content, digest)
        if cache is not None and digest and (etag := answer.headers.get("ETag", "")):
            cache.keep(digest, answer.content)
            cache.keep_tag(url, KnownTag(etag=etag, digest=digest))
        return answer.content

    def _read(self, found: _Found) -> FetchedManifest | RejectedManifest:
        try:
            text = self._blob(found).decode("utf-8")
        except UnicodeDecodeError as error:
            wrong = InvalidProfile("manifest", error.object[error.start : error.start + 8], "UTF-8 text")
            return RejectedManifest(revision=found.revision, name=found.title, error=wrong)
        except RequestError as error:
            return RejectedManifest(revision=found.revision, name=found.title, error=error)
        return FetchedManifest(revision=found.revision, name=found.title, text=text)

    def _blob(self, found: _Found) -> bytes:
        if self._cache is not None and (kept := self._cache.content(found.digest)) is not None:
            return kept
        path = f"v2/{self._repository}/{found.profile}/blobs/{found.digest}"
        content = check_digest(self._registry.get(path, at_most=_LARGEST_LAYER).content, found.digest)
        if self._cache is not None:
            self._cache.keep(found.digest, content)
        return content


_UNREACHABLE: Final = (Unavailable, Unauthenticated, PermissionDenied)


def _unavailable(error: Exception) -> Unavailable:
    return error if isinstance(error, Unavailable) else Unavailable(str(error))


def _json(content: bytes, path: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Internal(f"{path}: not JSON: {shown(str(error))}") from error
    if not isinstance(document, dict):
        raise Internal(f"{path}: {shown(document)}, expected a JSON object")
    return document
