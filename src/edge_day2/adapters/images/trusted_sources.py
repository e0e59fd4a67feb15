"""Which addresses images may come from, compared as parsed addresses and never as texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from attrs import field, frozen

from edge_day2.errors import InvalidValue, shown
from edge_day2.ports.failures import UntrustedSource

# Printable ASCII; a backslash is a slash to some, and quotes or angle brackets belong to no address.
_ADDRESS: Final = re.compile(r"[!#-;=?-\[\]_a-z~]*", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST: Final = 4096


@frozen(kw_only=True)
class _Place:
    scheme: str
    host: str
    port: int
    folders: tuple[str, ...]

    def holds(self, other: _Place) -> bool:
        return (
            (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
            and len(other.folders) > len(self.folders)
            and other.folders[: len(self.folders)] == self.folders
        )


@frozen
class TrustedSource:
    """A host, and a folder on it, that images may come from.

    Attributes:
        url: `https://files.example.org/images` allows that host on that port, and what is in that folder and below.
            An address with `http:` allows a host without encryption.
        token_file: holds the bearer token that is sent to this source, and to no other. It is read for every request.

    Raises:
        InvalidValue: `url` isn't such an address, or a token would go unencrypted to another machine.
    """

    url: str
    token_file: Path | None = None
    place: _Place = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        try:
            place, parts = _parsed(self.url)
        except UntrustedSource as error:
            raise InvalidValue(
                "url", self.url, f"an address with http or https, a host and a folder: {error.log}"
            ) from error
        if parts.query:
            raise InvalidValue("url", self.url, "an address without a query")
        if self.token_file is not None and place.scheme == "http" and place.host not in _LOOPBACK:
            raise InvalidValue("url", self.url, "https, to send a token there")
        # A folder is meant, with a slash at its end or without one.
        folders = place.folders[:-1] if place.folders[-1:] == ("",) else place.folders
        object.__setattr__(
            self, "place", _Place(scheme=place.scheme, host=place.host, port=place.port, folders=folders)
        )


@frozen
class Address:
    """An address that may be asked, and the source that it belongs to."""

    url: str
    source: TrustedSource

    def __str__(self) -> str:
        # A query may hold a signature that lets anybody in.
        return self.url.partition("?")[0]


class TrustedSources:
    """The sources that the configuration allows.

    Args:
        sources: at least one. An address is taken where any of them holds it.
        base_url: what a relative address is meant to follow: the Release Service. Itself an address within `sources`.

    Raises:
        InvalidValue: there is no source, or `base_url` isn't in any.
    """

    def __init__(self, sources: Iterable[TrustedSource | str], *, base_url: str = "") -> None:
        self._sources = tuple(TrustedSource(one) if isinstance(one, str) else one for one in sources)
        if not self._sources:
            raise InvalidValue("sources", (), "one source at least")
        self._base_url = ""
        if base_url:
            base = base_url if base_url.endswith("/") else f"{base_url}/"
            try:
                self.resolve(f"{base}image")
            except UntrustedSource as error:
                raise InvalidValue("base_url", base_url, "an address in one of the sources") from error
            self._base_url = base

    def resolve(self, url: str, *, seen_at: Address | None = None) -> Address:
        """Return the whole address, which may be asked.

        Args:
            url: an address, or one relative to the base. Where `seen_at` redirects to it: relative to that.
            seen_at: the address whose answer says so.

        Raises:
            UntrustedSource: it is malformed, tries to leave its folder, or no source holds it.
        """
        _refuse_odd(url)
        base = self._base_url if seen_at is None else seen_at.url
        whole = urljoin(base, url) if base else url
        place, _ = _parsed(whole)
        for source in self._sources:
            if source.place.holds(place):
                return Address(whole, source)
        allowed = ", ".join(source.url for source in self._sources)
        via = "" if seen_at is None else f", where {seen_at} redirects to,"
        raise UntrustedSource(f"the image's address {_public(whole)}{via} is in none of the trusted sources: {allowed}")


def _refuse_odd(url: str) -> None:
    if not url:
        raise UntrustedSource("the image has no address")
    if len(url) > _LONGEST or _ADDRESS.fullmatch(url) is None:
        raise UntrustedSource(f"the image's address {_public(url)} holds characters that no address has, or too many")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UntrustedSource(f"the image's address {_public(url)} is malformed: {error}") from error
    if (parts.scheme or url.startswith("//")) and not parts.netloc:
        # Where there is a base, some would put its host there.
        raise UntrustedSource(f"the image's address {_public(url)} has no host")
    for folder in parts.path.split("/"):
        plain = unquote(folder)
        # A server may decode once more than we do, so an encoded percent sign isn't taken either.
        if plain in {".", ".."} or any(one in "/\\%" or not one.isprintable() for one in plain):
            raise UntrustedSource(
                f"the image's address {_public(url)} has a part {shown(folder)}, which may lead elsewhere"
            )


def _parsed(url: str) -> tuple[_Place, SplitResult]:
    _refuse_odd(url)
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise UntrustedSource(f"the image's address {_public(url)} is malformed: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise UntrustedSource(f"the image's address {_public(url)} has no http or https, or no host")
    if "@" in parts.netloc or "%" in parts.netloc or "#" in url:
        raise UntrustedSource(f"the image's address {_public(url)} holds a user or a fragment")
    folders = tuple(parts.path.split("/")[1:])
    place = _Place(
        scheme=parts.scheme,
        host=parts.hostname,
        port=_DEFAULT_PORTS[parts.scheme] if port is None else port,
        folders=folders,
    )
    return place, parts


def _public(url: str) -> str:
    """Return what of `url` may be shown: neither a query nor a password."""
    text = url[:_LONGEST].partition("?")[0]
    scheme, separator, rest = text.partition("//")
    host, slash, path = rest.partition("/")
    return shown(f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else text)
