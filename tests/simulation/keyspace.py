"""The data of a simulated Redis: values by key, each with its expiry."""

import copy
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from tests.simulation.resp import WRONG_TYPE, Refusal

StreamId: TypeAlias = tuple[int, int]


class Hash(dict[bytes, bytes]):
    """Fields in the order in which they came."""


class Set(dict[bytes, None]):
    """Members; a dict, so that their order is the same in every run."""


class SortedSet(dict[bytes, float]):
    """Members with their scores."""

    def ranked(self) -> list[tuple[bytes, float]]:
        """Return all by score, then by member."""
        return sorted(self.items(), key=lambda pair: (pair[1], pair[0]))


class Stream:
    """Entries by id, which only grow; `last` outlives its entry."""

    def __init__(self) -> None:
        self.entries: dict[StreamId, list[bytes]] = {}
        self.last: StreamId = (0, 0)


Value: TypeAlias = bytes | Hash | Set | SortedSet | Stream

V = TypeVar("V", Hash, Set, SortedSet, Stream)


class Keyspace:
    """One database. `now_ms` is the clock that expiry goes by."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self._values: dict[bytes, Value] = {}
        self._expiries: dict[bytes, int] = {}

    def get(self, key: bytes) -> Value | None:
        """Return what is there and not expired."""
        due_ms = self._expiries.get(key)
        if due_ms is not None and due_ms <= self.now_ms():
            self.delete(key)
        return self._values.get(key)

    def text(self, key: bytes) -> bytes | None:
        """Return a string. Raises Refusal for another type."""
        value = self.get(key)
        if value is not None and not isinstance(value, bytes):
            raise Refusal(WRONG_TYPE)
        return value

    def find(self, key: bytes, kind: type[V]) -> V | None:
        """Return a collection of this type. Raises Refusal for another type."""
        value = self.get(key)
        if value is not None and not isinstance(value, kind):
            raise Refusal(WRONG_TYPE)
        return value

    def open(self, key: bytes, kind: type[V]) -> V:
        """Return a collection, a new one where there was none; `settle` follows."""
        value = self.find(key, kind)
        if value is None:
            value = kind()
            self._values[key] = value
        return value

    def settle(self, key: bytes) -> None:
        """Drop a collection that has become empty; a stream stays."""
        if isinstance(value := self._values.get(key), Hash | Set | SortedSet) and not value:
            self.delete(key)

    def set(self, key: bytes, value: Value) -> None:
        """Put a value in place of whatever was there."""
        self._values[key] = value
        self._expiries.pop(key, None)

    def delete(self, key: bytes) -> bool:
        """Drop a key; False where there was none."""
        self._expiries.pop(key, None)
        return self._values.pop(key, None) is not None

    def expiry_ms(self, key: bytes) -> int | None:
        """Return when a key expires, in Unix milliseconds; None: never."""
        return self._expiries.get(key) if self.get(key) is not None else None

    def expire_at(self, key: bytes, due_ms: int) -> None:
        """Let a key that is there expire; at once where that is over."""
        if due_ms <= self.now_ms():
            self.delete(key)
        else:
            self._expiries[key] = due_ms

    def names(self) -> list[bytes]:
        """List the keys that are there."""
        return [key for key in list(self._values) if self.get(key) is not None]

    def copy(self) -> "Keyspace":
        """Return what a replica has that got everything until now."""
        replica = Keyspace(self.now_ms)
        replica._values = copy.deepcopy(self._values)
        replica._expiries = dict(self._expiries)
        return replica
