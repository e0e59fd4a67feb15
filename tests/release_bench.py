"""A Release Service and a file server for tests, in memory: what they publish changes, fails and is counted."""

from __future__ import annotations

import bz2
import json
from collections import Counter
from collections.abc import Collection, Iterator

from attrs import Factory, define, field

from edge_day2.adapters.release_service.bzip2 import unpacked
from edge_day2.domain.revisions import revision_order, select_revisions
from edge_day2.errors import EdgeDay2Error, NotFound, Unavailable
from edge_day2.ports.release_service import FetchedManifest, RejectedManifest

CVES = json.dumps([{"cve_id": "CVE-2026-1", "priority": "high", "affected_packages": ["two words"]}]).encode()
PACKAGES = json.dumps({"repo": [{"name": "curl", "version": "8.1 beta"}]}).encode()
OVAL = bz2.compress(
    b"<oval_definitions><definition><title>CVE-2026-2 high</title>"
    b"<reference source='CVE' ref_id='CVE-2026-2'/></definition></oval_definitions>"
)


def manifest(profile: str, version: str, **spec: str) -> str:
    """Return the text of an immutable profile's manifest, or of what `spec` makes of it."""
    content = {
        "profileName": profile,
        "name": f"{profile} {version}",
        "type": "OS_TYPE_IMMUTABLE",
        "provider": "OS_PROVIDER_KIND_INFRA",
        "securityFeature": "SECURITY_FEATURE_NONE",
        "architecture": "x86_64",
        "osImageVersion": version,
        "osImageSha256": "0" * 64,
        "osImageUrl": f"files/{profile}-{version}.raw.gz",
        **spec,
    }
    return "spec:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in content.items())


@define
class ReleaseBench:
    """Publishes manifests by revision and profile, and files by their address.

    An error in the place of a content is what reading it raises, and `down` what asking for anything raises.
    """

    published: dict[tuple[str, str], str | EdgeDay2Error] = Factory(dict)
    content: dict[str, bytes | EdgeDay2Error] = Factory(dict)
    down: Exception | None = None
    asked: int = 0
    downloads: Counter[str] = field(factory=Counter)

    def publish(self, revision: str, profile: str, version: str, **spec: str) -> None:
        self.published[revision, profile] = manifest(profile, version, **spec)

    def revisions(self) -> tuple[str, ...]:
        return tuple(sorted({revision for revision, _ in self.published}, key=revision_order))

    def manifests(
        self, revision: str, profile_names: Collection[str] | None = None
    ) -> Iterator[FetchedManifest | RejectedManifest]:
        self.asked += 1
        if self.down is not None:
            raise self.down
        selected = select_revisions(revision, self.revisions())
        if not selected:
            raise NotFound(f"no revision {revision!r}")
        found: list[FetchedManifest | RejectedManifest] = []
        for (tag, profile), text in self.published.items():
            if tag not in selected or (profile_names is not None and profile not in profile_names):
                continue
            if isinstance(text, EdgeDay2Error):
                found.append(RejectedManifest(revision=tag, name=profile, error=text))
            else:
                found.append(FetchedManifest(revision=tag, name=profile, text=text))
        return iter(sorted(found, key=lambda item: revision_order(item.revision)))

    def read(self, url: str, *, at_most: int) -> Iterator[bytes]:
        self.downloads[url] += 1
        content = self.content.get(url, Unavailable(f"{url}: status 503"))
        if isinstance(content, EdgeDay2Error):
            raise content
        return unpacked(content, url, at_most)
