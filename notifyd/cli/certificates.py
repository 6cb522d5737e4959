"""Looking at the certificates of `listen.tls` as an administrator should: whether they are about to expire."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from notifyd.settings import Tls

SOON = timedelta(days=14)
"""Long enough before the end to get another certificate."""


def expiry_warnings(tls: Tls) -> Iterator[tuple[str, str]]:
    """Yield the keys whose certificates have expired or soon will, and when. The files are known to be readable PEM."""
    yield from _warn("listen.tls.certificate", tls.certificate)
    if tls.client_ca is not None:
        yield from _warn("listen.tls.client_ca", tls.client_ca)


def _warn(key: str, path: Path) -> Iterator[tuple[str, str]]:
    ends = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes()))
    now = datetime.now(UTC)
    if ends < now:
        yield key, f"{path} expired on {ends:%Y-%m-%d}"
    elif ends < now + SOON:
        yield key, f"{path} expires on {ends:%Y-%m-%d}"
