"""Which apt sources a node accepts, and what is written for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apt_repository import SigningKey, missing_tools
from apt_root import AptRoot
from edge_day2.adapters.deb822_sources import SourceRules, read_sources
from edge_day2.errors import InvalidValue

# The public part of a key that was thrown away.
KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawXNvBYJKwYBBAHaRw8BAQdA/Gp7+4T9u0Mj7YW2lYA6sR0fDNGOTNusbRe2
+zJsTkq0D2VkZ2VfZGF5MiB0ZXN0c4iQBBMWCAA4FiEEKRDvYlsHz8WWWtXc0q70
ZmL6Ne0FAmsFzbwCGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ0q70ZmL6
Ne0QzAEAjDBDuSrCXiOee4VEBmQ8xRbjzXLpQkZu1pHGLDApYOoA/1rOuDmmVby0
2a8FkRyn4ZOOO3XG0qUl9vWWcP3e1bMK
=7Ryz
-----END PGP PUBLIC KEY BLOCK-----"""
FILE = "/usr/share/keyrings/example.gpg"
RULES = SourceRules(hosts=("packages.example.org", ".mirrors.example.org"))


def inline(key: str) -> str:
    return "".join(f"\n {line or '.'}" for line in key.splitlines())


def stanza(**changes: str | None) -> str:
    fields: dict[str, str | None] = {
        "Types": "deb",
        "URIs": "https://packages.example.org/debian",
        "Suites": "stable",
        "Components": "main",
        "Signed-By": FILE,
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)


def written(*texts: str, rules: SourceRules = RULES) -> str:
    return "\n".join(source.to_deb822() for source in read_sources(texts, rules))


def test_a_source_is_written_as_sources_list_5_says() -> None:
    assert written(stanza(Architectures="amd64 arm64", Types="deb deb-src")) == (
        "Types: deb deb-src\n"
        "URIs: https://packages.example.org/debian\n"
        "Suites: stable\n"
        "Components: main\n"
        "Architectures: amd64 arm64\n"
        "Signed-By: /usr/share/keyrings/example.gpg\n"
    )


def test_a_key_inside_is_written_as_it_came() -> None:
    assert written(stanza(Signed_By=inline(KEY))).endswith(f"Signed-By:{inline(KEY)}\n")


def test_what_is_written_is_read_as_the_same() -> None:
    texts = (stanza(), stanza(Suites="other", Signed_By=inline(KEY)), stanza(Suites="flat/", Components=None))

    assert written(written(*texts)) == written(*texts)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (f"deb [signed-by={FILE}] https://packages.example.org/debian stable main extra", {"Components": "main extra"}),
        (
            f"deb-src [arch=amd64,arm64 signed-by={FILE}] https://packages.example.org/debian stable main",
            {"Types": "deb-src", "Architectures": "amd64 arm64"},
        ),
        (f"# a comment: ä\n\ndeb [ signed-by={FILE} ] https://packages.example.org/debian flat/", {"Suites": "flat/"}),
    ],
)
def test_an_entry_of_one_line_is_converted(line: str, fields: dict[str, str]) -> None:
    changes: dict[str, str | None] = {"Components": None if "flat/" in line else "main", **fields}
    assert written(line) == written(stanza(**changes))


@pytest.mark.parametrize(
    "line",
    [
        "deb https://packages.example.org/debian stable main",
        "deb [] https://packages.example.org/debian stable main",
        f"deb [signed-by={FILE} trusted=yes] https://packages.example.org/debian stable main",
        f"deb [signed-by={FILE} signed-by=/usr/share/keyrings/b.gpg] https://packages.example.org/debian stable main",
        f"deb [signed-by={FILE} check-valid-until=no] https://packages.example.org/debian stable main",
        f"deb [signed-by={FILE}] cdrom:[Debian]/ stable main",
        f"deb [signed-by={FILE}] https://packages.example.org/debian stable main\nTrusted: yes",
    ],
)
def test_an_entry_of_one_line_that_weakens_verification_is_refused(line: str) -> None:
    with pytest.raises(InvalidValue, match="apt source 1"):
        read_sources((line,), RULES)


