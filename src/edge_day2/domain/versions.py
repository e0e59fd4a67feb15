"""Order of image versions (= image ids), such as `3.0.20251204.0140`.

Dotted numbers compare numerically, part by part; a suffix after `-` compares as a pre-release of Semantic Versioning
2.0.0 section 11. What can't be parsed is an error when it enters, never "equal" (in the original an unparsable version
is silently "not greater").
"""

from __future__ import annotations

import functools
import re
from typing import Final

from attrs import field, frozen

from edge_day2.errors import InvalidVersion

_MAX_LENGTH: Final = 128
_VERSION: Final = re.compile(r"(?P<numbers>[0-9]+(?:\.[0-9]+)*)(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?")
_EXPECTED: Final = "dotted numbers with an optional -suffix, such as 3.0.20251204.0140 or 3.1-rc.1"

# A pre-release sorts below its release; numeric identifiers sort below alphanumeric ones.
_Key = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]


def _key(numbers: tuple[int, ...], pre: str) -> _Key:
    significant = len(numbers)
    while significant > 1 and numbers[significant - 1] == 0:
        significant -= 1
    identifiers = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in pre.split(".") if part)
    return numbers[:significant], 0 if identifiers else 1, identifiers


@functools.total_ordering
@frozen(eq=False)
class ImageVersion:
    """An ordered image version. `text` is what was published, kept to the letter.

    Two versions are equal when nothing orders them: `3.0` and `3.0.0`, `3.01` and `3.1`.
    """

    text: str
    _order: _Key = field(repr=False)

    @classmethod
    @functools.lru_cache(maxsize=4096)
    def parse(cls, text: str) -> ImageVersion:
        """Return the version that `text` says.

        Raises:
            InvalidVersion: `text` isn't dotted numbers with an optional suffix, or is longer than 128 characters.
        """
        found = _VERSION.fullmatch(text) if isinstance(text, str) and len(text) <= _MAX_LENGTH else None
        if found is None:
            raise InvalidVersion("image version", text, _EXPECTED)
        numbers = tuple(int(part) for part in found["numbers"].split("."))
        return cls(text, _key(numbers, found["pre"] or ""))

    @property
    def sort_key(self) -> _Key:
        """What orders versions, as plain tuples: quicker to compare many times than versions are."""
        return self._order

    def __eq__(self, other: object) -> bool:
        return self._order == other._order if isinstance(other, ImageVersion) else NotImplemented

    def __lt__(self, other: ImageVersion) -> bool:
        return self._order < other._order if isinstance(other, ImageVersion) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._order)

    def __str__(self) -> str:
        return self.text
