"""Certificates and keys in files, for both ends. What is replaced on the disk is used from the next connection on."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Final

import grpc
from attrs import field, frozen

from edge_day2.errors import InvalidValue

_log: Final = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


def _optional_path(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)


def stamp_of(*paths: Path | None) -> Stamp:
    """Return what changes when one of the files does.

    Raises:
        OSError: a file isn't there.
    """
    found = (path.stat() for path in paths if path is not None)
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)


@frozen(kw_only=True)
class ServerTls:
    """PEM files of a server.

    Args:
        certificate: the server's certificate, and those between it and the root.
        key: its private key.
        client_ca: who signs the certificates that clients must show (mutual TLS); None: clients show none.
    """

    certificate: Path = field(converter=Path)
    key: Path = field(converter=Path)
    client_ca: Path | None = field(converter=_optional_path, default=None)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files.

        Raises:
            InvalidValue: the files can't be used now.
        """
        loader = CertificateLoader(self)
        loader.load()
        assert loader.configuration is not None
        return grpc.dynamic_ssl_server_credentials(
            loader.configuration,
            loader.refreshed,  # type: ignore[arg-type]  # the stubs don't know of None for "as before"
            require_client_authentication=self.client_ca is not None,
        )


class CertificateLoader:
    """Reads the files again when they change. Files that don't fit together (half replaced) are left for later."""

    def __init__(self, files: ServerTls) -> None:
        self._files = files
        self._stamp: Stamp = ()
        self._problem = ""
        self.configuration: grpc.ServerCertificateConfiguration | None = None

    def load(self) -> None:
        files = self._files
        try:
            stamp = stamp_of(files.certificate, files.key, files.client_ca)
            # gRPC would take a key that doesn't fit, and then refuse every connection. OpenSSL asks the terminal for a
            # pass phrase where none is given.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files.certificate, files.key, password="")
            if files.client_ca is not None:
                ssl.create_default_context(cafile=files.client_ca)
            configuration = grpc.ssl_server_certificate_configuration(
                [(files.key.read_bytes(), files.certificate.read_bytes())],
                root_certificates=None if files.client_ca is None else files.client_ca.read_bytes(),
            )
            if stamp_of(files.certificate, files.key, files.client_ca) != stamp:
                raise ValueError("they are being replaced")
        except (OSError, ValueError) as error:
            raise InvalidValue(
                "tls", str(files.certificate), f"readable PEM files that fit together: {error}"
            ) from error
        self.configuration, self._stamp, self._problem = configuration, stamp, ""

    def refreshed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is in the files now, None where that is what is used already. gRPC asks at every connection.

        It must be None then: what gRPC is given it sets up anew, under the feet of handshakes that are under way.
        """
        files = self._files
        try:
            if stamp_of(files.certificate, files.key, files.client_ca) == self._stamp:
                return None
            self.load()
        except (OSError, InvalidValue) as error:
            # Each connection tries again, since what is wrong may be no fault of the files; it is said once.
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("the server's certificate isn't reloaded, the earlier one is used: %s", error)
            return None
        _log.info("the server's certificate was reloaded")
        return self.configuration


@frozen(kw_only=True)
class ClientTls:
    """PEM files of a client.

    Args:
        ca: whom to believe the server's certificate; None: gRPC's own list of public authorities.
        certificate, key: what to show a server that asks for a certificate (mutual TLS); both or none.
        server_name: the name that the server's certificate must be for; None: the one in the address.

    Raises:
        InvalidValue: a certificate without its key, or the other way round.
    """

    ca: Path | None = field(converter=_optional_path, default=None)
    certificate: Path | None = field(converter=_optional_path, default=None)
    key: Path | None = field(converter=_optional_path, default=None)
    server_name: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidValue("tls", str(self.certificate or self.key), "a certificate with its key, or neither")

    def stamp(self) -> Stamp:
        """Return what changes when one of the files does.

        Raises:
            OSError: a file isn't there.
        """
        return stamp_of(self.ca, self.certificate, self.key)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return credentials of what is in the files now.

        Raises:
            OSError: a file can't be read.
        """

        def content(path: Path | None) -> bytes | None:
            return None if path is None else path.read_bytes()

        return grpc.ssl_channel_credentials(content(self.ca), content(self.key), content(self.certificate))
