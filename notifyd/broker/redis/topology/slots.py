"""Which master of a Cluster serves which of its 16,384 slots. No I/O, no clock.

Source: https://redis.io/docs/latest/commands/cluster-slots/
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS

from notifyd.broker.redis.target import Endpoint

SlotRange: TypeAlias = tuple[int, int, Endpoint]
"""The first slot, the last one, and who serves them all."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """What one server says: the ranges in order, as long as possible, so that equal views are equal; the replicas."""

    ranges: tuple[SlotRange, ...]
    replicas: frozenset[Endpoint] = frozenset()

    @property
    def served(self) -> int:
        """How many slots somebody serves."""
        return sum(last - first + 1 for first, last, _ in self.ranges)


class SlotTable:
    """The owners of all slots, as far as they are known."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners: list[Endpoint | None] = [None] * SLOTS

    def owner(self, slot: int) -> Endpoint | None:
        """Return who serves a slot; None while unknown."""
        return self._owners[slot]

    def move(self, slot: int, owner: Endpoint) -> bool:
        """Note that a slot is served there; tell whether that is news."""
        is_news = self._owners[slot] != owner
        self._owners[slot] = owner
        return is_news

    def replace(self, ranges: Iterable[SlotRange]) -> bool:
        """Take a whole view in the place of what was known; tell whether anything differs."""
        owners: list[Endpoint | None] = [None] * SLOTS
        for first, last, owner in ranges:
            owners[first : last + 1] = [owner] * (last - first + 1)
        is_news = owners != self._owners
        self._owners = owners
        return is_news

    @property
    def masters(self) -> set[Endpoint]:
        """Everybody who serves a slot."""
        return {owner for owner in set(self._owners) if owner is not None}

    def unserved(self) -> list[tuple[int, int]]:
        """Return the ranges that nobody serves: first and last slot."""
        if None not in self._owners:  # as is usual, and asked often
            return []
        return [(first, last) for first, last, owner in self._runs() if owner is None]

    def _runs(self) -> Iterator[tuple[int, int, Endpoint | None]]:
        first = 0
        for slot in range(1, SLOTS + 1):
            if slot == SLOTS or self._owners[slot] != self._owners[first]:
                yield first, slot - 1, self._owners[first]
                first = slot


def read_slots(reply: Any, asked: Endpoint) -> SlotView:
    """Read the reply to CLUSTER SLOTS. A server that is not named there is the one that was asked.

    Raises ValueError when it is no such reply.
    """
    ranges: list[SlotRange] = []
    replicas: set[Endpoint] = set()
    try:
        for first, last, master, *others in reply:
            ranges.append((_slot(first), _slot(last), _endpoint(master, asked)))
            replicas.update(_endpoint(other, asked) for other in others)
    except (TypeError, ValueError, LookupError, AttributeError):
        raise ValueError("what it answers to CLUSTER SLOTS is no table of slots") from None
    return SlotView(tuple(_joined(sorted(ranges, key=_place_in_order))), frozenset(replicas))


def _slot(value: Any) -> int:
    if not (isinstance(value, int) and 0 <= value < SLOTS):
        raise ValueError(value)
    return value


def _endpoint(node: Sequence[Any], asked: Endpoint) -> Endpoint:
    host, port = node[0], int(node[1])
    return redirected_to((host or b"").decode(), port, asked)


def redirected_to(host: str, port: int, asked: Endpoint) -> Endpoint:
    """Return the server that `asked` named: itself, or its machine, where it does not know its own host ("" or "?")."""
    return Endpoint(asked.host if host in {"", "?"} else host, port)


def _place_in_order(one: SlotRange) -> int:
    return one[0]


def _joined(ranges: Iterable[SlotRange]) -> Iterator[SlotRange]:
    """Join neighbours that have the same owner."""
    pending: SlotRange | None = None
    for first, last, owner in ranges:
        if pending is not None and pending[2] == owner and pending[1] + 1 == first:
            pending = (pending[0], last, owner)
            continue
        if pending is not None:
            yield pending
        pending = (first, last, owner)
    if pending is not None:
        yield pending
