"""A node in a simulation: the real one from the composition root down, its sockets and its randomness replaced.

with simulated(network, seed):          # links dial over the network, secrets come from the seed
    node = SimNode("n0", network, skew_s=0.0, oracle=oracle, log=log)
    nursery.start_soon(node.run)        # listens as "n0"
    node.kill()                         # the process is gone between two instructions
"""

import itertools
import random
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec
import trio

import notifyd.broker.redis.broker  # noqa: F401 - a node imports it when it starts, and that must draw nothing then
from notifyd.broker.redis.link import Dial
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.linking import Linking
from notifyd.clock import Clock
from notifyd.figures.publisher import FigurePublisher
from notifyd.listeners.device import device_server
from notifyd.node import Node, open_node
from notifyd.settings import BrokerSettings, ListenSettings, NodeSettings, SessionSettings, Settings
from notifyd.settings.values import Url
from tests.kit.memory_node import UNIX_S, policy, settings
from tests.simulation.network import ClientStream, End, Network, RedisStream
from tests.simulation.oracle import Oracle

REDIS = "redis"

SHORT_HISTORY = 4
"""Messages kept of the topics `short:*`: fewer than a client misses in a bad moment."""


class Ears:
    """Telemetry that tells the oracle what must not happen, and the trace everything."""

    def __init__(self, node: str, oracle: Oracle, log: Callable[[str, str, Any], None]) -> None:
        self._node = node
        self._oracle = oracle
        self._log = log

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        if name == "barrier_hits":
            self._oracle.break_("nothing happens that nobody foresaw", f"{self._node}: a barrier was hit")

    def observe(self, name: str, value: float, times: int = 1, **labels: str) -> None:
        """Do nothing: nobody looks."""

    def log(self, level: str, event: str, **fields: Any) -> None:
        if event in {"loop_held", "loop_late"}:
            return  # real time, of which a plan has none
        self._log(self._node, event, {key: value for key, value in fields.items() if key != "traceback"})
        if "traceback" in fields:
            self._oracle.break_("nothing happens that nobody foresaw", f"{self._node}: {event}: {fields['traceback']}")

    def show(self, name: str, value: Callable[[], Any]) -> None:
        """Do nothing: nobody looks."""

    def exposition(self) -> bytes:
        return b""


def node_settings(name: str) -> Settings:
    """Return the settings of a node whose only ways in and out are those of the simulation."""
    policies = (
        policy("room:**", presence=True),
        policy("short:**", history=SHORT_HISTORY),
        policy("plain:**", history=0),
    )
    base = settings(
        topics=policies,
        listen=ListenSettings(websocket=None, device=None, http=None),
        broker=BrokerSettings(url=Url(f"redis://{REDIS}:6379")),
        sessions=SessionSettings(ttl_s=120),
    )
    return msgspec.structs.replace(base, node=NodeSettings(name=name))


class SimNode:
    """A node's place in the cluster: one process after the other."""

    def __init__(
        self, name: str, network: Network, oracle: Oracle, log: Callable[[str, str, Any], None], skew_s: float
    ) -> None:
        self.name = name
        self.host = name
        self.node: Node | None = None
        self._network = network
        self._oracle = oracle
        self._log = log
        self._clock = Clock(unix_s=lambda: UNIX_S + trio.current_time() + skew_s)
        self._lives = 0
        self._scope = trio.CancelScope()
        self._stopping = trio.Event()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Live once, until killed or stopped."""
        self._lives += 1
        self.host = f"{self.name}.{self._lives}"
        self._scope, self._stopping, self._ended = trio.CancelScope(), trio.Event(), trio.Event()
        ears: Any = Ears(self.host, self._oracle, self._log)
        try:
            with self._scope:
                async with open_node(node_settings(self.host), clock=self._clock, telemetry=ears) as self.node:
                    await self._serve(self.node)
        finally:
            self.node = None
            self._ended.set()

    async def _serve(self, node: Node) -> None:
        serve = device_server(node.context, None)
        async with trio.open_nursery() as nursery:

            def accept(end: End) -> None:
                stream: Any = ClientStream(end)
                nursery.start_soon(serve, stream)

            self._network.listen(self.name, accept)
            try:
                await self._stopping.wait()
            finally:
                self._network.refuse(self.name)
            await node.drain()
            nursery.cancel_scope.cancel()

    @property
    def lives(self) -> bool:
        return self.node is not None

    async def kill(self) -> None:
        """End it at once: it can say nothing any more, to nobody."""
        self._network.refuse(self.name)
        self._network.bury(self.host)
        self._network.cut(self.name)
        self._network.cut(self.host)
        self._scope.cancel()
        await self._ended.wait()

    async def stop(self) -> None:
        """End it in order, as SIGTERM does: its clients go first."""
        self._stopping.set()
        await self._ended.wait()


@contextmanager
def simulated(network: Network, seed: int) -> Iterator[None]:
    """Let all nodes made in the block dial over the network, and be as random as the seed is.

    What they say about themselves once a second they keep to themselves: it would fill the trace, and tell nothing.
    """
    source = random.Random(seed)
    before, trio_before = random.getstate(), trio._core._run._r.getstate()

    def dial(linking: Linking, endpoint: Endpoint) -> Dial:
        async def connect() -> trio.abc.Stream:
            host = re.split("[: ]", linking._name)[-1]  # the name that CLIENT LIST shows ends with the node's
            assert host.startswith("n"), host
            return RedisStream(await network.dial(host, endpoint.host))

        return connect

    def token_hex(size: int = 16) -> str:
        return source.randbytes(size).hex()

    async def say_nothing(_: FigurePublisher, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    def older_first(_: object) -> int:
        return next(serials)

    serials = itertools.count()
    random.seed(seed)
    trio._core._run._r.seed(seed)
    try:
        with (
            mock.patch.object(Linking, "dial", dial),
            mock.patch.object(FigurePublisher, "run", say_nothing),
            mock.patch.object(secrets, "token_hex", token_hex),
            mock.patch.object(secrets, "token_urlsafe", token_hex),
            # Of two deadlines at the same instant Trio takes the one at the lower address first: here, the older one.
            mock.patch.object(trio._core._run, "id", older_first, create=True),
        ):
            yield
    finally:
        random.setstate(before)
        trio._core._run._r.setstate(trio_before)
