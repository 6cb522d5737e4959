"""All open connections of a node, and the one clock that watches over them while they are silent.

One service beats for all: thousands of silent clients cost a heap entry each, not a task, a timer and a cancel scope.
"""

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import trio

from notifyd.auth.api_keys import ApiKeys
from protocol.errors import CloseCode
from protocol.topics import is_reserved

if TYPE_CHECKING:
    from notifyd.connection.connection import Connection


MOST_STALE, FEW = 3, 100
"""The deadlines of connections that are gone are forgotten once there are so many of them: a share of all, and some."""


class Connections:
    """Every open connection, handshakes included, the longest open first. `run` is a core service.

    `numbers` are what they are called by within this `life` of the node.
    """

    def __init__(self) -> None:
        self.life = secrets.token_hex(2)
        self.numbers = itertools.count(1)
        self._open: dict[int, Connection] = {}
        self._emptied = trio.Event()
        self._due: list[tuple[float, int]] = []
        self._earlier = trio.Event()

    def add(self, connection: "Connection") -> None:
        """Take in a connection; each call is followed by one `remove`."""
        self._open[connection.number] = connection
        self.schedule(connection)

    def remove(self, connection: "Connection") -> None:
        """Let a connection go."""
        del self._open[connection.number]
        if len(self._due) > MOST_STALE * len(self._open) + FEW:
            self._due[:] = [entry for entry in self._due if entry[1] in self._open]
            heapify(self._due)
        if not self._open:
            self._emptied.set()
            self._emptied = trio.Event()

    def schedule(self, connection: "Connection") -> None:
        """Take note of a deadline that may have come nearer; one that moved away is noticed when it is reached."""
        due_s = connection.watch.due_s
        if due_s < connection.scheduled_s:
            connection.scheduled_s = due_s
            heappush(self._due, (due_s, connection.number))
            if self._due[0][0] == due_s:
                self._earlier.set()

    async def wait_empty(self) -> None:
        """Wait until none is open."""
        while self._open:
            await self._emptied.wait()

    def recheck_operators(self, api_keys: ApiKeys) -> None:
        """Disconnect operators who are none any more, now that these keys hold.

        Whose key is gone shall not come back. Who was an operator only for want of any key may, as whoever it is.
        """
        for connection in self:
            identity, subscriber = connection.identity, connection.subscriber
            if identity is None or not identity.operator or subscriber is None:
                continue
            if identity.api_key is not None:
                if not api_keys.holds_digest(identity.api_key):
                    connection.end(CloseCode.UNAUTHORIZED, "the API key is not accepted any more")
            elif api_keys:
                connection.identity = subscriber.identity = replace(identity, operator=False)
                if any(map(is_reserved, subscriber.subscriptions)):
                    connection.end(CloseCode.RESTART, "what is the server's now takes an API key")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let each connection beat when it is due, until cancelled."""
        task_status.started()
        while True:
            self._earlier = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else inf):
                await self._earlier.wait()
            self._beat(trio.current_time())

    def _beat(self, now_s: float) -> None:
        due = self._due
        while due and due[0][0] <= now_s:
            due_s, number = heappop(due)
            connection = self._open.get(number)
            if connection is None or connection.scheduled_s != due_s:
                continue  # the connection is gone, or a nearer deadline has taken this one's place
            connection.scheduled_s = inf
            if connection.watch.due_s <= now_s:
                connection.beat(now_s)
            if not connection.ended:
                self.schedule(connection)

    def __iter__(self) -> Iterator["Connection"]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)
