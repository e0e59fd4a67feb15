"""Revisions of the OS profile manifests (osProfileRevision): which ones a setting selects, and their order.

What lives here: names and order of revisions. What never will: how revisions are listed (adapters/release_service).

A setting is either the exact name of a revision or a selector `~X.Y.Z`: every revision X.Y.N with N at least Z. Only
three plain numbers are such a revision: `0.9.9-dev` and `main` can be named, but a selector never picks them. (The
original reads what isn't a number as 0, so that `1.2.3-dev` counts as 1.2.0.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from edge_day2.errors import InvalidValue

# The grammar of an OCI tag, which is what a revision is in a registry.
REVISION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RELEASE: Final = re.compile(r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})")

_Order = tuple[int, tuple[int, ...], str]


def revision_order(revision: str) -> _Order:
    """Return a sort key, oldest first: releases X.Y.Z by their numbers, then the other names by their letters."""
    release = _RELEASE.fullmatch(revision)
    numbers = tuple(int(part) for part in release.groups()) if release else ()
    return 0 if release else 1, numbers, revision


def check_revision(setting: str) -> str:
    """Return `setting` where it is the name of a revision or a selector.

    Raises:
        InvalidValue: it is neither.
    """
    pattern = _RELEASE if setting.startswith("~") else REVISION
    if pattern.fullmatch(setting.removeprefix("~")) is None:
        raise InvalidValue("osProfileRevision", setting, "a revision such as 0.9.8, or a selector such as ~0.9.0")
    return setting


def select_revisions(setting: str, available: Iterable[str]) -> tuple[str, ...]:
    """Return the revisions among `available` that `setting` selects, oldest first; empty where there is none.

    Raises:
        InvalidValue: as `check_revision`.
    """
    check_revision(setting)
    if not setting.startswith("~"):
        return (setting,) if setting in available else ()
    _, (major, minor, patch), _ = revision_order(setting.removeprefix("~"))
    chosen = []
    for revision in available:
        _, numbers, _ = revision_order(revision)
        if numbers[:2] == (major, minor) and numbers[2] >= patch:
            chosen.append(revision)
    return tuple(sorted(chosen, key=revision_order))
