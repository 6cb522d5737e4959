"""The keys backends show to the HTTP API."""

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
        return self.place_of(presented) is not None

    def place_of(self, presented: str | None) -> int | None:
        """Tell which of the keys it is, from 1; None for none of them."""
        if not presented:
            return None
        digest = _digest(presented)
        matches = [hmac.compare_digest(digest, own) for own in self._digests]
        return matches.index(True) + 1 if any(matches) else None


def _digest(text: str) -> bytes:
    """Bring keys of any length to one length; a key is random, so no slow hash is needed."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
