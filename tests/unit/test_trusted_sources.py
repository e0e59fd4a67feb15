"""Which addresses images may come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.adapters.images import TrustedSource, TrustedSources
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import UntrustedSource

SOURCES = TrustedSources(
    ["https://good.example/images", "http://plain.example:8080/", "https://[2001:db8::1]/a/b"],
    base_url="https://good.example/images/edge",
)


@pytest.mark.parametrize(
    "url",
    [
        "https://good.example/images/edge.raw.gz",
        "https://good.example:443/images/deep/below/edge.raw.gz",
        "https://GOOD.example/images/edge.raw.gz",
        "https://good.example/images/edge.raw.gz?signature=a%2Fb",
        "https://good.example/images/3.0%2B1/edge.raw.gz",
        "http://plain.example:8080/edge.raw.gz",
        "https://[2001:db8::1]/a/b/edge.raw.gz",
    ],
)
def test_what_lies_in_a_source_is_allowed(url: str) -> None:
    assert SOURCES.resolve(url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://good.example.evil.org/images/edge.raw.gz",
        "https://good.example@evil.org/images/edge.raw.gz",
        "https://somebody@good.example/images/edge.raw.gz",
        "https://good.example:8443/images/edge.raw.gz",
        "https://good.example./images/edge.raw.gz",
        "http://good.example/images/edge.raw.gz",
        "https://plain.example:8080/edge.raw.gz",
        "https://good.example/images-evil/edge.raw.gz",
        "https://good.example/images",
        "https://good.example/images/../edge.raw.gz",
        "https://good.example/images/./edge.raw.gz",
        "https://good.example/images/%2e%2e/edge.raw.gz",
        "https://good.example/images/%2E./edge.raw.gz",
        "https://good.example/images/%252e%252e/edge.raw.gz",
        "https://good.example/images/..%2fedge.raw.gz",
        "https://good.example/images/..%5cedge.raw.gz",
        "https://good.example/images/a%00b",
        "https://good.example/images\\..\\edge.raw.gz",
        "https://good.example\\@evil.org/images/edge.raw.gz",
        "https://good.example/images/edge.raw.gz#fragment",
        "https://good.example/%69mages/edge.raw.gz",
        "https://good.example/images/a b",
        "https://good.example/images/\tedge.raw.gz",
        "https://good.example/images/edge.raw.gz\n",
        "https://g\u043e\u043ed.example/images/edge.raw.gz",
        "https://good.example:port/images/edge.raw.gz",
        "https://[good.example/images/edge.raw.gz",
        "https:///images/edge.raw.gz",
        "https:edge.raw.gz",
        "ftp://good.example/images/edge.raw.gz",
        "file:///images/edge.raw.gz",
        "//evil.org/images/edge.raw.gz",
        "/elsewhere/edge.raw.gz",
        "../../edge.raw.gz",
        "../edge/edge.raw.gz",
        "",
        "https://good.example/images/" + "a" * 5000,
    ],
)
def test_what_does_not_is_refused(url: str) -> None:
    with pytest.raises(UntrustedSource):
        SOURCES.resolve(url)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("edge.raw.gz", "https://good.example/images/edge/edge.raw.gz"),
        ("3.0/edge.raw.gz", "https://good.example/images/edge/3.0/edge.raw.gz"),
        ("/images/edge.raw.gz", "https://good.example/images/edge.raw.gz"),
        ("//good.example/images/edge.raw.gz", "https://good.example/images/edge.raw.gz"),
    ],
)
def test_a_relative_address_follows_the_base(url: str, whole: str) -> None:
    assert SOURCES.resolve(url).url == whole


def test_without_a_base_a_relative_address_leads_nowhere() -> None:
    with pytest.raises(UntrustedSource):
        TrustedSources(["https://good.example"]).resolve("edge.raw.gz")


def test_a_redirect_is_relative_to_where_it_was_seen() -> None:
    seen = SOURCES.resolve("http://plain.example:8080/a/edge.raw.gz")

    assert SOURCES.resolve("b.raw.gz", seen_at=seen).url == "http://plain.example:8080/a/b.raw.gz"


@given(st.text(), st.sampled_from(["", "https://good.example/", "https://good.example/images/", "https://"]))
def test_whatever_is_allowed_begins_as_its_source_does(text: str, before: str) -> None:
    try:
        address = SOURCES.resolve(before + text)
    except UntrustedSource:
        return

    assert address.url.lower().startswith(f"{address.source.url.rstrip('/')}/")
    assert "/../" not in address.url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "good.example",
        "https://",
        "https://a@good.example",
        "ftp://good.example",
        "https://good.example?a=b",
        "https://good.example/a/../b",
    ],
)
def test_a_source_is_an_address_with_a_host(url: str) -> None:
    with pytest.raises(InvalidValue):
        TrustedSource(url)


def test_there_is_at_least_one_source_and_the_base_is_in_one() -> None:
    with pytest.raises(InvalidValue, match="sources"):
        TrustedSources([])
    with pytest.raises(InvalidValue, match="base_url"):
        TrustedSources(["https://good.example/images"], base_url="https://good.example/other")


def test_a_token_may_go_unencrypted_to_this_machine_alone(tmp_path: Path) -> None:
    TrustedSource("http://127.0.0.1:8080", token_file=tmp_path / "token")

    with pytest.raises(InvalidValue, match="https"):
        TrustedSource("http://192.0.2.1:8080", token_file=tmp_path / "token")


def test_neither_a_query_nor_a_password_is_ever_shown() -> None:
    with pytest.raises(UntrustedSource) as error:
        SOURCES.resolve("https://me:secret@evil.org/a?signature=hidden")
    assert "secret" not in str(error.value)
    assert "hidden" not in str(error.value)

    assert "hidden" not in str(SOURCES.resolve("https://good.example/images/a?signature=hidden"))
