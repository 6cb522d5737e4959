"""Which messages were here before: for topics without history, whose messages have no position to be told by.

A publisher's retry and a reconnect may bring a message twice. What tells them apart is who sent it and the how manieth
of that sender it was.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import Protocol, TypeAlias

from rbloom import Bloom

WINDOW = 100_000
"""Messages without history that a node received last: a second's worth where it can take no more, else minutes'."""

MOST_NODES = 1024
"""Senders in one generation. A cluster has fewer; more would be names without end, and memory without end."""

FALSE_POSITIVES = 0.001
"""How often the filter sends a new message to be looked up in vain, at most: with a generation full."""

UNSIGNED_64 = "Q"

Stamp: TypeAlias = tuple[str, int]
"""Sender and sequence: what tells a message from every other."""


class Filter(Protocol):
    """A set that may take what it never got for its own, but never denies what it got."""

    def add(self, entry: Stamp, /) -> None:
        """Take an entry in."""

    def __contains__(self, entry: Stamp, /) -> bool: ...


def new_filter(entries: int) -> Filter:
    """Make a Bloom filter for so many entries."""
    return Bloom(entries, FALSE_POSITIVES)


class Deduplication:
    """Recognises every repeat among the last `window` messages, and never takes a message for one that it is not.

    The filter answers for what is new; where it says "perhaps", the exact numbers decide. Both are kept in two
    generations: the older is dropped when the newer is full, so the filter never saturates, nodes that are gone are
    forgotten, and no more than twice the window is ever held (2 to 3 MB for 100,000). More than MOST_NODES senders at a
    time shorten the window.
    """

    __slots__ = ("_new_filter", "_newer", "_older", "_window")

    def __init__(self, window: int = WINDOW, new_filter: Callable[[int], Filter] = new_filter) -> None:
        if window < 1:
            raise ValueError(f"a window of {window} messages recognises none")
        self._window = window
        self._new_filter = new_filter
        self._newer = _Generation(new_filter(window))
        self._older = _Generation(new_filter(window))

    def seen(self, node: str, sequence: int) -> bool:
        """Whether this message of a node was here before; if not, it is remembered.

        `sequence` is 0 to 2**64 - 1, unique for the node; ascending ones are the fast ones. Any other number is never
        remembered, so it is new each time.
        """
        entry = (node, sequence)
        newer, older = self._newer, self._older
        if entry in newer.filter and newer.holds(node, sequence):
            return True
        if entry in older.filter and older.holds(node, sequence):
            return True
        try:
            newer.remember(node, sequence)
        except OverflowError:
            return False
        newer.filter.add(entry)
        if newer.count >= self._window or len(newer.sequences) >= MOST_NODES:
            self._newer, self._older = _Generation(self._new_filter(self._window)), newer
        return False


class _Generation:
    """A filter, and behind it each node's numbers in ascending order: 8 bytes a message."""

    __slots__ = ("count", "filter", "sequences")

    def __init__(self, empty: Filter) -> None:
        self.filter = empty
        self.count = 0
        self.sequences: dict[str, array[int]] = {}

    def holds(self, node: str, sequence: int) -> bool:
        """Look a number up."""
        known = self.sequences.get(node)
        if known is None:
            return False
        place = bisect_left(known, sequence)
        return place < len(known) and known[place] == sequence

    def remember(self, node: str, sequence: int) -> None:
        """Take in a number that is not there yet: at the end, as they come in order, or where it belongs."""
        known = self.sequences.get(node)
        if known is None:
            self.sequences[node] = array(UNSIGNED_64, (sequence,))
        elif sequence > known[-1]:
            known.append(sequence)
        else:
            known.insert(bisect_left(known, sequence), sequence)
        self.count += 1
