"""Release Services: where OS profile manifests come from. Names are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from edge_day2.errors import MissingExtra

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
_PACKAGES: Final = ("requests", "tenacity")


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise MissingExtra(error.name, "oci") from error
    found: object = getattr(module, name)
    return found
