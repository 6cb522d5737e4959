"""One server as a topology knows it: the link to it, run as a service, and what became of that."""

from collections.abc import Callable, Sequence
from typing import Any

import trio
from redis.exceptions import NoScriptError
from redis.typing import EncodableT

from notifyd.broker.redis.link import Link
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Command
from notifyd.broker.redis.topology.confirming import Confirmations
from notifyd.errors import BrokerUnavailable

CONFIRMING_SHARE = 3
"""A WAIT takes this part of the deadline at most: one that is under way, the next one, and the command before."""

_ASKING = ("ASKING",)


class LinkedServer:
    """The link to one server. `on_turn` is called when it came up or ended.

    What asks raises the server's errors as they are, and BrokerUnavailable like the link. `asking` tells a server of a
    Cluster that the question was sent to it by the one which gives the slot away.
    """

    def __init__(self, link: Link, deadline_s: float, on_turn: Callable[[], None] | None = None) -> None:
        self.link = link
        self._on_turn = on_turn
        self._runs = 0
        self._is_running = True
        self._confirmations = Confirmations(self._wait, max(1, int(deadline_s * 1000 / CONFIRMING_SHARE)))

    @property
    def is_new(self) -> bool:
        """Whether the first connection is still to be made, or has not ended yet."""
        return self._runs <= 1 and self._is_running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the link: a service. Raises LinkLost whenever it ended."""
        self._runs += 1
        self._is_running = True
        try:
            await self.link.run(task_status=_Started(self._turn, task_status))
        finally:
            self._is_running = False
            self._turn()

    def _turn(self) -> None:
        if self._on_turn is not None:
            self._on_turn()

    def problem(self) -> str:
        """Tell what is wrong with it; "" when nothing is."""
        if self.link.is_up:
            return ""
        if self.is_new:
            return f"{self.link.name} is connecting"
        state = "connecting" if self._is_running else "backing off"
        return f"{self.link.name} is {state}: {self.link.why_down}"

    async def execute(self, command: Command, *, asking: bool = False) -> Any:
        """Run one command."""
        if not asking:
            return await self.link.execute(*command)
        _, reply = await self.link.execute_all([_ASKING, command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def evaluate(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[EncodableT],
        *,
        replicas: int = 0,
        asking: bool = False,
    ) -> Any:
        """Run a script, by its SHA, by its text if need be. What the server is comes behind its arguments; see Servers.

        With `replicas`, return only once so many have what it wrote. Raises BrokerUnavailable where too few confirmed
        in time.
        """
        connection = self._runs
        call = (len(keys), *keys, *arguments, *self._what_it_is())
        try:
            reply = await self.execute(("EVALSHA", script.sha, *call), asking=asking)
        except NoScriptError:
            reply = await self.execute(("EVAL", script.text, *call), asking=asking)
        if replicas:
            await self._confirm(replicas, connection)
        return reply

    def _what_it_is(self) -> tuple[str, str, int]:
        server = self.link.server
        if server is None:
            return ("", "", 0)
        return (server.replication_id, server.previous_replication_id, int(server.is_durable))

    async def _confirm(self, replicas: int, connection: int) -> None:
        """Wait for replicas. Asked on another connection than that of the write, WAIT would prove nothing."""
        confirmed = await self._confirmations.confirmed(replicas)
        if connection != self._runs:
            raise BrokerUnavailable(f"{self.link.name}: the connection was lost before replicas confirmed")
        if confirmed < replicas:
            raise BrokerUnavailable(f"{self.link.name}: {confirmed} of {replicas} replicas confirmed in time")

    async def _wait(self, replicas: int, wait_ms: int) -> int:
        return int(await self.link.execute("WAIT", replicas, wait_ms))


class _Started:
    """The `task_status` a link is given: tells the topology first, so that it never sees a link up unawares."""

    def __init__(self, turn: Callable[[], None], supervisor: trio.TaskStatus[None]) -> None:
        self._turn = turn
        self._supervisor = supervisor

    def started(self, value: None = None) -> None:
        """Say that the link is up."""
        self._turn()
        self._supervisor.started(value)
