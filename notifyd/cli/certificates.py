"""Checking the files of `listen.tls` one by one: OpenSSL's own errors do not say which file is wrong."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from notifyd.errors import ConfigurationError
from notifyd.settings import Tls

SOON = timedelta(days=14)


def check_certificates(tls: Tls) -> Iterator[tuple[str, str]]:
    """Read certificate, key and client CA; yield warnings of those that have expired or soon will.

    Raises ConfigurationError that names the key and the file.
    """
    yield from _check_chain("listen.tls.certificate", tls.certificate)
    _check_key("listen.tls.key", tls.key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError:
        raise _error("listen.tls.key", f"{tls.key} is not the key of {tls.certificate}") from None
    if tls.client_ca is not None:
        yield from _check_chain("listen.tls.client_ca", tls.client_ca)


def _check_chain(key: str, path: Path) -> Iterator[tuple[str, str]]:
    try:
        certificates = x509.load_pem_x509_certificates(_read(key, path))
    except ValueError:
        raise _error(key, f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
    now, ends = datetime.now(UTC), min(certificate.not_valid_after_utc for certificate in certificates)
    if ends < now:
        yield key, f"{path} expired on {ends:%Y-%m-%d}"
    elif ends < now + SOON:
        yield key, f"{path} expires on {ends:%Y-%m-%d}"


def _check_key(key: str, path: Path) -> None:
    try:
        load_pem_private_key(_read(key, path), password=None)
    except TypeError:
        raise _error(
            key, f"{path} is encrypted; a node needs it without a password, readable by its user only"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _error(key, f"{path} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)") from None


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _error(key, f"cannot read {path}: {error.strerror}") from None


def _error(key: str, reason: str) -> ConfigurationError:
    return ConfigurationError("configuration", key, reason)
