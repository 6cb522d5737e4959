"""One server as a topology knows it: the link to it, run as a service, and what became of that."""

from collections.abc import Callable, Sequence
from typing import Any

import trio
from redis.typing import EncodableT

from notifyd.broker.redis.link import Link
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.asking import run_script
from notifyd.broker.redis.topology.confirming import Confirmations
from notifyd.errors import BrokerUnavailable

CONFIRMING_SHARE = 3
"""A WAIT takes this part of the deadline at most: one that is under way, the next one, and the command before."""


class LinkedServer:
    """The link to one server, named as in "redis at 127.0.0.1:6379". `on_turn` is called when it came up or ended."""

    def __init__(self, link: Link, deadline_s: float, on_turn: Callable[[], None] | None = None) -> None:
        self.link = link
        self._on_turn = on_turn
        self._runs = 0
        self._is_running = True
        self._confirmations = Confirmations(self._wait, max(1, int(deadline_s * 1000 / CONFIRMING_SHARE)))

    @property
    def is_new(self) -> bool:
        """Whether the first attempt to connect is still under way, or served and has not ended."""
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
        if self._is_running and self._runs <= 1:
            return f"{self.link.name} is connecting"
        state = "connecting" if self._is_running else "backing off"
        return f"{self.link.name} is {state}: {self.link.why_down}"

    async def evaluate(
        self, script: Script, keys: Sequence[str], arguments: Sequence[EncodableT], replicas: int
    ) -> Any:
        """Run a script; with `replicas`, return only once so many have what it wrote.

        Raises the server's error, and BrokerUnavailable where too few confirmed in time.
        """
        if not replicas:
            return await run_script(self.link, script, keys, arguments)
        connection = self._runs
        reply = await run_script(self.link, script, keys, arguments)
        await self._confirm(replicas, connection)
        return reply

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
