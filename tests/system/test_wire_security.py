"""Who gets in: real certificates and tokens of every wrong kind, against a real server on this machine."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_day2.adapters.grpc import ClientTls, GrpcLink, ServerTls
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import InvalidValue, NotFound, PermissionDenied, RequestError, Unauthenticated, Unavailable
from edge_day2.testing.local_authority import KeyPair, LocalAuthority
from wire_server import IDLE, ONCE, OTHER_TENANT, TENANT, guid, says, serving


def files(pair: KeyPair, client_ca: Path | None = None) -> ServerTls:
    """Return the settings of a server with this certificate."""
    return ServerTls(certificate=pair.certificate, key=pair.key, client_ca=client_ca)


def outcome(link: GrpcLink, number: int = 0) -> type[RequestError] | OSType | None:
    """Return how an idle report ends: the OS type of the answer, or the kind of error."""
    with link:
        try:
            return link.platform_update_status(says(UpdateStatusType.UP_TO_DATE, number)).os_type
        except RequestError as error:
            return type(error)


def test_a_good_certificate_and_a_good_token_get_an_answer(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert outcome(server.link()) is OSType.IMMUTABLE


@pytest.mark.parametrize("wrong", ["expired", "not for this host", "of another authority"])
def test_an_agent_leaves_a_server_with_a_wrong_certificate_alone(tmp_path: Path, wrong: str) -> None:
    authority = LocalAuthority(tmp_path / "server")
    match wrong:
        case "expired":
            pair = authority.server(lasts=-timedelta(days=1))
        case "not for this host":
            pair = authority.server(names=["elsewhere.example.org"])
        case _:
            pair = LocalAuthority(tmp_path / "foreign").server()

    with serving(tmp_path, tls=files(pair)) as server:
        link = server.link(tls=ClientTls(ca=authority.ca))

        assert outcome(link) is Unavailable


def test_an_agent_may_expect_another_name_than_that_of_the_address(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path / "server")
    with serving(tmp_path, tls=files(authority.server(names=["elsewhere.example.org"]))) as server:
        tls = ClientTls(ca=authority.ca, server_name="elsewhere.example.org")

        assert outcome(server.link(tls=tls)) is OSType.IMMUTABLE


def test_an_agent_without_encryption_gets_nothing_from_a_server_with_it(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert outcome(GrpcLink(f"localhost:{server.port}", tls=None, retry=ONCE)) is Unavailable


def test_mutual_tls_lets_in_whom_the_authority_of_the_clients_signed(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path / "clients")
    client = authority.client()
    expired = authority.client("expired", lasts=-timedelta(days=1))
    stranger = LocalAuthority(tmp_path / "foreign").client()

    with serving(tmp_path, tls=files(authority.server(), client_ca=authority.ca)) as server:

        def tls(pair: KeyPair | None) -> ClientTls:
            shown: dict[str, Any] = {} if pair is None else {"certificate": pair.certificate, "key": pair.key}
            return ClientTls(ca=authority.ca, **shown)

        assert outcome(server.link(tls=tls(client))) is OSType.IMMUTABLE
        assert outcome(server.link(tls=tls(None))) is Unavailable
        assert outcome(server.link(tls=tls(stranger))) is Unavailable
        assert outcome(server.link(tls=tls(expired))) is Unavailable


def test_a_token_is_needed_and_must_be_valid(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        issue = server.authority.token
        forger = LocalAuthority(tmp_path / "forger")

        bare = GrpcLink(f"localhost:{server.port}", tls=ClientTls(ca=server.authority.ca), retry=ONCE)
        assert outcome(bare) is Unauthenticated
        assert outcome(server.link(token="garbage")) is Unauthenticated
        assert outcome(server.link(token=issue(TENANT, roles=[]))) is Unauthenticated
        assert outcome(server.link(token=issue(TENANT, lasts=-timedelta(minutes=1)))) is PermissionDenied
        assert outcome(server.link(token=issue(TENANT, audience="account"))) is PermissionDenied
        assert outcome(server.link(token=forger.token(TENANT))) is PermissionDenied


def test_a_token_of_another_tenant_finds_no_host(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert outcome(server.link(token=server.authority.token(OTHER_TENANT))) is NotFound


def test_a_header_that_names_another_tenant_is_ignored(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        link = server.link(token=server.authority.token(OTHER_TENANT))
        plain = link._metadata

        def forged() -> tuple[tuple[str, str], ...]:
            return (*plain(), ("activeprojectid", TENANT))

        link._metadata = forged  # type: ignore[method-assign]
        assert outcome(link) is NotFound


def test_a_token_for_another_host_is_denied_where_tokens_are_bound(tmp_path: Path) -> None:
    with serving(tmp_path, nodes=2, host_claim="sub") as server:
        token = server.authority.token(TENANT, claims={"sub": f"edgenode-{guid(0)}"})

        assert outcome(server.link(token=token), 0) is OSType.IMMUTABLE
        assert outcome(server.link(token=token), 1) is PermissionDenied
        # Known by now, and bound all the same.
        assert outcome(server.link(token=token), 1) is PermissionDenied


def test_a_token_that_is_renewed_in_its_file_is_used_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.link(token="garbage") as link:
        with pytest.raises(Unauthenticated):
            link.platform_update_status(IDLE)

        server.authority.token_file(server.authority.token(TENANT))

        assert link.platform_update_status(IDLE).os_type is OSType.IMMUTABLE


def test_a_server_uses_a_renewed_certificate_for_new_connections_and_keeps_old_ones(tmp_path: Path) -> None:
    old, new = LocalAuthority(tmp_path / "old"), LocalAuthority(tmp_path / "new")
    pair = old.server()

    with serving(tmp_path, tls=files(pair)) as server, server.link(tls=ClientTls(ca=old.ca)) as early:
        early.platform_update_status(IDLE)
        renewed = new.server()
        renewed.key.replace(pair.key)
        # Half replaced: the key doesn't fit the certificate yet.
        assert outcome(server.link(tls=ClientTls(ca=old.ca))) is OSType.IMMUTABLE
        renewed.certificate.replace(pair.certificate)

        assert outcome(server.link(tls=ClientTls(ca=new.ca))) is OSType.IMMUTABLE
        assert outcome(server.link(tls=ClientTls(ca=old.ca))) is Unavailable
        early.platform_update_status(IDLE)


def test_a_crowd_that_connects_at_once_is_let_in(tmp_path: Path) -> None:
    with serving(tmp_path, nodes=100) as server, ThreadPoolExecutor(100) as crowd:
        links = [server.link() for _ in range(100)]

        assert list(crowd.map(outcome, links, range(100))) == [OSType.IMMUTABLE] * 100


def test_a_link_uses_a_renewed_authority_at_once(tmp_path: Path) -> None:
    old, new = LocalAuthority(tmp_path / "old"), LocalAuthority(tmp_path / "new")
    with serving(tmp_path, tls=files(new.server())) as server, server.link(tls=ClientTls(ca=old.ca)) as link:
        with pytest.raises(Unavailable):
            link.platform_update_status(IDLE)

        new.ca.replace(old.ca)

        assert link.platform_update_status(IDLE).os_type is OSType.IMMUTABLE


@pytest.mark.parametrize("broken", ["missing", "empty", "another key"])
def test_a_server_with_unusable_certificates_does_not_start(tmp_path: Path, broken: str) -> None:
    pair = LocalAuthority(tmp_path / "server").server()
    match broken:
        case "missing":
            pair.certificate.unlink()
        case "empty":
            os.truncate(pair.certificate, 0)
        case _:
            LocalAuthority(tmp_path / "other").server().key.replace(pair.key)

    with pytest.raises(InvalidValue, match="fit together"), serving(tmp_path, tls=files(pair)):
        pass


def test_a_token_is_not_sent_to_another_machine_without_encryption(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="TLS, to send a token"):
        GrpcLink("maintenance.example.org:443", tls=None, token_file=tmp_path / "token")


def test_a_client_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="a certificate with its key"):
        ClientTls(certificate=tmp_path / "client.pem")
