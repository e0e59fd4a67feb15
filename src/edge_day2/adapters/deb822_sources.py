"""Which apt sources a node accepts, and the form in which they are written. Pure; parsed by python-debian.

What comes from outside is never written as it came: it is taken apart, every field is checked, and what is written is
made anew from the checked values. So apt reads what was checked, however two parsers may differ.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from edge_day2.errors import InvalidValue, MissingExtra

# The original agent's mark on a source that is reached through the node's own proxy.
RELEASE_SERVICE_TAG: Final = "#ReleaseService"

_REQUIRED: Final = ("Types", "URIs", "Suites", "Signed-By")
# Not here, so refused: Trusted, Allow-Insecure, Allow-Weak, Allow-Downgrade-To-Insecure, Check-Valid-Until,
# Valid-Until-Max, Check-Date, Date-Max-Future, InRelease-Path, Snapshot and whatever else weakens verification.
_OPTIONAL: Final = ("Components", "Enabled", "Architectures", "Languages")
_KEPT: Final[tuple[str, ...]] = ("Architectures", "Languages")
_FIELDS: Final = {name.lower(): name for name in (*_REQUIRED, *_OPTIONAL)}
# Kept by tools for people; apt doesn't read them, and they aren't written.
_IGNORED: Final = frozenset({"x-repolib-name", "description"})
_ONE_LINE_OPTIONS: Final = {"signed-by": "Signed-By", "arch": "Architectures", "lang": "Languages"}

_FIELD_LINE: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*):(.*)")
_ONE_LINE: Final = re.compile(r"(deb|deb-src)[ \t]+\[([^\]\[]*)\][ \t]+(\S+)[ \t]+(\S+)((?:[ \t]+\S+)*)[ \t]*")
_URI: Final = re.compile(r"([a-z][a-z0-9+.-]*)://[A-Za-z0-9\-._~:/%+=,@\[\]]+")
_LOCAL: Final = re.compile(r"(file|copy):(?://)?/(?!/)[A-Za-z0-9\-._~/%+=,@]+")
_PROXY: Final = re.compile(r"https?://[A-Za-z0-9\-.]+(?::\d{1,5})?(?:/[A-Za-z0-9\-._~/%+=,@]*)?")
_HOST: Final = re.compile(r"[a-z0-9.-]+|[0-9a-f:.]+")
_SUITE: Final = re.compile(r"[A-Za-z0-9.$(][A-Za-z0-9\-._+~/$()]*")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-._+~/]*")
_KEY_FILE: Final = re.compile(r"/[A-Za-z0-9\-._+~/]+\.(?:gpg|asc|pgp)")
_ARMOR_HEADER: Final = re.compile(r"[A-Za-z]+: [ -~]*")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{1,100}={0,2}")
_PARENT: Final = re.compile(r"(?:^|/)\.\.(?:/|$)")
_BEGIN, _END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
# RFC 9580, section 4.2: the tag of a public-key packet.
_PUBLIC_KEY_TAG: Final = 6


def _proxy(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value and not _PROXY.fullmatch(value):
        raise InvalidValue("release_service", value, "a plain http or https URL")


@frozen(kw_only=True)
class SourceRules:
    """What a node accepts.

    Attributes:
        schemes: of URIs. Packages are verified by their signatures whatever the scheme is; https hides what is asked
            for. "file" and "copy" are paths on the node, which `hosts` says nothing of.
        hosts: names that URIs may have, a leading dot stands for everything below a domain. None: any.
        key_folders: where key files may lie.
        release_service: the URL that takes the place of scheme and host in sources with the tag #ReleaseService, such
            as "http://localhost:60444". "": such sources are refused.
        most_sources: how many texts there may be.
        most_bytes: how long they may be together.

    Raises:
        InvalidValue: `release_service` is no URL.
    """

    schemes: frozenset[str] = frozenset({"https"})
    hosts: tuple[str, ...] | None = None
    key_folders: tuple[str, ...] = ("/usr/share/keyrings", "/etc/apt/keyrings")
    release_service: str = field(default="", validator=_proxy)
    most_sources: int = 100
    most_bytes: int = 1_000_000


@frozen(kw_only=True)
class Source:
    """One checked source. `key` is an armoured public key where `key_files` is empty."""

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(factory=dict)

    def to_deb822(self) -> str:
        """Return the source as a stanza of sources.list(5)."""
        fields = {"Types": self.types, "URIs": self.uris, "Suites": self.suites, "Components": self.components}
        lines = [f"{name}: {' '.join(words)}" for name, words in {**fields, **self.others}.items() if words]
        if self.key_files:
            lines.append(f"Signed-By: {' '.join(self.key_files)}")
        else:
            lines += ["Signed-By:", *(f" {line or '.'}" for line in self.key)]
        return "\n".join(lines) + "\n"


def read_sources(texts: Sequence[str], rules: SourceRules = SourceRules()) -> tuple[Source, ...]:  # frozen
    """Return the sources that `texts` hold: deb822 stanzas, or one-line entries with `signed-by`.

    Raises:
        InvalidValue: one of them isn't accepted, two have different keys for the same archive, or they are too many.
        MissingExtra: python-debian isn't installed.
    """
    if len(texts) > rules.most_sources:
        raise InvalidValue("apt sources", len(texts), f"at most {rules.most_sources}")
    size = sum(len(text.encode(errors="replace")) for text in texts)
    if size > rules.most_bytes:
        raise InvalidValue("apt sources", f"{size} bytes", f"at most {rules.most_bytes}")
    sources: list[Source] = []
    for number, text in enumerate(texts, start=1):
        found = list(_sources_of(text, rules, f"apt source {number}"))
        if not found:
            raise InvalidValue(f"apt source {number}", text, "a deb822 stanza")
        sources += found
    _refuse_overlap(sources)
    return tuple(sources)


def _sources_of(text: str, rules: SourceRules, where: str) -> Iterator[Source]:
    text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    for line in lines:
        # A comment may say anything that is printed; all else is ASCII.
        allowed = line.replace("\t", " ")
        if not allowed.isprintable() or not (allowed.isascii() or line.startswith("#")):
            raise InvalidValue(where, line, "printable ASCII")
    tagged = any(line.strip() == RELEASE_SERVICE_TAG for line in lines)
    lines = [line.rstrip() for line in lines if not line.startswith("#")]
    entries = [line for line in lines if line.split(maxsplit=1)[:1] in (["deb"], ["deb-src"])]
    stanzas = _one_line_entries(lines, where) if entries else _stanzas(lines, where)
    for stanza in stanzas:
        yield _checked(stanza, rules, where, tagged=tagged)


def _one_line_entries(lines: Iterable[str], where: str) -> Iterator[Mapping[str, str]]:
    for line in lines:
        if not line:
            continue
        match = _ONE_LINE.fullmatch(line)
        if match is None:
            expected = "deb [signed-by=FILE] URI SUITE COMPONENT…, or deb822 fields alone"
            raise InvalidValue(where, line, expected)
        kind, options, uri, suite, components = match.groups()
        fields = {"Types": kind, "URIs": uri, "Suites": suite, "Components": components}
        for option in options.split():
            name, _, value = option.partition("=")
            if name not in _ONE_LINE_OPTIONS or _ONE_LINE_OPTIONS[name] in fields:
                raise InvalidValue(f"{where}: option", option, f"one of {', '.join(_ONE_LINE_OPTIONS)}, once")
            fields[_ONE_LINE_OPTIONS[name]] = value.replace(",", " ")
        yield {name: value for name, value in fields.items() if value.strip()}


def _stanzas(lines: Sequence[str], where: str) -> Iterator[Mapping[str, str]]:
    try:
        from debian.deb822 import Deb822
    except ModuleNotFoundError as error:
        raise MissingExtra("python-debian", "apt") from error
    _check_lines(lines, where)
    for paragraph in Deb822.iter_paragraphs(list(lines), use_apt_pkg=False):
        fields = {str(name): str(value) for name, value in paragraph.items()}
        if fields:
            yield fields


def _check_lines(lines: Iterable[str], where: str) -> None:
    """Refuse what python-debian would pass over in silence: lines of no field, and fields that come twice."""
    names: set[str] = set()
    for line in lines:
        if not line:
            names.clear()
        elif line[0] in " \t":
            if not names:
                raise InvalidValue(where, line, "a field before its continuation")
        else:
            match = _FIELD_LINE.fullmatch(line)
            if match is None:
                raise InvalidValue(where, line, "lines of the form `Field: value`")
            if match[1].lower() in names:
                raise InvalidValue(where, match[1], "each field once")
            names.add(match[1].lower())


def _checked(stanza: Mapping[str, str], rules: SourceRules, where: str, *, tagged: bool) -> Source:
    fields: dict[str, str] = {}
    for name, value in stanza.items():
        if name.lower() in _FIELDS:
            fields[_FIELDS[name.lower()]] = value
        elif name.lower() not in _IGNORED:
            raise InvalidValue(f"{where}: field", name, f"one of {', '.join(_FIELDS.values())}")
    for name in _REQUIRED:
        if not fields.get(name, "").strip():
            raise InvalidValue(f"{where}: {name}", fields.get(name, ""), "a value")
    words = {name: tuple(value.split()) for name, value in fields.items() if name != "Signed-By"}
    _each(words, "Types", re.compile("deb|deb-src"), where)
    for name in ("Architectures", "Languages", "Components"):
        _each(words, name, _WORD, where)
    _each(words, "Enabled", re.compile("yes"), where)
    _each(words, "Suites", _SUITE, where)
    flat = {suite.endswith("/") for suite in words["Suites"]}
    components = words.get("Components", ())
    if flat == {True} and components:
        raise InvalidValue(f"{where}: Components", " ".join(components), "none where suites end in /")
    if flat == {False} and not components:
        raise InvalidValue(f"{where}: Components", "", "a value")
    if len(flat) != 1:
        raise InvalidValue(f"{where}: Suites", " ".join(words["Suites"]), "all of them end in /, or none")
    uris = tuple(_checked_uri(uri, rules, where, tagged=tagged) for uri in words["URIs"])
    files, key = _checked_key(fields["Signed-By"], rules, where)
    others: dict[str, tuple[str, ...]] = {name: words[name] for name in _KEPT if name in words}
    return Source(
        types=words["Types"],
        uris=uris,
        suites=words["Suites"],
        components=components,
        key_files=files,
        key=key,
        others=others,
    )


def _each(words: Mapping[str, tuple[str, ...]], name: str, pattern: re.Pattern[str], where: str) -> None:
    for word in words.get(name, ()):
        if not pattern.fullmatch(word) or _PARENT.search(word):
            raise InvalidValue(f"{where}: {name}", word, f"a text that matches {pattern.pattern}, without ..")


def _checked_uri(uri: str, rules: SourceRules, where: str, *, tagged: bool) -> str:
    local = _LOCAL.fullmatch(uri)
    if local is not None and local[1] in rules.schemes and not tagged and not _PARENT.search(uri):
        return uri
    match = _URI.fullmatch(uri)
    if match is None or match[1] not in rules.schemes or _PARENT.search(uri):
        raise InvalidValue(f"{where}: URI", uri, f"a plain URL with scheme {' or '.join(sorted(rules.schemes))}")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidValue(f"{where}: URI", uri, f"a URL ({error})") from error
    if not _HOST.fullmatch(host) or "@" in parts.netloc or port == 0:
        raise InvalidValue(f"{where}: URI", uri, "a host, and neither user name nor password")
    if rules.hosts is not None and not any(_is_host(host, allowed) for allowed in rules.hosts):
        raise InvalidValue(f"{where}: URI", uri, f"a host among {', '.join(rules.hosts) or 'none'}")
    if not tagged:
        return uri
    if not rules.release_service:
        raise InvalidValue(f"{where}: {RELEASE_SERVICE_TAG}", uri, "a node with a proxy to the Release Service")
    return rules.release_service.rstrip("/") + parts.path


def _is_host(host: str, allowed: str) -> bool:
    allowed = allowed.lower()
    return host == allowed or (allowed.startswith(".") and host.endswith(allowed))


def _checked_key(value: str, rules: SourceRules, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    lines = tuple(line.strip() for line in value.strip().split("\n"))
    if lines[0] == _BEGIN:
        key = tuple("" if line == "." else line for line in lines)
        if not _is_public_key(key):
            raise InvalidValue(f"{where}: Signed-By", value, "one whole armoured public key")
        return (), key
    files = tuple(value.split())
    for file in files:
        inside = any(file.startswith(f"{folder.rstrip('/')}/") for folder in rules.key_folders)
        if not inside or not _KEY_FILE.fullmatch(file) or _PARENT.search(file):
            expected = f"a .gpg or .asc file in {' or '.join(rules.key_folders)}, or an armoured public key"
            raise InvalidValue(f"{where}: Signed-By", file, expected)
    return files, ()


def _is_public_key(lines: Sequence[str]) -> bool:
    """Return whether these are the lines of one armoured public key, RFC 9580 section 6.2."""
    if lines[-1] != _END:
        return False
    body = list(lines[1:-1])
    while body and _ARMOR_HEADER.fullmatch(body[0]):
        del body[0]
    if not body or body.pop(0) != "":
        return False
    while body and body[-1] == "":
        del body[-1]
    checksum = body.pop()[1:] if body and re.fullmatch(r"=[A-Za-z0-9+/]{4}", body[-1]) else None
    if not body or not all(_BASE64.fullmatch(line) for line in body):
        return False
    try:
        packets = base64.b64decode("".join(body), validate=True)
        if checksum is not None and base64.b64decode(checksum) != _crc24(packets):
            return False
    except binascii.Error:
        return False
    first = packets[0]
    tag = first & 0x3F if first & 0x40 else (first & 0x3C) >> 2
    return first & 0x80 != 0 and tag == _PUBLIC_KEY_TAG


def _crc24(data: bytes) -> bytes:
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return (crc & 0xFFFFFF).to_bytes(3, "big")


def _refuse_overlap(sources: Iterable[Source]) -> None:
    """Refuse what apt refuses: the same archive and suite with different keys."""
    keys: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for source in sources:
        for uri in source.uris:
            for suite in source.suites:
                archive = (uri.rstrip("/").lower(), suite)
                if keys.setdefault(archive, (source.key_files, source.key)) != (source.key_files, source.key):
                    raise InvalidValue("apt sources", f"{uri} {suite}", "the same key wherever an archive is named")
