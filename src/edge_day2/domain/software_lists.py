"""What is published beside an OS profile: the packages of an image, and its CVEs, as JSON or as OVAL.

What lives here: reading these lists, with suspicion, and writing them down for the Inventory. What never will: where
they come from (ports/release_files.py).

Rules of the original that are kept: a package manifest is `{"repo": [{"name": …, "version": …}]}`; CVEs of an immutable
OS are a JSON list; those of a mutable one are OVAL, where a definition's CVE is its last reference of that source, its
priority the first of the known words in its title, and its packages what the description lists before " - ". What a
security notice (USN) names exists no more. Unlike there, every entry is checked, and blanks within texts stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final
from xml.parsers import expat

from attrs import define, field, frozen

from edge_day2.errors import InvalidValue

MAX_LIST_CHARACTERS: Final = 500_000
"""The longest list that an OS Resource holds, as in the original's Inventory."""
_MOST_OVAL_CVES: Final = 1_000
_MOST_PACKAGES: Final = 100_000
_LONGEST_NAME: Final = 300
# A description of Ubuntu's has some kilobytes; a text node is collected until its element ends.
_LONGEST_TEXT: Final = 1 << 20
_PRIORITIES: Final = ("critical", "high", "medium", "low", "negligible")


@frozen(kw_only=True)
class Cve:
    """A vulnerability that an OS has, or has no more."""

    cve_id: str
    priority: str
    affected_packages: tuple[str, ...]


def package_list(content: bytes) -> str:
    """Return the packages of an image, as compact JSON, from the bytes of a package manifest.

    Raises:
        InvalidValue: it isn't `{"repo": [{"name": …, "version": …}, …]}` with at least one package, or is too long.
    """
    document = _json(content, "package manifest")
    repo = document.get("repo") if isinstance(document, dict) else None
    if not isinstance(repo, list) or not repo or len(repo) > _MOST_PACKAGES:
        raise InvalidValue("package manifest", document, 'an object with a list "repo" of packages')
    for place, package in enumerate(repo):
        entry = package if isinstance(package, dict) else {}
        for name in ("name", "version"):
            if not _is_name(entry.get(name)):
                raise InvalidValue(f"package manifest: repo[{place}].{name}", entry.get(name), "a text")
    return _written("package manifest", document)


def cve_list(content: bytes) -> str:
    """Return the CVEs of an immutable OS, as compact JSON, from the bytes of a published list.

    Raises:
        InvalidValue: it isn't a JSON list of objects with `cve_id`, `priority` and `affected_packages`, or is too long.
    """
    document = _json(content, "CVE list")
    if not isinstance(document, list):
        raise InvalidValue("CVE list", document, "a list of CVEs")
    return _written("CVE list", [_entry(_cve(place, item)) for place, item in enumerate(document)])


