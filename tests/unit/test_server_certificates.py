"""A server's certificates: what is read is whole, and what could not be read is read again."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import grpc
import pytest

from edge_day2.adapters.grpc import ServerTls
from edge_day2.adapters.grpc.tls import CertificateLoader
from edge_day2.testing.local_authority import KeyPair, LocalAuthority


@pytest.fixture
def pair(tmp_path: Path) -> KeyPair:
    return LocalAuthority(tmp_path / "server").server()


@pytest.fixture
def loader(pair: KeyPair) -> CertificateLoader:
    loader = CertificateLoader(ServerTls(certificate=pair.certificate, key=pair.key))
    loader.load()
    return loader


def replace(pair: KeyPair, folder: Path) -> None:
    """Put another certificate and its key in the place of a server's."""
    new = LocalAuthority(folder).server()
    new.key.replace(pair.key)
    new.certificate.replace(pair.certificate)


def test_files_that_did_not_change_are_not_read_again(loader: CertificateLoader) -> None:
    assert loader.refreshed() is None


def test_files_that_changed_are_read_once(loader: CertificateLoader, pair: KeyPair, tmp_path: Path) -> None:
    replace(pair, tmp_path / "new")

    assert loader.refreshed() is not None
    assert loader.refreshed() is None


def test_files_that_could_not_be_read_are_tried_again_though_they_did_not_change(
    loader: CertificateLoader,
    pair: KeyPair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replace(pair, tmp_path / "new")

    def too_many(path: Path) -> bytes:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as crowded, caplog.at_level(logging.ERROR):
        crowded.setattr(Path, "read_bytes", too_many)
        assert [loader.refreshed() for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1

    assert loader.refreshed() is not None


def test_files_that_are_replaced_while_they_are_read_are_never_mixed(
    loader: CertificateLoader, pair: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, third = tmp_path / "second", tmp_path / "third"
    replace(pair, second)
    new = LocalAuthority(third).server()
    given: list[tuple[bytes, bytes]] = []
    make = grpc.ssl_server_certificate_configuration

    def made(pairs: list[tuple[bytes, bytes]], **options: bytes | None) -> grpc.ServerCertificateConfiguration:
        # Both were read; now somebody replaces one of them.
        given.extend(pairs)
        if len(given) == 1:
            shutil.copy(new.certificate, pair.certificate)
        return make(pairs, **options)

    monkeypatch.setattr(grpc, "ssl_server_certificate_configuration", made)
    assert loader.refreshed() is None
    assert loader.refreshed() is None
    new.key.replace(pair.key)

    assert loader.refreshed() is not None
    assert given[-1] == (pair.key.read_bytes(), pair.certificate.read_bytes())
