"""Release Services: where OS profile manifests come from. Names are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edge_day2.adapters.release_service.directory import DirectoryReleaseService

__all__ = ["DirectoryReleaseService"]

_HOMES: Final = {"DirectoryReleaseService": "directory"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
