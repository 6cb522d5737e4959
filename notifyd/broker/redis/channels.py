"""Which channels are wanted at one server, and how far its present connection is with them. No I/O, no clock.

A channel is *held* from when it is asked for: the server may send its messages. It is *confirmed* once the server said
so, and no longer when its end is asked for. What is missing and what is too much follow from that; one caller takes
them in batches, asks the server, and tells the outcome.
"""

from collections.abc import Sequence
from itertools import islice


class Channels:
    """The books of one feed. `wanted` keeps its order, so that what was wanted first comes back first."""

    __slots__ = ("_asked", "_held", "_missing", "_put_off", "_revoked", "_surplus", "confirmed", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[str, None] = {}
        self.confirmed: set[str] = set()
        self._held: set[str] = set()
        self._missing: dict[str, None] = {}
        self._surplus: dict[str, None] = {}
        self._put_off: dict[str, None] = {}
        self._asked: set[str] = set()
        self._revoked: set[str] = set()

    @property
    def has_work(self) -> bool:
        """Whether there is something to ask the server for now."""
        return bool(self._missing or self._surplus)

    @property
    def has_put_off(self) -> bool:
        """Whether something waits for `retry`."""
        return bool(self._put_off)

    def want(self, channel: str) -> None:
        """Want a channel from now on."""
        self.wanted[channel] = None
        self._surplus.pop(channel, None)
        if channel not in self.confirmed:
            self._put_off.pop(channel, None)
            self._missing[channel] = None

    def unwant(self, channel: str) -> None:
        """Want a channel no longer; does nothing when it was not wanted."""
        self.wanted.pop(channel, None)
        self._missing.pop(channel, None)
        self._put_off.pop(channel, None)
        if channel in self._held:
            self._surplus[channel] = None

    def take_missing(self, most: int) -> list[str]:
        """Return channels to subscribe now. Each has to be told of by `confirm`, `refuse` or `put_off`."""
        batch = _take(self._missing, most)
        self._held.update(batch)
        self._asked.update(batch)
        return batch

    def take_surplus(self, most: int) -> list[str]:
        """Return channels to unsubscribe now. Each has to be told of by `release` or `put_off`."""
        batch = _take(self._surplus, most)
        self.confirmed.difference_update(batch)
        return batch

    def confirm(self, batch: Sequence[str]) -> list[str]:
        """Note that the server subscribed them; return those for which that still holds."""
        self._asked.difference_update(batch)
        standing = [channel for channel in batch if channel not in self._revoked]
        self._revoked.difference_update(batch)
        for channel in standing:
            self.confirmed.add(channel)
            self._missing.pop(channel, None)
        return standing

    def refuse(self, batch: Sequence[str]) -> None:
        """Note that the server did not subscribe them: to be tried again after `retry`."""
        self._held.difference_update(batch)
        for channel in batch:
            self._surplus.pop(channel, None)
        self.put_off(batch)

    def release(self, batch: Sequence[str]) -> None:
        """Note that the server sends nothing of them any more."""
        self._held.difference_update(batch)

    def put_off(self, batch: Sequence[str]) -> None:
        """Note that it is not known what became of them: to be tried again after `retry`."""
        self._asked.difference_update(batch)
        self._revoked.difference_update(batch)
        for channel in batch:
            if channel not in self._missing:
                self._put_off[channel] = None

    def retry(self) -> None:
        """Take up again what was put off."""
        for channel in self._put_off:
            if channel in self.wanted:
                self._missing[channel] = None
            elif channel in self._held:
                self._surplus[channel] = None
        self._put_off.clear()

    def revoke(self, channel: str) -> None:
        """Note that the server ended a subscription by itself."""
        if channel in self._asked:
            self._revoked.add(channel)
            if channel in self.wanted:
                self._missing[channel] = None
        elif channel in self.confirmed:
            self.confirmed.discard(channel)
            self._held.discard(channel)
            self._surplus.pop(channel, None)
            if channel in self.wanted:
                self._missing[channel] = None

    def lose(self) -> None:
        """Note that the connection is gone, and with it all that was subscribed on it."""
        for books in (self.confirmed, self._held, self._asked, self._revoked):
            books.clear()
        self._surplus.clear()
        self._put_off.clear()
        self._missing = dict.fromkeys(self.wanted)


def _take(pending: dict[str, None], most: int) -> list[str]:
    batch = list(islice(pending, most))
    for channel in batch:
        del pending[channel]
    return batch
