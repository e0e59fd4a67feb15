"""Release Services: where OS profile manifests come from. Names are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from edge_day2.errors import MissingExtra

if TYPE_CHECKING:
    from edge_day2.adapters.release_service.directory import DirectoryReleaseService
    from edge_day2.adapters.release_service.oci import OciReleaseService
    from edge_day2.adapters.release_service.registry import RegistryLimits

__all__ = ["DirectoryReleaseService", "OciReleaseService", "RegistryLimits"]

_HOMES: Final = {"DirectoryReleaseService": "directory", "OciReleaseService": "oci", "RegistryLimits": "registry"}
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
