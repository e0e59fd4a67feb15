"""Port: the files that OS profile manifests name beside the image: package manifests and lists of CVEs.

An adapter only reads, and never judges a file's content. Calls may be repeated at any time; adapters are safe to use
from several threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class ReleaseFiles(Protocol):
    """Where these files come from."""

    def read(self, url: str, *, at_most: int) -> Iterator[bytes]:
        """Yield the content of the file at `url`, unpacked where it is packed with bzip2, in pieces.

        Args:
            url: as a manifest names it: an address, or a path on the file server.
            at_most: bytes, unpacked. Adapters have a limit of their own for what they take as it comes.

        Raises (at the call or while the pieces are taken):
            NotFound: there is no such file.
            Unauthenticated, PermissionDenied: the file server wants another token, or the address isn't allowed.
            Unavailable: it can't be reached or read.
            Internal: the file is too large, or isn't what bzip2 made.
        """
        ...
