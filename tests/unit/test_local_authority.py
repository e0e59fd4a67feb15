"""The authority of tests and demos: what it writes is whole, whoever writes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge_day2.testing.local_authority import LocalAuthority


def test_a_token_that_several_threads_write_at_once_is_whole_for_everybody_who_reads_it(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    tokens = [str(number) * 10_000 for number in range(8)]

    def write_and_read(token: str) -> bool:
        return all(authority.token_file(token).read_text() in tokens for _ in range(50))

    with ThreadPoolExecutor(len(tokens)) as writers:
        assert all(writers.map(write_and_read, tokens))


def test_what_it_writes_is_for_its_owner_alone_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    authority.token_file(authority.token("tenant"))
    authority.server()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ca.pem",
        "jwks.json",
        "server.key",
        "server.pem",
        "token",
    ]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
