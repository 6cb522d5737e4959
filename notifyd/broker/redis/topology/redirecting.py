"""A question that a server of a Cluster did not answer: sent on to where it points, or asked again a little later.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/, "Redirection and resharding"
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import trio
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.members import ClusterMember
from notifyd.broker.redis.topology.slots import redirected_to
from protocol.backoff import Backoff

REDIRECTIONS = (AskError, TryAgainError, ClusterDownError)
"""What a server says that has no answer, but knows that there is one; MOVED is a kind of ASK to redis-py."""

PAUSE_S = 0.01
PAUSE_CAP_S = 0.2
"""The shortest and the longest pause before a server is asked again, in seconds."""

Ask: TypeAlias = Callable[[ClusterMember, bool], Awaitable[object]]
"""Asks a server; the flag says that another one, which gives the slot away, has sent us (ASKING)."""


class Directory(Protocol):
    """Who knows the way."""

    def owner(self, slot: int) -> ClusterMember:
        """Return the server of a slot. Raises BrokerUnavailable while it is unknown."""

    def at(self, endpoint: Endpoint) -> ClusterMember:
        """Return the server there."""

    def move(self, slot: int, owner: Endpoint) -> None:
        """Take note that a slot has moved."""

    def doubt(self) -> None:
        """Take note that something is amiss with the table of slots."""


class Redirected:
    """One question about a slot on its way. `server` refused it with `refusal`; None: it could not be asked yet."""

    def __init__(
        self, slot: int, ask: Ask, directory: Directory, server: ClusterMember, refusal: ResponseError | None
    ) -> None:
        self.server = server
        self.refusal = refusal
        self._slot = slot
        self._ask = ask
        self._directory = directory
        self._pauses = Backoff(base_s=PAUSE_S, cap_s=PAUSE_CAP_S)
        self._hops = 0

    async def answer(self) -> object:
        """Return the answer, however long it takes: the caller sets the deadline. Raises the server's other errors."""
        while True:
            asking = await self._turn_to_next()
            if self.server.is_new:
                await self.server.link.wait_up()
            try:
                return await self._ask(self.server, asking)
            except REDIRECTIONS as refusal:
                self.refusal = refusal

    async def _turn_to_next(self) -> bool:
        """Turn to the server that is to be asked next; return whether with ASKING."""
        refusal, self._hops = self.refusal, self._hops + 1
        if refusal is None:
            return False
        if not isinstance(refusal, AskError) or self._hops > 2:  # they may point at each other for a moment
            await trio.sleep(self._pauses.next_delay_s())
        if not isinstance(refusal, AskError):
            self._directory.doubt()
            self.server = self._directory.owner(self._slot)
            return False
        endpoint = redirected_to(refusal.host, refusal.port, self.server.endpoint)
        moved = isinstance(refusal, MovedError)
        if moved:
            self._directory.move(self._slot, endpoint)
        self.server = self._directory.at(endpoint)
        return not moved
