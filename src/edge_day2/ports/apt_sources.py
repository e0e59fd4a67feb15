"""Port: apt's sources and package lists."""

from __future__ import annotations

from typing import Protocol


class AptSourcesPort(Protocol):
    """The set of our own deb822 files in apt's sources."""

    def replace(self, sources: tuple[str, ...]) -> None:
        """Make `sources` our whole set, or leave the old set as it is; then refresh the package lists.

        Raises:
            NodeFailure: a source is malformed, can't be reached, or its signature is wrong. The old set stands.
        """
        ...
