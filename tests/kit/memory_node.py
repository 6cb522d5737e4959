"""A node without sockets: a hub, its services and real connections over memory streams, in virtual time.

    async with open_memory_node() as node:                     # anonymous access; or open_memory_node(settings(...))
        device = await node.device("msgpack")                  # opened; `connected_device` is connected as well
        browser = await node.connected_websocket()
        await browser.ask("subscribe", topic="a:b")
        ...
        node.assert_empty()                                    # after `await node.let_go()`

What serves a client is `listeners.device.device_server` and `listeners.websocket.websocket_server`: the same code from
the first byte as behind a socket. Use it with the fixture `autojump_clock`, or in `run_virtual` where Hypothesis
drives: deadlines of minutes then pass at once, and at the exact time. `node.time_s()` tells it.

`node.broker` is a `ScriptedBroker`. The clock for tokens and messages is virtual too: it starts at UNIX_S.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import trio
import trio.testing
from trio.testing import MockClock

from notifyd.auth.tokens import Signer, Verifier
from notifyd.broker.base import Receiver
from notifyd.clock import Clock
from notifyd.connection.connection import Connection
from notifyd.connection.context import Context, UserBuckets
from notifyd.hub.hub import Hub
from notifyd.hub.interest import LINGER_S
from notifyd.listeners.device import device_server
from notifyd.listeners.websocket import websocket_server
from notifyd.policy.admission import Admission
from notifyd.settings import Access, AuthSettings, NodeSettings, Overflow, Secret, Settings, TokenKey, TopicPolicy
from notifyd.tracing import Tracer
from protocol.topics import Pattern
from tests.kit.clients import Client, DeviceClient, WebSocketClient
from tests.kit.memory_stream import CAPACITY_BYTES, MemoryStream, memory_pair
from tests.kit.scripted_broker import ScriptedBroker
from tests.recorded_events import RecordedEvents

UNIX_S = 1_790_000_000.0
SECRET = "a secret for tests, 64 bytes long, so that HS512 is content with it"
TRANSPORTS = ("device", "websocket")
ENCODINGS = ("json", "msgpack")

T = TypeVar("T")


def settings(**sections: Any) -> Settings:
    """Return settings for a test: anonymous access and a token key, unless `auth` says otherwise; a node named n1."""
    key = TokenKey(algorithm="HS512", secret=Secret(SECRET))
    auth = sections.pop("auth", AuthSettings(anonymous=True, keys=(key,)))
    return Settings(node=NodeSettings(name="n1"), auth=auth, **sections)


def with_tokens_only(**sections: Any) -> Settings:
    """Return settings without anonymous access: topics need a token that allows them."""
    return settings(auth=AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret(SECRET)),)), **sections)


def policy(match: str, **fields: Any) -> TopicPolicy:
    """Return a topic policy that lets anyone publish and subscribe, unless said otherwise; words stand for enums."""
    words = {"publish": Access, "subscribe": Access, "overflow": Overflow}
    given = {"publish": Access.ANYONE, "subscribe": Access.ANYONE, **fields}
    return TopicPolicy(
        match=Pattern(match), **{name: words.get(name, lambda value: value)(value) for name, value in given.items()}
    )


def virtual_clock() -> Clock:
    """Return the clocks of a node whose time is Trio's: UNIX_S when Trio's clock stands at 0."""
    return Clock(unix_s=lambda: UNIX_S + trio.current_time())


def run_virtual(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run an async function in virtual time, for tests that Hypothesis drives."""
    return trio.run(main, *args, clock=MockClock(autojump_threshold=0))


