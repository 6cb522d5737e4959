"""JSON Web Tokens: `Verifier` makes an Identity of one, `Signer` makes one.

Only what is configured decides: the algorithm is the key's, never the token's; nothing a token says makes this node
call anybody. Source: RFC 7519, RFC 8725.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jwt

from notifyd.auth.claims import read_claims
from notifyd.auth.compact import CompactToken, read_object, read_token
from notifyd.auth.revocations import Revocations
from notifyd.auth.verification_keys import VerificationKey, load_keys
from notifyd.errors import NotifydError, Unauthorized
from notifyd.model import Identity
from notifyd.settings.types import AuthSettings, TokenKey


class Verifier:
    """Checks tokens against the configured keys, issuer and audience, and `revocations`. `unix_s` is the clock.

    Raises ConfigurationError when a configured key cannot be used.
    """

    __slots__ = ("_auth", "_by_algorithm", "_by_kid", "_revocations", "_unix_s")

    def __init__(self, auth: AuthSettings, unix_s: Callable[[], float], revocations: Revocations | None = None) -> None:
        self._auth = auth
        self._unix_s = unix_s
        self._revocations = revocations
        self._by_kid: dict[str, VerificationKey] = {}
        self._by_algorithm: dict[str, list[VerificationKey]] = {}
        for key in load_keys(auth):
            self._by_algorithm.setdefault(key.algorithm, []).append(key)
            if key.kid is not None:
                self._by_kid[key.kid] = key

    def verify(self, token: str) -> Identity:
        """Return whom the token speaks for.

        Raises Unauthorized. Its text is for the log and holds nothing of the token; a client is told one and the same
        thing whatever it says.
        """
        read = read_token(token)
        if not any(key.holds(read.signed, read.signature) for key in self._candidates(read)):
            raise Unauthorized("no configured key made this signature", "signature")
        now_s = self._unix_s()
        identity = read_claims(read_object(read.payload, "payload"), self._auth, now_s)
        if self._revocations is not None and self._revocations.covers(identity, now_s):
            raise Unauthorized("the token was revoked", "revoked")
        return identity

    def _candidates(self, token: CompactToken) -> Sequence[VerificationKey]:
        if token.kid is None:
            return self._by_algorithm.get(token.algorithm, ())
        key = self._by_kid.get(token.kid)
        return () if key is None or key.algorithm != token.algorithm else (key,)


class Signer:
    """Signs tokens with the first configured secret, or with the one that has this `kid`.

    Raises NotifydError when there is none: public keys cannot sign.
    """

    __slots__ = ("_auth", "_key")

    def __init__(self, auth: AuthSettings, kid: str | None = None) -> None:
        self._auth = auth
        self._key = _choose_key(auth.keys, kid)

    def sign(
        self,
        user: str,
        *,
        now_s: float,
        expires_in_s: float | None = None,
        subscribe: Sequence[str] = (),
        publish: Sequence[str] = (),
        topics: Sequence[str] = (),
        token_id: str | None = None,
    ) -> str:
        """Return a token for `user`, issued at the Unix time `now_s`; without `expires_in_s` it never expires.

        By its `token_id` (`jti`) it can be revoked alone.

        Raises Unauthorized when a Verifier of the same settings would refuse it: an empty user, a pattern that is none.
        """
        claims: dict[str, Any] = {"sub": user, "iat": int(now_s)}
        if expires_in_s is not None:
            claims["exp"] = math.ceil(now_s + expires_in_s)
        named = {"iss": self._auth.issuer, "aud": self._auth.audience, "jti": token_id}
        lists = {"subscribe": list(subscribe), "publish": list(publish), "topics": list(topics)}
        claims.update({name: value for name, value in (named | lists).items() if value})
        read_claims(claims, self._auth, now_s)
        return self._encode(claims)

    def _encode(self, claims: dict[str, Any]) -> str:
        key, secret = self._key
        headers = {} if key.kid is None else {"kid": key.kid}
        with warnings.catch_warnings():
            # `notifyd check` speaks of weak secrets, where the administrator reads it; here it would spoil the output.
            warnings.simplefilter("ignore")
            return jwt.encode(claims, secret, str(key.algorithm), headers)


def _choose_key(keys: Sequence[TokenKey], kid: str | None) -> tuple[TokenKey, bytes]:
    for key in keys:
        if kid in (None, key.kid) and key.secret is not None:
            return key, key.secret.key_bytes()
    if kid is not None and all(key.kid != kid for key in keys):
        known = ", ".join(key.kid for key in keys if key.kid and key.secret is not None)
        raise NotifydError(f"no key has the kid {kid!r}; those that can sign: {known or 'none'}")
    raise NotifydError(
        "no key can sign: tokens are signed with a secret (algorithm HS256, HS384 or HS512), and public keys only "
        "verify; sign where the private key is, or add a secret to auth.keys (`notifyd init` writes one)"
    )
