"""Public names of a package that are loaded when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from edge_day2.errors import MissingExtra


def load(
    namespace: dict[str, Any], homes: Mapping[str, str], name: str, *, extra: str = "", packages: Mapping[str, str] = {}
) -> object:
    """Return what `name` names, and keep it in the package's namespace.

    Args:
        namespace: the package's `globals()`.
        homes: the module of each name, within the package.
        name: what is asked for.
        extra: what to install where one of `packages` is missing.
        packages: the packages that the extra installs, by the module that is imported.

    Raises:
        AttributeError: the package has no such name.
        MissingExtra: a package of the extra isn't installed.
    """
    package = namespace["__name__"]
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{package}.{homes[name]}")
    except ModuleNotFoundError as error:
        missing = packages.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        raise MissingExtra(missing, extra) from error
    found: object = getattr(module, name)
    namespace[name] = found
    return found
