"""The configured keys, made ready once: each with its one algorithm. The cryptography is PyJWT's.

Source: RFC 7517; RFC 7518 section 3; RFC 8037.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK, PyJWTError
from jwt.algorithms import get_default_algorithms

from notifyd.errors import ConfigurationError
from notifyd.settings.key_sets import signing_members
from notifyd.settings.types import Algorithm, AuthSettings, TokenKey

CONFIGURATION = "configuration"
"""The source of an error found here, where the name of the file is not known."""

_IMPLEMENTATIONS = get_default_algorithms()
_SUPPORTED = frozenset(get_args(Algorithm))
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_KEY_ERRORS = (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm)


class VerificationKey(NamedTuple):
    """A key that checks signatures of exactly one algorithm. `key` is what that algorithm's implementation wants."""

    algorithm: str
    kid: str | None
    key: Any

    def holds(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's for `signed`."""
        return _IMPLEMENTATIONS[self.algorithm].verify(signed, self.key, signature)


def load_keys(auth: AuthSettings) -> tuple[VerificationKey, ...]:
    """Make every configured key ready. Raises ConfigurationError for one that its algorithm cannot use."""
    return tuple(ready for place, key in enumerate(auth.keys) for ready in _load(key, f"auth.keys[{place}]"))


def _load(key: TokenKey, path: str) -> Iterator[VerificationKey]:
    if key.jwks is not None:
        yield from _load_set(key, key.jwks, path)
        return
    algorithm = str(key.algorithm)
    content: Any = key.public_key
    if key.secret is not None:
        content, path = key.secret.key_bytes(), f"{path}.secret"
    else:
        path = f"{path}.public_key"
    try:
        yield VerificationKey(algorithm, key.kid, _IMPLEMENTATIONS[algorithm].prepare_key(content))
    except _KEY_ERRORS as error:
        raise ConfigurationError(CONFIGURATION, path, _explain(algorithm, content, error)) from None


def _explain(algorithm: str, content: Any, error: Exception) -> str:
    if isinstance(content, str) and "-----BEGIN CERTIFICATE" in content:
        return "is a certificate; take the key out of it (openssl x509 -in CERTIFICATE -pubkey -noout)"
    # The errors of a secret are PyJWT's own sentences; those of a PEM text are about its form. Neither quotes the key.
    return f"cannot be used with {algorithm}: {error}"


def _load_set(key: TokenKey, jwks: str, path: str) -> Iterator[VerificationKey]:
    found = False
    for member in signing_members(jwks):
        algorithm = member.get("alg", key.algorithm)
        if algorithm is None:
            reason = 'a key of the set names no "alg"; write algorithm = "..." beside jwks'
            raise ConfigurationError(CONFIGURATION, f"{path}.jwks", reason)
        if not _is_usable(member, algorithm, key.algorithm):
            continue
        found = True
        yield _load_member(member, algorithm, f"{path}.jwks")
    if not found:
        wanted = key.algorithm or "a supported algorithm"
        raise ConfigurationError(CONFIGURATION, f"{path}.jwks", f"holds no key for {wanted}")


def _is_usable(member: dict[str, Any], algorithm: Any, wanted: str | None) -> bool:
    """Whether to take a key of a set; those for other purposes and of other kinds are passed over."""
    if not isinstance(algorithm, str) or algorithm not in _SUPPORTED or (wanted is not None and algorithm != wanted):
        return False
    return _KEY_TYPES.get(algorithm[:2]) == member.get("kty")


def _load_member(member: dict[str, Any], algorithm: str, path: str) -> VerificationKey:
    kid = member.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ConfigurationError(CONFIGURATION, path, "holds a kid that is not text")
    try:
        implementation = _IMPLEMENTATIONS[algorithm]
        return VerificationKey(algorithm, kid, implementation.prepare_key(PyJWK(member, algorithm).key))
    except _KEY_ERRORS as error:
        raise ConfigurationError(CONFIGURATION, path, f"holds a key that cannot be used: {error}") from None
