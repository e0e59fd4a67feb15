"""Release Services: where OS profile manifests come from. Names are loaded when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_day2.lazy_names import load

if TYPE_CHECKING:
    from edge_day2.adapters.release_service.directory import DirectoryReleaseService
    from edge_day2.adapters.release_service.directory_files import DirectoryReleaseFiles
    from edge_day2.adapters.release_service.http_files import HttpReleaseFiles
    from edge_day2.adapters.release_service.http_reader import ReadLimits
    from edge_day2.adapters.release_service.oci import OciReleaseService

__all__ = ["DirectoryReleaseFiles", "DirectoryReleaseService", "HttpReleaseFiles", "OciReleaseService", "ReadLimits"]

_HOMES: Final = {
    "DirectoryReleaseFiles": "directory_files",
    "DirectoryReleaseService": "directory",
    "HttpReleaseFiles": "http_files",
    "OciReleaseService": "oci",
    "ReadLimits": "http_reader",
}
_PACKAGES: Final = {"requests": "requests", "tenacity": "tenacity"}


def __getattr__(name: str) -> object:
    return load(globals(), _HOMES, name, extra="oci", packages=_PACKAGES)
