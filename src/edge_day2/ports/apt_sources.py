"""Port: apt's sources and package lists."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class AptSourcesPort(Protocol):
    """The set of our own deb822 files in apt's sources. Files of others are never touched."""

    def replace(self, sources: tuple[str, ...], until: datetime | None) -> None:
        """Make `sources` our whole set, or leave the old set as it is; then refresh the package lists.

        No sources: our set becomes empty, and the lists are refreshed. `until` is the end of the maintenance window,
        None where it is open-ended: another apt that holds the lock is waited for until then.

        Raises:
            NodeFailure: a source is malformed, overlaps another one, can't be reached, or its signature is wrong. The
                old set stands.
            OutOfTime: another process held the lock until `until`; the message says which. The old set stands.
        """
        ...
