"""Certificates for tests, made anew for every run: an authority, a server, its clients, and strangers."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from notifyd.settings import Tls

NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
YESTERDAY = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)

_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Certificates:
    """PEM files. A `…_key` belongs to the certificate of that name; `authority` signed all but the stranger's."""

    authority: Path
    server: Path
    server_key: Path
    encrypted_key: Path
    client: Path
    client_key: Path
    expired_client: Path
    expired_client_key: Path
    stranger: Path
    stranger_key: Path

    def tls(self, *, client_ca: bool = False) -> Tls:
        """The settings of a node that serves with these."""
        return Tls(certificate=self.server, key=self.server_key, client_ca=self.authority if client_ca else None)

    def client_context(self, *, certificate: str = "", version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """What a client needs to trust the server: with the `certificate` "client", "stranger", … if one is named."""
        context = ssl.create_default_context(cafile=self.authority)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if certificate:
            context.load_cert_chain(getattr(self, certificate), getattr(self, f"{certificate}_key"))
        return context


class Authority:
    """Signs certificates into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._key, NOT_AFTER).issuer_name(self._name)
        # Python 3.13 asks for all that RFC 5280 does: key usage and identifiers too.
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def sign(
        self, name: str, usage: x509.ObjectIdentifier, not_after: datetime.datetime = NOT_AFTER
    ) -> tuple[Path, Path]:
        """Write certificate and key of `name`, valid for this machine's loopback names."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        builder = _builder(_name(name), key, not_after).issuer_name(self._name)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False
        )
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        certificate, key_path = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        key_path.write_bytes(_key_pem(key, serialization.NoEncryption()))
        return certificate, key_path


def write_certificates(directory: Path) -> Certificates:
    """Make them all in `directory`."""
    authority, other = Authority(directory, "authority"), Authority(directory, "other")
    server, server_key = authority.sign("server", ExtendedKeyUsageOID.SERVER_AUTH)
    client, client_key = authority.sign("client", ExtendedKeyUsageOID.CLIENT_AUTH)
    expired, expired_key = authority.sign("expired", ExtendedKeyUsageOID.CLIENT_AUTH, YESTERDAY)
    stranger, stranger_key = other.sign("stranger", ExtendedKeyUsageOID.CLIENT_AUTH)
    encrypted = directory / "encrypted.key"
    key = serialization.load_pem_private_key(server_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    encrypted.write_bytes(_key_pem(key, serialization.BestAvailableEncryption(b"secret")))
    return Certificates(
        authority.path, server, server_key, encrypted, client, client_key, expired, expired_key, stranger, stranger_key
    )


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of this test run."""
    return write_certificates(tmp_path_factory.mktemp("certificates"))


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, not_after: datetime.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(NOT_BEFORE).not_valid_after(not_after)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
