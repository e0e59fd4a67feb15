"""Port: the Release Service, where OS profile manifests are published, one set per revision.

An adapter only reads. It hands out texts and never judges their content; what is too large to be a manifest, unreadable
or not text is a failure of that one manifest. Calls may be repeated at any time; adapters are safe to use from several
threads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from attrs import frozen

from edge_day2.errors import EdgeDay2Error


@frozen(kw_only=True)
class FetchedManifest:
    """The text of one manifest. `name` is its file's name, with or without `.yaml`."""

    revision: str
    name: str
    text: str


@frozen(kw_only=True)
class RejectedManifest:
    """A manifest that can't be used, and why. `name` is empty where the revision as a whole can't be read.

    Where `file` isn't empty it is the list at this address, which the manifest names, that can't be used.
    """

    revision: str
    name: str
    error: EdgeDay2Error
    file: str = ""


class ReleaseService(Protocol):
    """Where manifests come from."""

    def revisions(self) -> tuple[str, ...]:
        """Return the names of all revisions, oldest first.

        Raises:
            Unavailable: the Release Service can't be reached or read.
        """
        ...

    def manifests(
        self, revision: str, profile_names: Collection[str] | None = None
    ) -> Iterator[FetchedManifest | RejectedManifest]:
        """Yield the manifests of a revision, or of every revision that a selector `~X.Y.Z` picks, oldest first.

        `profile_names` limits them to these profiles; one that a revision doesn't have is left out. A manifest that
        can't be read is yielded as rejected, and the rest goes on.

        Raises:
            InvalidValue: `revision` is neither a revision's name nor a selector.
            NotFound: there is no such revision.
            Unavailable: the Release Service can't be reached or read.
        """
        ...
