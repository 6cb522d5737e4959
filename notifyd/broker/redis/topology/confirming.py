"""Waiting until replicas have what was written: one WAIT for all writers of a connection.

WAIT holds up its connection, and it covers all that this connection wrote before. So only one is under way at a time,
and whoever comes meanwhile shares the next: while replicas are away, a publisher costs the others no time of its own.

Source: https://redis.io/docs/latest/commands/wait/
"""

from collections.abc import Awaitable, Callable

import trio


class Confirmations:
    """The WAITs of one link. `ask` sends one: from (replicas, milliseconds) to how many replicas confirmed."""

    __slots__ = ("_ask", "_asked", "_begun", "_confirmed", "_ended", "_turn", "_wait_ms")

    def __init__(self, ask: Callable[[int, int], Awaitable[int]], wait_ms: int) -> None:
        self._ask = ask
        self._wait_ms = wait_ms
        self._turn = trio.Lock()
        self._begun = 0
        self._ended = 0
        self._asked = 0
        self._confirmed = 0

    async def confirmed(self, replicas: int) -> int:
        """Return how many replicas, `replicas` of them if possible, have all that was written before this call.

        It takes two waits at most. What `ask` raises is raised for the caller whose turn it was; the others ask again.
        """
        first = self._begun + 1
        async with self._turn:
            if self._ended >= first and (self._asked >= replicas or self._confirmed >= replicas):
                return self._confirmed
            self._begun += 1
            self._confirmed = await self._ask(replicas, self._wait_ms)
            self._asked = replicas
            self._ended = self._begun
            return self._confirmed
