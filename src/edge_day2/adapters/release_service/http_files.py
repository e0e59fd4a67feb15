"""Package manifests and lists of CVEs from a file server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from edge_day2.adapters.release_service.bzip2 import unpacked
from edge_day2.adapters.release_service.http_reader import HttpReader, ReadLimits

# The longest list of Ubuntu's has some 20 MB, packed.
_LARGEST_FILE: Final = 64 << 20


class HttpReleaseFiles:
    """`ReleaseFiles` over HTTP. Close it after use, or use it as a context manager.

    Args:
        base_url: the file server's address, which paths are relative to.
        token_file: holds a bearer token, read for every request and sent to the file server alone. None: anonymous.
        allowed_hosts: other hosts that a manifest may name, or that the file server may redirect to; over https, or
            over http where the file server itself is.
        ca_bundle: certificates to believe instead of the system's.
        limits: times and attempts.

    Raises:
        InvalidValue: `base_url` isn't an http or https address, or a token would travel without encryption.
        MissingExtra: requests or tenacity isn't installed (extra `oci`).
    """

    def __init__(
        self,
        base_url: str,
        *,
        token_file: str | os.PathLike[str] | None = None,
        allowed_hosts: Iterable[str] = (),
        ca_bundle: str | os.PathLike[str] | None = None,
        limits: ReadLimits = ReadLimits(),  # noqa: B008  # frozen
    ) -> None:
        self._reader = HttpReader(
            base_url,
            token_file=None if token_file is None else Path(token_file),
            allowed_hosts=allowed_hosts,
            ca_bundle=None if ca_bundle is None else Path(ca_bundle),
            limits=limits,
        )

    def read(self, url: str, *, at_most: int) -> Iterator[bytes]:
        """See `ReleaseFiles.read`. A path is joined to the server's address as it is, also with a slash in front."""
        path = url if urlsplit(url).scheme else url.lstrip("/")
        return unpacked(self._reader.get(path, at_most=_LARGEST_FILE).content, url, at_most)

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