@pytest.mark.parametrize("name", ["Types", "URIs", "Suites", "Components", "Signed_By"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_what_is_required_has_to_be_there(name: str, value: str | None) -> None:
    with pytest.raises(InvalidValue, match="expected a value"):
        read_sources((stanza(**{name: value}),), RULES)


@pytest.mark.parametrize(
    "field",
    [
        "Trusted: yes", "trusted: yes", "TRUSTED:yes", "Allow-Insecure: yes", "Allow-Weak: yes",
        "Allow-Downgrade-To-Insecure: yes", "Check-Valid-Until: no", "Valid-Until-Max: 999999999", "Check-Date: no",
        "Date-Max-Future: 999999", "InRelease-Path: x", "Snapshot: no", "Signed-By-Add: x", "Targets: x", "By-Hash: no",
        "Enabled: no",
    ],
)  # fmt: skip
def test_fields_that_weaken_verification_or_are_not_known_are_refused(field: str) -> None:
    with pytest.raises(InvalidValue, match="apt source 1"):
        read_sources((stanza() + field,), RULES)


@pytest.mark.parametrize(
    "text",
    [
        stanza() + "Types: deb\n",
        stanza() + "types: deb\n",
        stanza(Suites="stable\nTrusted: yes"),
        stanza(Suites="stable\rTrusted: yes"),
        stanza(Suites="stable\x0bTrusted: yes"),
        stanza(Suites="stable\x85Trusted: yes"),
        stanza(Suites="stable\u2028Trusted: yes"),
        stanza(Suites="stable\0"),
        stanza(Suites="stäble"),
        " Types: deb\n" + stanza(),
        "Types deb\n" + stanza(),
        "# nothing\n",
        "",
    ],
)
def test_a_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="apt source 1"):
        read_sources((text,), RULES)


@pytest.mark.parametrize(
    "uri",
    [
        "http://packages.example.org/debian", "file:/srv", "file:///srv", "copy:/srv", "cdrom:[x]/", "ftp://x/",
        "mirror+https://packages.example.org/x", "HTTPS://packages.example.org/", "packages.example.org",
        "https://packages.example.org.evil.example/", "https://evil.example/packages.example.org",
        "https://packages.example.org@evil.example/", "https://user:secret@packages.example.org/",
        "https://mirrors.example.org/", "https://evilmirrors.example.org/", "https://packages.example.org:0/",
        "https://packages.example.org:99999/", "https://packages.example.org/a/../b", "https:///debian", "https://a,b.mirrors.example.org/",
        "https://packages.example.org/?x", "https://packages.example.org/#x", "https://packages.example.org\\@evil/",
        "https://[packages.example.org/", "https://packages.example.org/ evil://x",
    ],
)  # fmt: skip
def test_uris_of_other_schemes_and_hosts_are_refused(uri: str) -> None:
    with pytest.raises(InvalidValue, match="URI"):
        read_sources((stanza(URIs=uri),), RULES)


def test_archives_on_the_node_are_taken_where_that_is_allowed() -> None:
    rules = SourceRules(schemes=frozenset({"https", "file", "copy"}), hosts=())

    for uri in ("file:/srv/archive", "file:///srv/archive", "copy:/srv/archive"):
        assert f"URIs: {uri}\n" in written(stanza(URIs=uri), rules=rules)
    for uri in ("file:srv", "file:/srv/../etc", "file://host", "cdrom:/srv", "https://packages.example.org/"):
        with pytest.raises(InvalidValue, match="URI"):
            read_sources((stanza(URIs=uri),), rules)


@pytest.mark.parametrize("host", ["packages.example.org", "packages.example.org:8443", "eu.mirrors.example.org"])
def test_uris_of_allowed_hosts_are_taken(host: str) -> None:
    assert f"URIs: https://{host}/debian\n" in written(stanza(URIs=f"https://{host}/debian"))


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd", "/usr/share/keyrings/../../../etc/x.gpg", "/usr/share/keyringsevil/x.gpg", "x.gpg",
        "/usr/share/keyrings/x", "0123456789ABCDEF0123456789ABCDEF01234567", f"{FILE},/tmp/x.gpg",
        inline(KEY.replace("mDME", "mDMF")), inline(KEY.replace("=7Ryz", "=AAAA")),
        inline(KEY.replace("PUBLIC", "PRIVATE")),
        inline(KEY.replace("\n\n", "\n")), inline(KEY + "\n" + KEY), inline("\n".join(KEY.splitlines()[:-1])),
        inline(KEY.splitlines()[0] + "\n\n" + KEY.splitlines()[-1]), inline(KEY.replace("tests", "Trusted: yes")) + "x",
        inline(KEY.replace("mDMEawXN", "lDMEawXN").replace("=7Ryz\n", "")),
    ],
)  # fmt: skip
def test_keys_that_are_no_public_key_in_its_place_are_refused(value: str) -> None:
    with pytest.raises(InvalidValue, match="Signed-By"):
        read_sources((stanza(Signed_By=value),), RULES)