class Served:
    """One connection's server side: its task, the scope that cancels it, its stream."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.task: trio.lowlevel.Task | None = None
        self.error: BaseException | None = None


class MemoryNode:
    """What a test needs of the node. `served` has every connection's server side, the newest last.

    Clients come from `peer_host`; `own_ports` are those of its HTTP listener, of which there is none.
    """

    def __init__(
        self, node_settings: Settings, context: Context, broker: ScriptedBroker, events: RecordedEvents
    ) -> None:
        self.settings = node_settings
        self.context = context
        self.hub = context.hub
        self.broker = broker
        self.events = events
        self.served: list[Served] = []
        self.peer_host = "memory"
        self.own_ports: set[int] = set()
        limit = node_settings.limits.connections
        self.admission = Admission(limit.limit, limit.resume)
        self._servers: dict[str, Callable[[Any], Awaitable[None]]] = {
            "device": device_server(context, None),
            "websocket": websocket_server(context, self.own_ports, None),
        }
        self._nursery: trio.Nursery

    # --- clients ------------------------------------------------------------------------------------------------------

    def open_stream(
        self, transport: str, capacity_bytes: int = CAPACITY_BYTES, *, peer: str | None = None
    ) -> MemoryStream:
        """Let a client connect to a listener, from `peer`, and return its end; nothing has been sent."""
        server, client = memory_pair(capacity_bytes, peer=peer or f"{self.peer_host}:{len(self.served) + 1}")
        served = Served(server)
        self.served.append(served)
        assert self.admission.admit()
        self._nursery.start_soon(self._serve, transport, served)
        return client

    async def _serve(self, transport: str, served: Served) -> None:
        served.task = trio.lowlevel.current_task()
        try:
            with served.scope:
                await self._servers[transport](served.stream)
        except BaseException as error:
            served.error = error
            raise
        finally:
            self.admission.release()
            served.over.set()

    async def device(self, encoding: str = "json", *, capacity_bytes: int = CAPACITY_BYTES) -> DeviceClient:
        """Open a device link."""
        return DeviceClient(self.open_stream("device", capacity_bytes), encoding)

    async def websocket(
        self, encoding: str = "json", target: str = "/ws", *, capacity_bytes: int = CAPACITY_BYTES, **headers: str
    ) -> WebSocketClient:
        """Open a WebSocket: its handshake is done. Raises `Refused`."""
        client = WebSocketClient(self.open_stream("websocket", capacity_bytes), encoding)
        await client.upgrade(target, **headers)
        return client

    async def client(
        self, transport: str = "device", encoding: str = "json", *, capacity_bytes: int = CAPACITY_BYTES
    ) -> Client:
        """Open a client of either transport."""
        opened = self.device if transport == "device" else self.websocket
        return await opened(encoding, capacity_bytes=capacity_bytes)

    async def connected(
        self,
        transport: str = "device",
        encoding: str = "json",
        *,
        capacity_bytes: int = CAPACITY_BYTES,
        **connect: Any,
    ) -> Client:
        """Open a client and connect it. `token_for="ada"` is short for a token that allows everything."""
        client = await self.client(transport, encoding, capacity_bytes=capacity_bytes)
        if "token_for" in connect:
            connect["token"] = self.token(connect.pop("token_for"))
        reply = await client.connect(**connect)
        assert reply["op"] == "connected", reply
        return client

    def token(self, user: str, *, expires_in_s: float | None = None, **claims: Any) -> str:
        """Sign a token; without `subscribe` and `publish` it allows everything."""
        allowed = {"subscribe": ["**"], "publish": ["**"], **claims}
        signer = Signer(self.settings.auth)
        return signer.sign(user, now_s=self.context.clock.unix_s(), expires_in_s=expires_in_s, **allowed)

    # --- what the node holds ------------------------------------------------------------------------------------------

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open, the oldest first."""
        return list(self.context.connections)

    def time_s(self) -> float:
        """Trio's time."""
        return trio.current_time()

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and everything that falls due meanwhile happen."""
        await trio.sleep(seconds)
        await trio.testing.wait_all_tasks_blocked()

    async def let_go(self) -> None:
        """Wait until every connection is over, and the node has told its broker."""
        for served in self.served:
            await served.over.wait()
        await trio.sleep(2 * LINGER_S)

    def cancel_connections(self) -> None:
        """Cancel every connection, as a listener that ends does."""
        for served in self.served:
            served.scope.cancel()

    def assert_empty(self) -> None:
        """Fail when anything of a connection is left: in a registry, in a budget, at the broker, on a stream."""
        registry, interest = self.hub.registry, self.hub.interest
        assert not registry.topics, registry.topics
        assert not registry.subscribers, registry.subscribers
        assert not set(interest._subscribed) | set(interest._idle) | set(interest._locks)
        assert not self.broker.wanted
        assert not len(self.context.connections)
        assert self.admission.count == 0
        assert not self.context.user_buckets._buckets
        assert not len(self.broker._broker._presence), "somebody is still present"
        assert not self.hub.fanout._touched
        assert not self._nursery.child_tasks - {*self._services}, self._nursery.child_tasks
        for served in self.served:
            assert served.stream.closed
            assert served.error is None, served.error

    @property
    def _services(self) -> set[trio.lowlevel.Task]:
        return {task for task in self._nursery.child_tasks if task.name.endswith(".run")}

    @property
    def barrier_hits(self) -> int:
        """How many unforeseen errors stopped at a connection's barrier."""
        return self.events.counted("barrier_hits")


@asynccontextmanager
async def open_memory_node(
    node_settings: Settings | None = None,
    *,
    events: RecordedEvents | None = None,
    clock: Clock | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[MemoryNode]:
    """Run a node for the length of the block; leaving it cancels everything."""
    node_settings = node_settings or settings()
    events, clock = events or RecordedEvents(), clock or virtual_clock()
    brokers: list[ScriptedBroker] = []

    def open_broker(receiver: Receiver) -> ScriptedBroker:
        brokers.append(ScriptedBroker(receiver, clock=clock))
        return brokers[0]

    hub = Hub(node_settings, open_broker, clock=clock, events=events, tracer=tracer)
    context = Context(
        settings=node_settings,
        hub=hub,
        verifier=Verifier(node_settings.auth, clock.unix_s, hub.revocations),
        clock=clock,
        events=events,
        user_buckets=UserBuckets(node_settings.limits.user_messages),
    )
    node = MemoryNode(node_settings, context, brokers[0], events)
    async with trio.open_nursery() as node._nursery:
        for service in (
            brokers[0].run,
            hub.fanout.run,
            context.connections.run,
            hub.interest.run,
            hub.sessions.run,
        ):
            await node._nursery.start(service)
        yield node
        node._nursery.cancel_scope.cancel()


def query(**fields: str) -> str:
    """Return `/ws` with a query."""
    return "/ws?" + "&".join(f"{name}={quote(value, safe=',')}" for name, value in fields.items())


def queued_bytes_of(node: MemoryNode) -> list[int]:
    """Return what the outboxes of all connections count as unsent."""
    return [connection.outbox.queued_bytes for connection in node.connections if connection.is_open]


def changed(base: Settings, **sections: Any) -> Settings:
    """Return settings with some sections replaced."""
    return msgspec.structs.replace(base, **sections)
