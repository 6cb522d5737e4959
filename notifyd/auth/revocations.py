"""Tokens that are refused before they expire: one token by its id, or all that a user was given so far."""

from collections.abc import Iterator

import msgspec

from notifyd.model import Identity

FORGET_S = 60.0
"""How often those whose time is over are looked for: what they take is little, and looking is work."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is revoked until `until_s`, after which it may be forgotten: a token, or a user's. Times are Unix seconds.

    Either the token with this `token_id` (its `jti`); or every token of `user` that was issued at `before_s` or
    earlier, or does not say when. Signers write whole seconds: one issued in the second of the revocation is revoked.
    """

    until_s: float
    token_id: str | None = None
    user: str | None = None
    before_s: float = 0.0

    def covers(self, identity: Identity) -> bool:
        """Whether this revokes the token that an identity was read from: the anonymous and API keys are none."""
        if identity.anonymous or identity.api_key is not None:
            return False
        if self.token_id is not None:
            return identity.token_id == self.token_id
        if identity.user != self.user:
            return False
        return identity.issued_s is None or identity.issued_s <= self.before_s


class Revocations:
    """The revocations in force on a node. `now_s` is Unix time."""

    __slots__ = ("_by_token_id", "_by_user", "_looked_s")

    def __init__(self) -> None:
        self._by_token_id: dict[str, Revocation] = {}
        self._by_user: dict[str, Revocation] = {}
        self._looked_s = 0.0

    def add(self, revocation: Revocation) -> None:
        """Let a revocation hold; of two that name the same, the wider one does. One that names nothing is none."""
        if revocation.token_id is not None:
            _keep_wider(self._by_token_id, revocation.token_id, revocation)
        elif revocation.user is not None:
            _keep_wider(self._by_user, revocation.user, revocation)

    def covers(self, identity: Identity, now_s: float) -> bool:
        """Whether the token that an identity was read from is revoked."""
        if len(self):
            self._forget_sometimes(now_s)
        found = (self._by_token_id.get(identity.token_id or ""), self._by_user.get(identity.user))
        return any(one is not None and now_s < one.until_s and one.covers(identity) for one in found)

    def in_force(self, now_s: float) -> list[Revocation]:
        """List what holds at this time: single tokens, then users, each in the order they were first revoked."""
        return [one for one in self if now_s < one.until_s]

    def forget(self, now_s: float) -> None:
        """Let go of those whose time is over."""
        self._looked_s = now_s
        for known in (self._by_token_id, self._by_user):
            for name in [name for name, one in known.items() if one.until_s <= now_s]:
                del known[name]

    def _forget_sometimes(self, now_s: float) -> None:
        # Whoever asks keeps it small: a node that verifies no tokens learns of few revocations.
        if not 0 <= now_s - self._looked_s < FORGET_S:
            self.forget(now_s)

    def __iter__(self) -> Iterator[Revocation]:
        yield from self._by_token_id.values()
        yield from self._by_user.values()

    def __len__(self) -> int:
        return len(self._by_token_id) + len(self._by_user)


def _keep_wider(known: dict[str, Revocation], name: str, new: Revocation) -> None:
    old = known.get(name)
    if old is not None:
        new = msgspec.structs.replace(
            new, until_s=max(old.until_s, new.until_s), before_s=max(old.before_s, new.before_s)
        )
    known[name] = new
