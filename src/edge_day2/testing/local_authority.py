"""A certificate authority and an identity provider in a folder: real certificates and real tokens, for tests and demos.

Keys lie in the folder unencrypted. Nothing that is made here belongs in front of real nodes.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUDIENCE: Final = "maintenance-manager"
_YEAR: Final = timedelta(days=365)
_NAMES: Final = ("localhost", "127.0.0.1")


@frozen
class KeyPair:
    """The PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


class LocalAuthority:
    """Issues certificates and tokens; makes its own keys when it is made.

    Args:
        folder: where everything is written; made where it doesn't exist.
        name: of the authority.
    """

    def __init__(self, folder: str | os.PathLike[str], *, name: str = "local authority") -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca = self.folder / "ca.pem"
        self.jwks = self.folder / "jwks.json"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key(), datetime.now(UTC), _YEAR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        _write(self.ca, self._certificate.public_bytes(serialization.Encoding.PEM))
        self._token_key = ec.generate_private_key(ec.SECP256R1())
        self.key_id = ""
        self.rotate_token_key("key-1")

    def rotate_token_key(self, key_id: str) -> None:
        """Sign tokens with a new key from now on, and publish that one alone."""
        self._token_key = ec.generate_private_key(ec.SECP256R1())
        self.key_id = key_id
        key: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(self._token_key.public_key(), as_dict=True)
        document = {"keys": [{**key, "kid": key_id, "use": "sig", "alg": "ES256"}]}
        _write(self.jwks, json.dumps(document).encode())

    def server(self, name: str = "server", *, names: Sequence[str] = _NAMES, lasts: timedelta = _YEAR) -> KeyPair:
        """Issue a certificate for a server that is reached by `names` (host names and addresses).

        With a negative `lasts` it ended so long ago.
        """
        return self._issue(name, names, lasts, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str = "client", *, lasts: timedelta = _YEAR) -> KeyPair:
        """Issue a certificate for a client."""
        return self._issue(name, (), lasts, ExtendedKeyUsageOID.CLIENT_AUTH)

    def token(
        self,
        tenant: str,
        *,
        lasts: timedelta = timedelta(hours=1),
        audience: str = AUDIENCE,
        roles: Sequence[str] | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a token for a node of `tenant`, as an identity provider would; `claims` replaces or adds some."""
        now = datetime.now(UTC)
        content = {
            "aud": audience,
            "iss": "https://identity.example.org/realms/master",
            "iat": now + min(lasts, timedelta(0)),
            "exp": now + lasts,
            "realm_access": {"roles": [f"{tenant}_en-agent-rw"] if roles is None else list(roles)},
            **(claims or {}),
        }
        return self.sign(content, headers={"kid": self.key_id})

    def sign(self, claims: Mapping[str, Any], *, headers: Mapping[str, Any] | None = None) -> str:
        """Return a token that says exactly `claims`."""
        return jwt.encode(dict(claims), self._token_key, algorithm="ES256", headers=dict(headers or {}))

    def token_file(self, token: str, name: str = "token") -> Path:
        """Write a token where an agent can read it; return the file."""
        path = self.folder / name
        _write(path, token.encode())
        return path

    def _issue(self, name: str, names: Sequence[str], lasts: timedelta, usage: x509.ObjectIdentifier) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        begin = datetime.now(UTC) + 2 * min(lasts, timedelta(0))
        builder = self._builder(subject, key.public_key(), begin, abs(lasts))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = KeyPair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(pair.key, private)
        _write(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return pair

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, lasts: timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            # The clocks of two machines differ.
            .not_valid_before(begin - timedelta(minutes=5))
            .not_valid_after(begin + lasts)
        )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable for its owner alone."""
    # A name of its own: several threads may write a token at once.
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(new).replace(path)
