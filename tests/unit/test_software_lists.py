"""Package manifests and lists of CVEs: what is read of good ones, and that bad ones are refused with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.domain.software_lists import MAX_LIST_CHARACTERS, cve_list, oval_cve_list, package_list
from edge_day2.errors import InvalidValue

NAMES = st.text(min_size=1, max_size=20)
CVES = st.lists(
    st.fixed_dictionaries({"cve_id": NAMES, "priority": NAMES, "affected_packages": st.lists(NAMES, max_size=3)})
)


def definition(number: int, *, title: str = "", description: str = "", notice: bool = False) -> str:
    usn = '<reference source="USN" ref_id="USN-1"/>' if notice else ""
    return f"""
    <definition class="vulnerability" id="oval:{number}">
      <metadata>
        <title>CVE-2026-{number} on Ubuntu (noble) - {title}</title>
        <description>{description}</description>
        <reference source="CVE" ref_id="CVE-0000-0"/>{usn}
        <reference source="CVE" ref_id="CVE-2026-{number}"/>
      </metadata>
    </definition>"""


def oval(*definitions: str) -> bytes:
    space = 'xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5"'
    generator = "<generator><title>none of them</title></generator>"
    inside = "".join(definitions)
    return f"<oval_definitions {space}>{generator}<definitions>{inside}</definitions></oval_definitions>".encode()


def cves(document: bytes, *, fixed: bool = False, size: int = 7) -> list[dict[str, object]]:
    pieces = (document[start : start + size] for start in range(0, len(document), size))
    found: list[dict[str, object]] = json.loads(oval_cve_list(pieces, fixed=fixed))
    return found


def test_a_package_manifest_is_kept_without_the_blanks_around_its_texts() -> None:
    content = b'{ "repo": [ {"name": "a b",\n "version": "1", "extra": [1]} ] }'
    assert package_list(content) == '{"repo":[{"name":"a b","version":"1","extra":[1]}]}'


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "package manifest"),
        (b"<html>", "package manifest"),
        (b"[" * 100_000, "package manifest"),
        (b"[]", "package manifest"),
        (b'{"repo": []}', "package manifest"),
        (b'{"repo": {}}', "package manifest"),
        (b'{"repo": [{"name": "a", "version": "1"}, {"name": "b"}]}', r"package manifest: repo[1].version"),
        (b'{"repo": [{"name": 5, "version": "1"}]}', r"package manifest: repo[0].name"),
        (b'{"repo": ["a"]}', r"package manifest: repo[0].name"),
        (json.dumps({"repo": [{"name": "a", "version": "1", "x": "x" * 500_000}]}).encode(), "package manifest"),
    ],
)
def test_what_is_no_package_manifest_is_refused(content: bytes, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        package_list(content)
    assert caught.value.field == field


@given(CVES)
def test_a_list_of_cves_says_what_was_published(found: list[dict[str, object]]) -> None:
    text = cve_list(json.dumps([{**cve, "else": 1} for cve in found], indent=4).encode())
    assert json.loads(text) == found
    assert text.isascii()


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{}", "CVE list"),
        (b'[{"cve_id": "CVE-1", "priority": "low"}]', "CVE list: [0].affected_packages"),
        (b'[{"cve_id": "", "priority": "low", "affected_packages": []}]', "CVE list: [0].cve_id"),
        (b'[{"cve_id": "CVE-1", "priority": null, "affected_packages": []}]', "CVE list: [0].priority"),
        (b'[{"cve_id": "CVE-1", "priority": "low", "affected_packages": "bash"}]', "CVE list: [0].affected_packages"),
        (b'[{"cve_id": "CVE-1", "priority": "low", "affected_packages": [1]}]', "CVE list: [0].affected_packages"),
    ],
)
def test_what_is_no_list_of_cves_is_refused(content: bytes, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        cve_list(content)
    assert caught.value.field == field


def test_oval_names_the_cve_its_priority_and_its_packages() -> None:
    description = """A flaw.
      bash - a shell
      Run - nothing
      Run apt update - please
      two - dashes - here
      libfoo1 - a library
    """
    (cve,) = cves(oval(definition(7, title="HIGH and low", description=description)))
    assert cve == {"cve_id": "CVE-2026-7", "priority": "high", "affected_packages": ["bash", "libfoo1"]}


def test_a_title_without_a_known_word_has_an_unknown_priority() -> None:
    (cve,) = cves(oval(definition(7, title="untriaged")))
    assert (cve["priority"], cve["affected_packages"]) == ("unknown", [])


def test_what_a_security_notice_names_was_fixed_and_exists_no_more() -> None:
    document = oval(definition(1), definition(2, notice=True))
    assert [cve["cve_id"] for cve in cves(document)] == ["CVE-2026-1"]
    assert [cve["cve_id"] for cve in cves(document, fixed=True)] == ["CVE-2026-1", "CVE-2026-2"]


def test_a_definition_without_a_cve_is_passed_over() -> None:
    document = b"<oval_definitions><definition><title>x</title></definition></oval_definitions>"
    assert cves(document) == []


def test_a_long_document_gives_its_first_thousand_cves_and_is_read_no_further() -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        yield b"<oval_definitions>"
        for number in range(10**9):
            taken += 1
            yield definition(number).encode()

    found = json.loads(oval_cve_list(endless(), fixed=False))  # type: ignore[arg-type]  # a generator all the same
    assert (len(found), found[-1]["cve_id"], taken) == (1000, "CVE-2026-999", 1000)


def test_a_list_that_no_inventory_holds_is_shortened_at_its_end() -> None:
    packages = "\n".join(f"{'p' * 290}{number} - x" for number in range(9))
    found = cves(oval(*(definition(number, description=packages) for number in range(400))), size=1 << 16)
    assert 100 < len(found) < 400
    assert found[0]["cve_id"] == "CVE-2026-0"
    assert len(json.dumps(found)) < 1.1 * MAX_LIST_CHARACTERS


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "no element found"),
        (b"<html></html>", "oval_definitions"),
        (b"<oval_definitions><definition>", "no element found"),
        (b"\xff\xfe\x00", "well-formed"),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><oval_definitions>&a;</oval_definitions>', "document type"),
        (b"<oval_definitions><title>" + b"x" * (2 << 20) + b"</title></oval_definitions>", "1048576 characters"),
    ],
)
def test_what_is_no_oval_document_is_refused(document: bytes, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        cves(document, size=1 << 16)
    assert says in str(caught.value)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_reason(content: bytes) -> None:
    for read in (package_list, cve_list, lambda given: oval_cve_list([given], fixed=True)):
        with pytest.raises(InvalidValue):
            read(content)
