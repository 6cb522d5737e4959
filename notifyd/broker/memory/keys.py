"""Idempotency keys: which messages were already published, and with what answer."""

from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from typing import NewType

from notifyd.broker.base import Accepted
from notifyd.broker.memory.history import SWEEP_SLICE
from notifyd.errors import BrokerUnavailable
from protocol.position import Position

KEY_TTL_S = 300.0
"""How long a key is known: five minutes (spec/wire.md, "publish")."""

DIGEST_BYTES = 16
"""A key is remembered by its digest, so that a long one costs no more; two keys never meet by accident."""

KeyName = NewType("KeyName", bytes)
"""A key and its topic in one."""


def key_name(topic: str, key: str) -> KeyName:
    """Name a key within its topic. A topic contains no control character, so the two cannot run into each other."""
    return KeyName(blake2b(f"{topic}\0{key}".encode(), digest_size=DIGEST_BYTES).digest())


class Keys:
    """The answers of the last five minutes.

    At most `limit` of them: then new keys are refused, because to forget one early would let its message through twice.
    Times are monotonic seconds and never run backwards.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._positions: dict[KeyName, Position | None] = {}
        self._ages: deque[tuple[float, KeyName]] = deque()

    def __len__(self) -> int:
        return len(self._positions)

    def knows(self, name: KeyName, now_s: float) -> bool:
        """Whether a key is known."""
        while self._forget(now_s):
            continue
        return name in self._positions

    def answer(self, name: KeyName, now_s: float) -> Accepted | None:
        """Return the first answer to a known key; None for a new one, which there is then room for.

        Raises BrokerUnavailable for a new one that could not be remembered.
        """
        if self.knows(name, now_s):
            return Accepted(self._positions[name], repeated=True)
        if len(self._positions) >= self._limit:
            until_room_s = self._ages[0][0] + KEY_TTL_S - now_s
            raise BrokerUnavailable(f"{self._limit} idempotency keys are in use; no new one fits", until_room_s)
        return None

    def remember(self, name: KeyName, position: Position | None, now_s: float) -> None:
        """Know the key of a message that was accepted now."""
        self._positions[name] = position
        self._ages.append((now_s, name))

    def sweep(self, now_s: float) -> Iterator[None]:
        """Forget all keys that are too old; yields after each slice of them."""
        while self._forget(now_s):
            yield

    def _forget(self, now_s: float) -> bool:
        """Forget one slice of the keys that are too old; return whether there may be more."""
        ages, dead_s = self._ages, now_s - KEY_TTL_S
        for _ in range(SWEEP_SLICE):
            if not ages or ages[0][0] > dead_s:
                return False
            del self._positions[ages.popleft()[1]]
        return True