def oval_cve_list(pieces: Iterable[bytes], *, fixed: bool) -> str:
    """Return the CVEs of a mutable OS, as compact JSON, from an OVAL document: the first 1,000.

    Args:
        pieces: the document, piece by piece; what isn't needed any more isn't kept.
        fixed: whether the list is of what was fixed: then what a security notice names is in it too.

    Raises:
        InvalidValue: it isn't an OVAL document, declares a document type or entities, or its texts are too long.
    """
    found = [_entry(cve) for cve in _oval(pieces, fixed=fixed)]
    while len(text := _compact(found)) > MAX_LIST_CHARACTERS:
        # In the order of the document the first ones count, as in the original.
        del found[-max(1, len(found) // 10) :]
    return text


def _json(content: bytes, name: str) -> object:
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(name, content, f"JSON, but {error}") from error
    return document


def _cve(place: int, item: object) -> Cve:
    entry = item if isinstance(item, dict) else {}
    packages = entry.get("affected_packages")
    for name in ("cve_id", "priority"):
        if not _is_name(entry.get(name)):
            raise InvalidValue(f"CVE list: [{place}].{name}", entry.get(name), "a text")
    if not isinstance(packages, list) or not all(map(_is_name, packages)):
        raise InvalidValue(f"CVE list: [{place}].affected_packages", packages, "a list of texts")
    return Cve(cve_id=entry["cve_id"], priority=entry["priority"], affected_packages=tuple(packages))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def _entry(cve: Cve) -> dict[str, object]:
    return {"cve_id": cve.cve_id, "priority": cve.priority, "affected_packages": list(cve.affected_packages)}


def _compact(document: object) -> str:
    # With escapes: so every database can hold it, whatever the texts hold.
    return json.dumps(document, separators=(",", ":"))


def _written(name: str, document: object) -> str:
    text = _compact(document)
    if len(text) > MAX_LIST_CHARACTERS:
        raise InvalidValue(name, f"{len(text)} characters", f"at most {MAX_LIST_CHARACTERS} characters")
    return text


@define
class _Definition:
    """An OVAL definition while it is read."""

    title: str = ""
    description: str = ""
    references: list[tuple[str, str]] = field(factory=list)

    def cve(self, *, fixed: bool) -> Cve | None:
        """Return what it says, None where it doesn't belong in the list or names no CVE."""
        noticed = any(source == "USN" for source, _ in self.references)
        named = [reference for source, reference in self.references if source == "CVE"]
        if (noticed and not fixed) or not named or not _is_name(named[-1]):
            return None
        title = self.title.lower()
        priority = next((word for word in _PRIORITIES if word in title), "unknown")
        return Cve(cve_id=named[-1], priority=priority, affected_packages=tuple(self._packages()))

    def _packages(self) -> Iterator[str]:
        for line in map(str.strip, self.description.splitlines()):
            if line.count(" - ") == 1 and not line.startswith("Run "):
                name = line.partition(" ")[0]
                if _is_name(name):
                    yield name


class _OvalReader:
    """Handlers of an XML parser that collect one definition at a time."""

    def __init__(self, *, fixed: bool) -> None:
        self.found: list[Cve] = []
        self._fixed = fixed
        self._definition: _Definition | None = None
        self._text: list[str] | None = None
        self._length = 0
        self.is_oval = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition("}")[2]
        self.is_oval = self.is_oval or local == "oval_definitions"
        if local == "definition":
            self._definition = _Definition()
        elif local == "reference" and self._definition is not None:
            self._definition.references.append((attributes.get("source", ""), attributes.get("ref_id", "")))
        elif local in ("title", "description"):
            self._text, self._length = [], 0

    def text(self, piece: str) -> None:
        if self._text is None:
            return
        self._length += len(piece)
        if self._length > _LONGEST_TEXT:
            raise InvalidValue("OVAL document", f"a text of over {_LONGEST_TEXT} characters", "shorter texts")
        self._text.append(piece)

    def end(self, name: str) -> None:
        local, definition = name.rpartition("}")[2], self._definition
        if self._text is not None and local in ("title", "description"):
            if definition is not None:
                setattr(definition, local, "".join(self._text))
            self._text = None
        elif local == "definition" and definition is not None:
            cve, self._definition = definition.cve(fixed=self._fixed), None
            if cve is not None:
                self.found.append(cve)

    def refuse(self, *_: object) -> None:
        raise InvalidValue("OVAL document", "a document type declaration", "none: entities could grow without end")


def _oval(pieces: Iterable[bytes], *, fixed: bool) -> list[Cve]:
    reader = _OvalReader(fixed=fixed)
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        for piece in pieces:
            parser.Parse(piece, False)
            if len(reader.found) >= _MOST_OVAL_CVES:
                return reader.found[:_MOST_OVAL_CVES]
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise InvalidValue("OVAL document", str(error), "well-formed XML") from error
    if not reader.is_oval:
        raise InvalidValue("OVAL document", "another kind of XML", "an element oval_definitions")
    return reader.found
