"""What every set of servers promises: one server, one behind Sentinels, a Cluster. Nobody above knows which it is.

A key is asked for at the server that has it, wherever that has moved. What goes wrong on the way is told as
BrokerUnavailable, with a reason for people: no exception of redis-py and no LinkLost comes out of here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from redis.typing import EncodableT

from notifyd.broker.base import Services
from notifyd.broker.redis.link import Link
from notifyd.broker.redis.scripts import Script

OnPushes: TypeAlias = Callable[[list[list[Any]]], None]
"""Takes the pushes that one read brought, in order."""

Command: TypeAlias = Sequence[EncodableT]


class Servers(Protocol):
    """The servers of a `Target`.

    Every asynchronous method but `start` raises BrokerUnavailable: at once while the link to the server in question is
    down, else within the deadline in total; the command may have been carried out all the same. Cancelled, likewise.
    """

    @property
    def sharded(self) -> bool:
        """Whether channels are those of shards (SSUBSCRIBE, SPUBLISH): a Cluster whose servers all know them."""

    async def start(self, services: Services) -> None:
        """Launch the links, and what follows the servers, as services. Does not wait for any server."""

    def problems(self) -> list[str]:
        """Tell which servers are away and why; nothing when every key can be reached."""

    async def execute(self, key: str, *command: EncodableT) -> Any:
        """Run one command where `key` lives."""

    async def evaluate(
        self, script: Script, keys: Sequence[str], arguments: Sequence[EncodableT], *, replicas: int = 0
    ) -> Any:
        """Run a script where `keys[0]` lives, its arguments followed by the server's replication ids, now and before.

        With `replicas`, so many must have confirmed what was written before it returns.
        """

    async def scan(self, pattern: str) -> list[str]:
        """Return all keys that match, of all masters; each once."""

    def feed_home(self, channel: str) -> str:
        """Return the name of the server whose feed carries a channel. Raises BrokerUnavailable while unknown."""

    def open_feed(self, home: str, on_pushes: OnPushes) -> Link:
        """Make a link for pub/sub to that server; the caller runs it. Raises BrokerUnavailable where it is no more."""

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call it, synchronously, whenever commands reach a server again, be it the same as before or another."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call it, synchronously, whenever channels may have another home than before."""
