"""The lists of CVEs and packages that OS profiles name: each fetched once, and not again where that is in vain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from edge_day2.application.reconcile_report import ListKey
from edge_day2.application.tenant_rounds import is_temporary
from edge_day2.domain.linking import DiscoveredProfile
from edge_day2.domain.resources import OSType
from edge_day2.domain.software_lists import cve_list, oval_cve_list, package_list
from edge_day2.errors import EdgeDay2Error, InvalidValue, RequestError
from edge_day2.ports.release_files import ReleaseFiles
from edge_day2.ports.release_service import RejectedManifest

# Ubuntu's longest OVAL document has some 500 MB, of which a piece at a time is in memory.
_LARGEST_OVAL: Final = 2 << 30
_LARGEST_JSON: Final = 16 << 20


class ListReader:
    """Reads the lists of one discovery, whose results are in `read`.

    Args:
        files: where they are; None: none is read.
        known: what an earlier discovery read. What failed there for now is fetched again, the rest isn't.
    """

    def __init__(self, files: ReleaseFiles | None, known: Mapping[ListKey, str | EdgeDay2Error]) -> None:
        self._files = files
        self._known = known
        self.read: dict[ListKey, str | EdgeDay2Error] = {}

    def of(self, found: DiscoveredProfile, rejected: list[RejectedManifest]) -> tuple[tuple[str, str], ...]:
        """Return the lists of a profile as (field, text); add to `rejected` what can't be read."""
        texts: list[tuple[str, str]] = []
        for key in _named(found) if self._files is not None else ():
            text = self._text(key)
            field, url, _ = key
            if isinstance(text, EdgeDay2Error):
                name = found.profile.profile_name
                rejected.append(RejectedManifest(revision=found.revision, name=name, error=text, file=url))
            else:
                texts.append((field, text))
        return tuple(texts)

    def _text(self, key: ListKey) -> str | EdgeDay2Error:
        if key not in self.read:
            known = self._known.get(key)
            if known is None or (isinstance(known, EdgeDay2Error) and is_temporary(known)):
                known = self._fetch(*key)
            self.read[key] = known
        return self.read[key]

    def _fetch(self, field: str, url: str, os_type: OSType) -> str | EdgeDay2Error:
        assert self._files is not None
        try:
            if os_type is OSType.MUTABLE:
                return oval_cve_list(self._files.read(url, at_most=_LARGEST_OVAL), fixed=field == "fixed_cves")
            content = b"".join(self._files.read(url, at_most=_LARGEST_JSON))
            return package_list(content) if field == "installed_packages" else cve_list(content)
        except (RequestError, InvalidValue) as error:
            return error


def _named(found: DiscoveredProfile) -> Iterator[ListKey]:
    profile = found.profile
    named = {"existing_cves": profile.existing_cves_url, "fixed_cves": profile.fixed_cves_url}
    if profile.os_type is OSType.IMMUTABLE:
        named["installed_packages"] = profile.package_manifest_url
    for field, url in named.items():
        if url:
            yield field, url, profile.os_type
