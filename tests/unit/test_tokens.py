"""Tokens: who is believed, for which tenant and host, and with which code everybody else is turned away."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from edge_day2.adapters.grpc import Caller, JwksFile, JwtAuthenticator, SingleTenant
from edge_day2.errors import InvalidValue, PermissionDenied, RequestError, Unauthenticated, Unavailable
from edge_day2.testing.local_authority import AUDIENCE, LocalAuthority

TENANT = "6f1c2a9e-0c1d-4a53-9a52-0d6f0a5f1e01"
OTHER = "b7d3e5f2-8a44-4c0b-8d5e-2f9f6c7a1e02"
HOST = "12345678-1234-4234-8234-123456789abc"


@pytest.fixture
def authority(tmp_path: Path) -> LocalAuthority:
    return LocalAuthority(tmp_path)


def check(authority: LocalAuthority, token: str | None, **options: Any) -> Caller:
    """Authenticate once, with new keys."""
    options = {"audience": AUDIENCE, **options}
    return asyncio.run(JwtAuthenticator(JwksFile(path=authority.jwks), **options).authenticate(token))


def refused(authority: LocalAuthority, token: str | None, **options: Any) -> type[RequestError]:
    """Return with which error a token is refused."""
    with pytest.raises(RequestError) as caught:
        check(authority, token, **options)
    if token:
        assert token not in str(caught.value)
    return caught.type


def test_the_tenant_is_the_one_of_the_tokens_role(authority: LocalAuthority) -> None:
    assert check(authority, authority.token(TENANT)) == Caller(tenant=TENANT)


def test_roles_of_other_kinds_and_cases_make_no_difference(authority: LocalAuthority) -> None:
    roles = ["default-roles-master", f"{OTHER}_en-agent-ro", f"{TENANT.upper()}_en-agent-rw", f"{TENANT}_en-agent-rw"]

    assert check(authority, authority.token(TENANT, roles=roles)) == Caller(tenant=TENANT)


@pytest.mark.parametrize(
    "roles",
    [
        [],
        ["en-agent-rw"],
        [f"{TENANT}_en-agent-ro"],
        [f"{TENANT}_en-agent-rw-not"],
        [f"x{TENANT}_en-agent-rw"],
        [f"{TENANT}_en-agent-rw\n"],
        ["project_en-agent-rw"],
        [f"{TENANT}_en-agent-rw", f"{OTHER}_en-agent-rw"],
        [7],
    ],
)
def test_a_role_for_no_tenant_or_for_two_is_unauthenticated(authority: LocalAuthority, roles: list[str]) -> None:
    assert refused(authority, authority.token(TENANT, roles=roles)) is Unauthenticated


@pytest.mark.parametrize("access", [None, "roles", [], {"roles": f"{TENANT}_en-agent-rw"}, {}])
def test_roles_of_an_unknown_shape_are_no_roles(authority: LocalAuthority, access: object) -> None:
    assert refused(authority, authority.token(TENANT, claims={"realm_access": access})) is Unauthenticated


DEEP = base64.urlsafe_b64encode(b"[" * 9_000).decode()


@pytest.mark.parametrize("token", [None, "", "garbage", "a.b.c", "." * 20_000, f"{DEEP}.e30.AAAA", "\ud800"])
def test_no_token_and_no_token_at_all_are_unauthenticated(authority: LocalAuthority, token: str | None) -> None:
    assert refused(authority, token) is Unauthenticated


def test_an_expired_token_is_denied(authority: LocalAuthority) -> None:
    assert refused(authority, authority.token(TENANT, lasts=-timedelta(minutes=1))) is PermissionDenied


def test_clocks_may_differ_by_the_leeway(authority: LocalAuthority) -> None:
    token = authority.token(TENANT, lasts=-timedelta(minutes=1))

    assert check(authority, token, leeway_seconds=300).tenant == TENANT


def test_a_token_that_never_expires_is_denied(authority: LocalAuthority) -> None:
    claims = jwt.decode(authority.token(TENANT), options={"verify_signature": False})
    del claims["exp"]
    token = authority.sign(claims, headers={"kid": authority.key_id})

    assert refused(authority, token) is PermissionDenied


def test_a_token_for_somebody_else_is_denied(authority: LocalAuthority) -> None:
    assert refused(authority, authority.token(TENANT, audience="account")) is PermissionDenied


def test_a_token_of_another_issuer_is_denied_where_one_is_expected(authority: LocalAuthority) -> None:
    issuer = "https://identity.example.org/realms/master"

    assert check(authority, authority.token(TENANT), issuer=issuer).tenant == TENANT
    assert refused(authority, authority.token(TENANT), issuer="https://elsewhere.example.org") is PermissionDenied


def test_a_token_of_a_foreign_key_with_a_known_id_is_denied(authority: LocalAuthority, tmp_path: Path) -> None:
    forger = LocalAuthority(tmp_path / "forger")

    assert refused(authority, forger.token(TENANT)) is PermissionDenied


def test_a_token_of_an_unknown_key_is_denied(authority: LocalAuthority, tmp_path: Path) -> None:
    forger = LocalAuthority(tmp_path / "forger")
    forger.rotate_token_key("key-2")

    assert refused(authority, forger.token(TENANT)) is PermissionDenied


def test_an_unsigned_token_is_denied(authority: LocalAuthority) -> None:
    claims = jwt.decode(authority.token(TENANT), options={"verify_signature": False})

    assert refused(authority, jwt.encode(claims, "", algorithm="none", headers={"kid": "key-1"})) is PermissionDenied


def test_a_token_signed_with_the_public_key_as_a_secret_is_denied(authority: LocalAuthority) -> None:
    claims = jwt.decode(authority.token(TENANT), options={"verify_signature": False})
    secret = authority.jwks.read_text() * 2

    token = jwt.encode(claims, secret, algorithm="HS256", headers={"kid": "key-1"})

    assert refused(authority, token) is PermissionDenied


def test_a_token_without_a_key_id_is_checked_with_the_only_key(authority: LocalAuthority) -> None:
    claims = jwt.decode(authority.token(TENANT), options={"verify_signature": False})
    token = authority.sign(claims)

    assert check(authority, token).tenant == TENANT


def test_an_authenticator_without_an_audience_is_refused(authority: LocalAuthority) -> None:
    with pytest.raises(InvalidValue, match="audience"):
        JwtAuthenticator(JwksFile(path=authority.jwks), audience="")


@pytest.mark.parametrize("subject", [HOST, HOST.upper(), f"service-account-edgenode-{HOST}", f"f:1:{HOST}"])
def test_a_token_may_be_bound_to_the_host_of_its_subject(authority: LocalAuthority, subject: str) -> None:
    caller = check(authority, authority.token(TENANT, claims={"sub": subject}), host_claim="sub")

    caller.check_host(HOST.upper())
    with pytest.raises(PermissionDenied, match="another host"):
        caller.check_host(OTHER)


@pytest.mark.parametrize("subject", ["admin", f"a{HOST}", f"{HOST}-2", HOST[:-1]])
def test_a_subject_without_a_host_is_denied_where_one_is_needed(authority: LocalAuthority, subject: str) -> None:
    assert refused(authority, authority.token(TENANT, claims={"sub": subject}), host_claim="sub") is PermissionDenied


def test_a_token_without_a_subject_is_denied_where_one_is_needed(authority: LocalAuthority) -> None:
    assert refused(authority, authority.token(TENANT), host_claim="sub") is PermissionDenied


def test_without_keys_nothing_can_be_said_of_a_token(authority: LocalAuthority) -> None:
    authority.jwks.unlink()

    assert refused(authority, authority.token(TENANT)) is Unavailable


def lasting(authority: LocalAuthority) -> JwtAuthenticator:
    """Return an authenticator whose keys stay fresh while a test runs."""
    return JwtAuthenticator(JwksFile(path=authority.jwks, fresh_seconds=3600.0), audience=AUDIENCE, remembered=2)


def test_a_token_that_was_checked_is_known_at_once(authority: LocalAuthority) -> None:
    async def story() -> None:
        authenticator, token = lasting(authority), authority.token(TENANT)
        assert authenticator.recognize(token) is None
        await authenticator.authenticate(token)
        assert authenticator.recognize(token) == Caller(tenant=TENANT)
        assert authenticator.recognize(token + "x") is None
        assert authenticator.recognize(None) is None

    asyncio.run(story())


def test_a_known_token_is_forgotten_when_it_expires(authority: LocalAuthority) -> None:
    async def story() -> None:
        now = [time.time()]
        keys = JwksFile(path=authority.jwks, fresh_seconds=3600.0)
        authenticator = JwtAuthenticator(keys, audience=AUDIENCE, leeway_seconds=10, clock=lambda: now[0])
        token = authority.token(TENANT, lasts=timedelta(minutes=1))
        await authenticator.authenticate(token)
        now[0] += 65
        assert authenticator.recognize(token) is not None
        now[0] += 10
        assert authenticator.recognize(token) is None

    asyncio.run(story())


def test_only_so_many_tokens_are_remembered_and_the_oldest_goes_first(authority: LocalAuthority) -> None:
    async def story() -> None:
        authenticator = lasting(authority)
        tokens = [authority.token(TENANT, claims={"jti": str(number)}) for number in range(3)]
        for token in tokens:
            await authenticator.authenticate(token)
        assert [authenticator.recognize(token) is not None for token in tokens] == [False, True, True]

    asyncio.run(story())


def test_a_known_token_is_forgotten_when_its_key_is_withdrawn(authority: LocalAuthority) -> None:
    async def story() -> None:
        keys = JwksFile(path=authority.jwks, fresh_seconds=0.0)
        authenticator, old = JwtAuthenticator(keys, audience=AUDIENCE), authority.token(TENANT)
        await authenticator.authenticate(old)
        authority.rotate_token_key("key-2")
        await authenticator.authenticate(authority.token(TENANT))
        assert authenticator.recognize(old) is None
        with pytest.raises(PermissionDenied, match="unknown key"):
            await authenticator.authenticate(old)

    asyncio.run(story())


def test_keys_for_encryption_sign_no_tokens(authority: LocalAuthority) -> None:
    document = json.loads(authority.jwks.read_text())
    document["keys"][0]["use"] = "enc"
    authority.jwks.write_text(json.dumps(document))

    assert refused(authority, authority.token(TENANT)) is Unavailable


@pytest.mark.parametrize(("bits", "expected"), [(1024, PermissionDenied), (2048, None)])
@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits:jwt.warnings.InsecureKeyLengthWarning")
def test_a_key_that_can_be_broken_signs_no_tokens(
    authority: LocalAuthority, bits: int, expected: type[RequestError] | None
) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=bits)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    authority.jwks.write_text(json.dumps({"keys": [{**public, "kid": "rsa", "use": "sig", "alg": "RS256"}]}))
    claims = jwt.decode(authority.token(TENANT), options={"verify_signature": False})
    token = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "rsa"})

    if expected is None:
        assert check(authority, token).tenant == TENANT
    else:
        assert refused(authority, token) is expected


def test_a_single_tenant_believes_everybody() -> None:
    everybody = SingleTenant(tenant=TENANT)

    assert everybody.recognize(None) == asyncio.run(everybody.authenticate("x")) == Caller(tenant=TENANT)


def test_keys_that_a_token_brings_or_points_to_are_ignored(authority: LocalAuthority, tmp_path: Path) -> None:
    forger = LocalAuthority(tmp_path / "forger")
    own = json.loads(forger.jwks.read_text())["keys"][0]
    claims = jwt.decode(forger.token(TENANT), options={"verify_signature": False})
    with socket.create_server(("127.0.0.1", 0)) as trap:
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/jwks"
        for header in ({"jwk": own}, {"jku": url}, {"x5u": url}, {"jku": url, "jwk": own, "kid": "key-1"}):
            assert refused(authority, forger.sign(claims, headers=header)) is PermissionDenied
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_a_token_that_claims_an_algorithm_and_is_signed_with_a_secret_is_denied(authority: LocalAuthority) -> None:
    secret = b"secret-secret-secret-secret-secret"
    document = json.loads(authority.jwks.read_text())
    oct_key = {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(secret).decode().rstrip("=")}
    authority.jwks.write_text(json.dumps({"keys": [*document["keys"], oct_key]}))
    claims = jwt.decode(authority.token(TENANT), options={"verify_signature": False})
    for algorithm in ("HS256", "RS256", "ES256"):
        head = json.dumps({"alg": algorithm, "kid": "secret"}).encode()
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, json.dumps(claims).encode()))
        mac = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")

        assert refused(authority, b".".join((signed, mac)).decode()) is PermissionDenied


def test_what_is_remembered_of_tokens_is_no_token(authority: LocalAuthority) -> None:
    async def story() -> None:
        authenticator, token = lasting(authority), authority.token(TENANT)
        await authenticator.authenticate(token)
        assert authenticator.recognize(token) is not None
        assert token not in repr(vars(authenticator))
        assert token.rpartition(".")[2] not in repr(vars(authenticator))

    asyncio.run(story())
