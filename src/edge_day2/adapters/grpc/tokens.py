"""Who calls: a bearer token (JWT) is checked, and says of which tenant the caller is and for which host it may speak.

The tenant comes from the token's roles alone, never from a header, which a client can set as it likes. Codes are those
that agents know: without a token, with one that isn't a token, or with a role for no tenant or for several the caller
is UNAUTHENTICATED; with one that isn't valid (any more) it is PERMISSION_DENIED.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import jwt
from attrs import frozen
from jwt.exceptions import DecodeError, ExpiredSignatureError, InvalidSignatureError, PyJWTError

from edge_day2.adapters.grpc.keys import ALGORITHMS, KeyRing, KeySource
from edge_day2.domain.resources import UUID
from edge_day2.errors import InvalidValue, PermissionDenied, Unauthenticated

_ROLE: Final = re.compile(rf"({UUID.pattern})_en-agent-rw".replace("(-", "(?:-"))
_UUID_AT_THE_END: Final = re.compile(rf"(?:.*[^0-9A-Za-z])?({UUID.pattern})".replace("(-", "(?:-"), re.DOTALL)
_LONGEST_TOKEN: Final = 16_384


@frozen(kw_only=True)
class Caller:
    """Whose report it is. `host_guid` (lower case) is the only host that the caller may speak for, None: any host."""

    tenant: str
    host_guid: str | None = None

    def check_host(self, guid: str) -> None:
        """Refuse a report for another host.

        Raises:
            PermissionDenied: the caller's token is bound to another host.
        """
        if self.host_guid is not None and self.host_guid != guid.lower():
            raise PermissionDenied("the token is for another host")


class Authenticator(Protocol):
    """Knows callers by their bearer token, None where they sent none."""

    def recognize(self, token: str | None) -> Caller | None:
        """Return whose token it is where that is known at once, without waiting for anything."""
        ...

    async def authenticate(self, token: str | None) -> Caller:
        """Return whose token it is.

        Raises:
            Unauthenticated: no token, no token at all, or not of one tenant.
            PermissionDenied: the token isn't valid, or not any more.
            Unavailable: it can't be checked now.
        """
        ...


@frozen(kw_only=True)
class SingleTenant:
    """Believes everybody to be of one tenant: for tests, and for a server that only a trusted proxy can reach."""

    tenant: str

    def recognize(self, token: str | None) -> Caller | None:
        """See `Authenticator.recognize`."""
        return Caller(tenant=self.tenant)

    async def authenticate(self, token: str | None) -> Caller:
        """See `Authenticator.authenticate`."""
        return Caller(tenant=self.tenant)


class JwtAuthenticator:
    """Checks signature, audience, issuer and times of tokens. Belongs to one event loop.

    An agent sends the same token again and again, so what was verified is remembered until it expires or the keys
    change; by its digest, so that what is remembered is small, and no token.

    Args:
        keys: where the public keys are.
        audience: a token must name one of these in `aud`.
        issuer: what `iss` must be; None: anything.
        host_claim: the claim (`sub`, for example) that must be or end with the GUID of the host that the token is for;
            None: a token may speak for any host of its tenant.
        leeway_seconds: by how much clocks may differ.
        remembered: how many tokens are remembered, of some 400 bytes each.
        clock: seconds since 1970.

    Raises:
        InvalidValue: no audience.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        audience: str | Sequence[str],
        issuer: str | None = None,
        host_claim: str | None = None,
        leeway_seconds: float = 10.0,
        remembered: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not audience:
            raise InvalidValue("audience", audience, "the name that tokens for this server carry in `aud`")
        self._ring = KeyRing(keys)
        self._audience = audience
        self._issuer = issuer
        self._host_claim = host_claim
        self._leeway = leeway_seconds
        self._remembered = remembered
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._generation = 0

    def recognize(self, token: str | None) -> Caller | None:
        """See `Authenticator.recognize`."""
        found = self._known.get(_digest(token)) if token is not None else None
        if found is None or not self._ring.fresh or self._generation != self._ring.generation:
            return None
        expires, caller = found
        return caller if self._clock() < expires else None

    async def authenticate(self, token: str | None) -> Caller:
        """See `Authenticator.authenticate`."""
        if not token:
            raise Unauthenticated("a bearer token is needed")
        if len(token) > _LONGEST_TOKEN:
            raise Unauthenticated("the bearer token is too long")
        claims = await self._claims(token)
        caller = Caller(tenant=_tenant(claims), host_guid=self._host(claims))
        if self._generation != self._ring.generation:
            self._known.clear()
            self._generation = self._ring.generation
        digest = _digest(token)
        self._known[digest] = (float(claims["exp"]) + self._leeway, caller)
        self._known.move_to_end(digest)
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return caller

    async def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._ring.key(key_id)
            if key is None:
                raise PermissionDenied("the token is signed with an unknown key")
            return jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "aud"], "enforce_minimum_key_length": True},
            )
        except ExpiredSignatureError as error:
            raise PermissionDenied("the token has expired") from error
        except InvalidSignatureError as error:
            raise PermissionDenied("the token isn't valid") from error
        except (DecodeError, RecursionError, UnicodeError) as error:
            raise Unauthenticated("the bearer token isn't a token") from error
        except PyJWTError as error:
            raise PermissionDenied("the token isn't valid") from error

    def _host(self, claims: Mapping[str, Any]) -> str | None:
        if self._host_claim is None:
            return None
        found = _UUID_AT_THE_END.fullmatch(str(claims.get(self._host_claim, "")))
        if found is None:
            raise PermissionDenied("the token names no host")
        return found[1].lower()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _tenant(claims: Mapping[str, Any]) -> str:
    access = claims.get("realm_access")
    roles = access.get("roles") if isinstance(access, dict) else None
    matches = [_ROLE.fullmatch(role) for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
    tenants = {found[1].lower() for found in matches if found is not None}
    if len(tenants) != 1:
        raise Unauthenticated("the token has no role for a tenant, or for several")
    return tenants.pop()