@pytest.mark.parametrize("suites", ["stable flat/", "../x/", "flat/"])
def test_suites_and_components_have_to_fit(suites: str) -> None:
    with pytest.raises(InvalidValue, match=r"Suites|Components"):
        read_sources((stanza(Suites=suites),), RULES)


def test_one_archive_with_two_keys_is_refused() -> None:
    sources = (stanza(), stanza(URIs="https://packages.example.org/debian/", Components="extra", Signed_By=inline(KEY)))

    with pytest.raises(InvalidValue, match="the same key wherever an archive is named"):
        read_sources(sources, RULES)

    assert len(read_sources((stanza(), stanza(Components="extra")), RULES)) == 2


def test_limits_are_kept() -> None:
    with pytest.raises(InvalidValue, match="at most 100"):
        read_sources((stanza(),) * 101, RULES)
    with pytest.raises(InvalidValue, match="at most 1000000"):
        read_sources((stanza() + "# " + "x" * 1_000_000,), RULES)


def test_sources_of_the_release_service_go_through_the_proxy_of_the_node() -> None:
    text = "#ReleaseService\n" + stanza(URIs="https://packages.example.org/files/debian")
    rules = SourceRules(hosts=RULES.hosts, release_service="http://localhost:60444/")

    assert "URIs: http://localhost:60444/files/debian\n" in written(text, rules=rules)
    with pytest.raises(InvalidValue, match="a node with a proxy to the Release Service"):
        read_sources((text,), RULES)
    with pytest.raises(InvalidValue, match="a host among"):
        read_sources(("#ReleaseService\n" + stanza(URIs="https://evil.example/x"),), rules)


@pytest.mark.parametrize("url", ["localhost:60444", "ftp://localhost/", "http://localhost/ x", "http://u@localhost/"])
def test_a_proxy_that_is_no_url_is_refused_when_the_node_is_set_up(url: str) -> None:
    with pytest.raises(InvalidValue, match="release_service"):
        SourceRules(release_service=url)


pieces = st.sampled_from(
    [
        "Types: deb\n", "URIs: https://packages.example.org/debian\n", "Suites: stable\n", "Components: main\n",
        f"Signed-By: {FILE}\n", "Trusted: yes\n", "Allow-Insecure: yes\n", "Check-Valid-Until: no\n", "\n", " ", "\t",
        "#", "\r", "\r\n", ":", "\x0b", "\x1c", "\u2028", "\0", "[", "]", "deb [signed-by=", FILE, "trusted=yes",
        "https://packages.example.org/ stable main", stanza(), stanza()[:-1], f"Signed-By:{inline(KEY)}\n", ".", "=",
        "-----BEGIN PGP SIGNED MESSAGE-----\n", "Hash: SHA256\n", "-----BEGIN PGP SIGNATURE-----\n", "Types",
    ]
)  # fmt: skip
texts = st.lists(pieces | st.text(max_size=3), max_size=12).map("".join)
almost = st.tuples(st.permutations(stanza().splitlines(keepends=True)), texts, st.integers(0, 200)).map(
    lambda parts: (text := "".join(parts[0]))[: parts[2]] + parts[1] + text[parts[2] :]
)


@given(texts | almost)
def test_whatever_comes_in_only_known_fields_come_out(text: str) -> None:
    try:
        out = written(text)
    except InvalidValue:
        return

    names = {line.partition(":")[0] for line in out.splitlines() if line and not line.startswith(" ")}
    assert names <= {"Types", "URIs", "Suites", "Components", "Architectures", "Languages", "Signed-By"}
    assert out.isascii()
    assert "Signed-By" in names
    assert "evil" not in out


@pytest.mark.skipif(bool(missing_tools()), reason=missing_tools())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts | almost)
def test_whatever_comes_in_apt_reads_the_archive_that_was_checked_and_no_other(text: str, tmp_path: Path) -> None:
    try:
        sources = read_sources((text,), RULES)
    except InvalidValue:
        return
    root = tmp_path / "root"
    if not root.exists():
        AptRoot(root)
    (root / "etc/apt/sources.list.d/x.sources").write_text("\n".join(source.to_deb822() for source in sources))

    listed = subprocess.run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)"],
        env={"APT_CONFIG": str(root / "apt.conf"), "PATH": "/usr/bin"},
        capture_output=True,
        check=True,
    ).stdout.decode()

    assert set(listed.split()) == {f"{uri.rstrip('/')}/" for source in sources for uri in source.uris}


@pytest.mark.skipif(bool(missing_tools()), reason=missing_tools())
def test_a_key_that_gnupg_makes_is_taken() -> None:
    with SigningKey() as key:
        assert KEY.splitlines()[0] in written(stanza(Signed_By=inline(key.public_key)))
