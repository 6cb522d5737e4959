"""The keys that backends and operators show: to the HTTP API, or as a client's token."""

import hashlib
import hmac
from collections.abc import Iterable

from notifyd.settings.values import Secret


class ApiKeys:
    """A set of keys that can be asked about, in a time that does not depend on what was presented."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Iterable[Secret | str]) -> None:
        texts = (key.reveal() if isinstance(key, Secret) else key for key in keys)
        self._digests = tuple(_digest(text) for text in texts)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holds(self, presented: str | None) -> bool:
        """Whether `presented` is one of the keys. Every key is compared, whichever matches."""
        return self.find(presented) is not None

    def find(self, presented: str | None) -> bytes | None:
        """Return the digest of the key that `presented` is, None where it is none; as `holds` does it."""
        if not presented:
            return None
        digest = _digest(presented)
        return digest if self.holds_digest(digest) else None

    def holds_digest(self, digest: bytes) -> bool:
        """Whether one of the keys has this digest, which `find` returned before."""
        return any(self._matches(digest))

    def place_of(self, presented: str | None) -> int | None:
        """Tell which of the keys it is, from 1; None for none of them."""
        matches = self._matches(_digest(presented or ""))
        return matches.index(True) + 1 if presented and any(matches) else None

    def _matches(self, digest: bytes) -> list[bool]:
        return [hmac.compare_digest(digest, own) for own in self._digests]


def _digest(text: str) -> bytes:
    """Bring keys of any length to one length; a key is random, so no slow hash is needed."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
