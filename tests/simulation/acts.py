"""What the steps of a plan do to a cluster."""

from functools import singledispatchmethod
from typing import TYPE_CHECKING

import trio
import trio.testing

from tests.simulation.network import End, Route
from tests.simulation.node import REDIS, SimNode
from tests.simulation.plan import (
    ClogClient,
    ClogRedis,
    CutClient,
    CutRedis,
    DropClients,
    FailOver,
    FlushScripts,
    KillNode,
    KillRedis,
    Move,
    Publish,
    Read,
    SlowRedis,
    StallRedis,
    Step,
    StopNode,
    Subscribe,
    Unsubscribe,
)

if TYPE_CHECKING:
    from tests.simulation.client import SimClient
    from tests.simulation.cluster import Cluster

USUAL_S = 0.001


class Acts:
    """Plays steps. `heal` ends every fault that still lasts."""

    def __init__(self, cluster: "Cluster", nursery: trio.Nursery) -> None:
        self._cluster = cluster
        self._network = cluster.network
        self._redis = cluster.redis
        self._nursery = nursery
        self._healed = trio.Event()
        self._busy: set[str] = set()

    async def heal(self) -> None:
        """Let all faults end now."""
        self._healed.set()
        await trio.testing.wait_all_tasks_blocked()

    async def _last(self, tenths: int) -> None:
        with trio.move_on_after(tenths / 10):
            await self._healed.wait()

    def _client(self, step: Step) -> "SimClient":
        return self._cluster.clients[step.of % len(self._cluster.clients)]

    def _node(self, step: Step) -> SimNode:
        return self._cluster.nodes[step.of % len(self._cluster.nodes)]

    @singledispatchmethod
    async def play(self, step: Step) -> None:
        raise NotImplementedError(step)

    # --- clients ------------------------------------------------------------------------------------------------------

    @play.register
    async def _(self, step: Publish) -> None:
        for _ in range(step.count):
            await self._client(step).publish(step.topic, keyed=step.keyed, echo=step.echo)
            if step.pause_ms:
                await trio.sleep(step.pause_ms / 1000)

    @play.register
    async def _(self, step: Subscribe) -> None:
        self._client(step).want(step.topic, step.since)

    @play.register
    async def _(self, step: Unsubscribe) -> None:
        self._client(step).unwant(step.topic)

    @play.register
    async def _(self, step: Read) -> None:
        await self._client(step).read(step.topic)

    @play.register
    async def _(self, step: Move) -> None:
        self._client(step).move(step.to, fresh=step.fresh, silent=step.silent)

    @play.register
    async def _(self, step: CutClient) -> None:
        client = self._client(step)
        sides = {0: None, 1: {client.name}, 2: {f"n{number}" for number in range(len(self._cluster.nodes))}}
        self._network.cut(client.name, seen_by=sides[step.seen_by])

    @play.register
    async def _(self, step: ClogClient) -> None:
        client = self._client(step)
        await self._clog([self._network.route(client.name, node.name) for node in self._cluster.nodes], step.tenths)

    # --- between nodes and Redis --------------------------------------------------------------------------------------

    @play.register
    async def _(self, step: CutRedis) -> None:
        for end in self._connections(self._node(step), step.which):
            self._network.cut_connection(end, seen_by={REDIS} if step.silent else None)

    def _connections(self, node: SimNode, which: int) -> list[End]:
        """Return a node's connections to Redis: all (0), that for messages (1), that for commands (2)."""
        ends = self._network.connections_of(node.host, REDIS)
        numbers = {one.end.other: one for one in self._redis.sessions.values()}
        return [end for end in ends if which == 0 or (which == 1) == (end in numbers and numbers[end].is_subscriber)]

    @play.register
    async def _(self, step: ClogRedis) -> None:
        await self._clog([self._network.route(self._node(step).host, REDIS)], step.tenths)

    async def _clog(self, routes: list[Route], tenths: int) -> None:
        for route in routes:
            route.clogged = True
        try:
            await self._last(tenths)
        finally:
            for route in routes:
                route.clogged = False

    @play.register
    async def _(self, step: SlowRedis) -> None:
        route = self._network.route(self._node(step).host, REDIS)
        route.delay_s, route.jitter_s = step.delay_ms / 1000, step.delay_ms / 1000
        await self._last(step.tenths)
        route.delay_s, route.jitter_s = USUAL_S, 0.0

    # --- nodes --------------------------------------------------------------------------------------------------------

    @play.register
    async def _(self, step: KillNode) -> None:
        await self._end_node(self._node(step), step.tenths, in_order=False)

    @play.register
    async def _(self, step: StopNode) -> None:
        await self._end_node(self._node(step), step.tenths, in_order=True)

    async def _end_node(self, node: SimNode, tenths: int, *, in_order: bool) -> None:
        if node.name in self._busy or not node.lives:
            return
        self._busy.add(node.name)
        await (node.stop() if in_order else node.kill())
        await self._last(tenths)
        self._nursery.start_soon(node.run)
        self._busy.discard(node.name)

    # --- Redis --------------------------------------------------------------------------------------------------------

    @play.register
    async def _(self, step: KillRedis) -> None:
        if REDIS in self._busy:
            return
        if not self._cluster.plan.durable:
            self._lag()
            await self._last(step.lag)
        if self._go_down():
            await self._last(step.tenths)
            self._redis.restart()
            if not self._cluster.plan.durable:
                self._cluster.forget_unkept()
            self._come_up()

    @play.register
    async def _(self, step: FailOver) -> None:
        if REDIS in self._busy:
            return
        self._lag()
        await self._last(step.lag)
        if REDIS in self._busy:
            self._redis.catch_up()
        elif step.split:
            await self._split(step)
        else:
            self._go_down()
            await self._last(step.tenths)
            self._fail_over()
            self._come_up()

    def _lag(self) -> None:
        """Let nothing be kept from now on, unless that is so already: then the first fault decides what is kept."""
        if self._redis.lag():
            self._cluster.note_kept()

    async def _split(self, step: FailOver) -> None:
        """The new server serves all but one node; the old one goes on, for a while, with that one."""
        stays = self._connections(self._node(step), step.split - 1)
        self._redis.go_on()
        self._fail_over()
        for end in self._network.connections_of(REDIS):
            if end.other not in stays:
                self._network.cut_connection(end)
        if step.split == 1:
            await self._last(step.tenths)
            for end in stays:
                self._network.cut_connection(end)

    def _fail_over(self) -> None:
        self._redis.fail_over()
        self._cluster.forget_unkept()

    def _go_down(self) -> bool:
        if REDIS in self._busy:
            return False
        self._busy.add(REDIS)
        self._redis.go_on()
        self._network.refuse(REDIS)
        self._network.cut(REDIS)
        return True

    def _come_up(self) -> None:
        self._network.listen(REDIS, self._redis.accept)
        self._busy.discard(REDIS)

    @play.register
    async def _(self, step: StallRedis) -> None:
        self._redis.stall()
        await self._last(step.tenths)
        self._redis.go_on()

    @play.register
    async def _(self, step: DropClients) -> None:
        self._redis.disconnect(subscribers={0: None, 1: True, 2: False}[step.which])

    @play.register
    async def _(self, step: FlushScripts) -> None:
        self._redis.engine.scripts.clear()
