"""The composition root: the only file that sees everything, and the root of the supervision tree.

The tree, from the outside in, is opened in this order and closed in the reverse one: broker, hub, listeners. It is
drawn in spec/supervision.md.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import trio

from notifyd.auth.tokens import Verifier
from notifyd.broker.base import Broker, Receiver
from notifyd.broker.memory import MemoryBroker
from notifyd.centre import Centre
from notifyd.clock import Clock
from notifyd.connection.context import Context, UserBuckets
from notifyd.connection.drain import drain
from notifyd.events import Events
from notifyd.figures.publisher import FigurePublisher
from notifyd.hub.hub import Hub
from notifyd.listeners import device, websocket
from notifyd.listeners.accept import ClientListener
from notifyd.listeners.http.hub_backend import HubBackend
from notifyd.listeners.http.listener import HttpListener
from notifyd.policy.admission import Admission
from notifyd.settings import FIXED_SECTIONS, Address, Layers, Settings
from notifyd.supervision import Branch, open_branch
from notifyd.telemetry import Telemetry, open_tracer
from notifyd.telemetry.gauges import show_state
from notifyd.telemetry.loop_lag import LoopLag, open_loop_lag
from notifyd.tracing import Tracer
from notifyd.transport.tls import server_context
from protocol.backoff import CAP_S
from protocol.connecting import ConnectionState

CLOSING_S = 5.0
"""What the last clients get beyond the drain window to read their last bytes."""

BROKER_WAIT_S = 2.0
"""The longest wait before a lost link is tried again: the node is to work within seconds of its broker's return."""

BROKER_GOODBYE_S = 1.0
"""What a shared broker gets to be told that this node leaves."""


class Node:
    """A running node. Its addresses are the real ones, also where the settings said port 0."""

    def __init__(self, context: Context, layers: Layers, root: Branch, telemetry: Telemetry, lag: LoopLag) -> None:
        self.context = context
        self.centre = Centre(layers, context.hub.broker, self._take_over, clock=context.clock, events=context.events)
        context.hub.on_configuration = self.centre.take
        self.telemetry = telemetry
        self.lag = lag
        self.draining = False
        self._root = root
        self._http: HttpListener | None = None
        self._clients: dict[str, ClientListener] = {}
        self._own_ports: set[int] = set()
        limit = context.settings.limits.connections
        self._admission = Admission(limit.limit, limit.resume)
        self._drained = trio.Event()
        show_state(telemetry, context, lag, broker_state=lambda: self.broker_state, is_draining=lambda: self.draining)

    @property
    def websocket_address(self) -> Address | None:
        """Where WebSocket clients connect; None when that listener is off."""
        return self._address("websocket")

    @property
    def device_address(self) -> Address | None:
        """Where devices connect; None when that listener is off."""
        return self._address("device")

    @property
    def http_address(self) -> Address | None:
        """Where the API and the page are; None when that listener is off."""
        return None if self._http is None else self._http.address

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.context.settings

    async def drain(self) -> None:
        """Take no new clients and let the connected go, spread over `node.drain`; return when all are gone.

        Cancelled, it stops where it is: no new clients, and those left stay.
        """
        self.draining = True
        for listener in self._clients.values():
            listener.stop_accepting()
        with trio.move_on_after(self.settings.node.drain_s + CLOSING_S):
            await drain(self.context.connections, self.settings.node.drain_s)
            await self.context.connections.wait_empty()
        self._drained.set()

    def stop(self) -> None:
        """End the wait of `wait_drained`, drained or not."""
        self._drained.set()

    async def wait_drained(self) -> None:
        """Wait until `drain` is through, or `stop` was called."""
        await self._drained.wait()

    def reload(self, configuration: Settings | Layers) -> list[str]:
        """Take over what can change while the node runs; return the names of changed sections that need a restart.

        What the configuration centre says stays on top. Raises ConfigurationError, and nothing has changed.
        """
        return self.centre.reload(layers_of(configuration))

    def _take_over(self, settings: Settings) -> list[str]:
        """Let settings hold, but for what names what was opened at the start.

        Connected clients keep the heartbeat they agreed on; all else holds for them, too, from now on.
        """
        old = self.settings
        fixed = [name for name in FIXED_SECTIONS if getattr(old, name) != getattr(settings, name)]
        kept = {name: getattr(old, name) for name in FIXED_SECTIONS}
        self.context.reload(msgspec.structs.replace(settings, **kept))
        if settings.log != old.log:
            self.telemetry.set_level(settings.log.level)
            self.telemetry.set_format(settings.log.format)
        limits = settings.limits
        if limits.connections != old.limits.connections:
            self._admission.resize(limits.connections.limit, limits.connections.resume)
        if self._http is not None:
            self._http.reload(self.context.api_keys, limits.payload_bytes)
        return fixed

    async def problems(self) -> list[str]:
        """Tell, in words, what keeps the node from serving; nothing when it is ready."""
        problems = ["the node is draining"] if self.draining else []
        deaf = [listener.name for listener in self._clients.values() if not listener.accepts and not self.draining]
        problems += [f"the {name} listener does not accept" for name in deaf]
        return problems + await self._broker_problems()

    async def _broker_problems(self) -> list[str]:
        problems = await self.context.hub.broker.problems()
        if not problems and self.broker_state is not ConnectionState.CONNECTED:
            problems = [f"the broker is {self.broker_state.value}"]
        return problems

    @property
    def broker_state(self) -> ConnectionState:
        """The state of the broker's branch of the tree: the worst one of its links and services."""
        states = {branch.name: branch.state for branch in self._root.snapshot().children}
        return states.get("broker", ConnectionState.CONNECTING)

    async def start_clients(self, branch: Branch) -> None:
        """Start the listeners for clients. Raises ListenError and ConfigurationError."""
        settings, context = self.settings, self.context
        listen = settings.listen
        tls = None if listen.tls is None else server_context(listen.tls)
        serving = {
            "websocket": (
                listen.websocket,
                websocket.websocket_server(context, self._own_ports, tls),
                websocket.WEBSOCKET_REFUSAL,
                listen.proxy_protocol.websocket,
            ),
            "device": (
                listen.device,
                device.device_server(context, tls),
                device.DEVICE_REFUSAL,
                listen.proxy_protocol.device,
            ),
        }
        for name, (address, serve, refusal, proxies) in serving.items():
            if address is not None:
                listener = ClientListener(
                    name,
                    address,
                    admission=self._admission,
                    serve=serve,
                    refusal=refusal,
                    events=context.events,
                    tls=tls,
                    proxies=proxies,
                    reuse_port=settings.node.workers > 1,
                )
                await branch.start(name, listener.run)
                self._clients[name] = listener
        branch.add_count("connections", lambda: len(context.connections))

    async def start_http(self, branch: Branch) -> None:
        """Start the API and the page. Raises ListenError."""
        address = self.settings.listen.http
        if address is None:
            return
        backend = HubBackend(
            self.context,
            self.centre,
            tree=self._root.snapshot,
            metrics=self.telemetry.scrape,
            problems=self.problems,
        )
        http = HttpListener(
            address,
            backend,
            self.context.api_keys,
            self.context.events,
            payload_limit_bytes=self.settings.limits.payload_bytes,
            websocket_url=self.websocket_url,
            trusted_proxies=self.settings.listen.trusted_proxies,
            reuse_port=self.settings.node.workers > 1,
        )
        self._http = http  # before it listens: settings may change meanwhile
        await branch.start("http", http.run)
        self._own_ports.add(http.address.port)

    def figures(self) -> FigurePublisher:
        """Return the service that says once a second how this node is."""
        return FigurePublisher(
            self.context,
            self.telemetry,
            tree=self._root.snapshot,
            broker_state=lambda: self.broker_state,
            problems=self.problems,
            is_draining=lambda: self.draining,
            loop_lag_s=lambda: self.lag.recent_s,
        )

    @property
    def websocket_url(self) -> str | None:
        """The URL for WebSocket clients on this machine; None when that listener is off."""
        address = self.websocket_address
        scheme = "ws" if self.settings.listen.tls is None else "wss"
        return None if address is None else f"{scheme}://{address}{websocket.PATH}"

    def _address(self, name: str) -> Address | None:
        listener = self._clients.get(name)
        return None if listener is None else listener.address


@asynccontextmanager
async def open_node(
    configuration: Settings | Layers, *, clock: Clock | None = None, telemetry: Telemetry | None = None
) -> AsyncIterator[Node]:
    """Run a node for the length of the block; inside it, every listener accepts.

    Raises ConfigurationError and ListenError before the block. Leaving the block closes every client at once: `drain`
    first to let them go in order. A failure of a core service (the hub) ends the block with that error.
    """
    layers = layers_of(configuration)
    settings = layers.build()
    clock = clock or Clock()
    telemetry = telemetry or Telemetry()
    async with (
        open_tracer(settings.tracing, node=settings.node.name, clock=clock, events=telemetry) as tracer,
        _open(layers, settings, clock, telemetry, tracer) as node,
    ):
        yield node


@asynccontextmanager
async def _open(
    layers: Layers, settings: Settings, clock: Clock, telemetry: Telemetry, tracer: Tracer
) -> AsyncIterator[Node]:
    hub = Hub(
        settings,
        lambda receiver: _open_broker(settings, receiver, clock, telemetry),
        clock=clock,
        events=telemetry,
        tracer=tracer,
    )
    context = Context(
        settings=settings,
        hub=hub,
        verifier=Verifier(settings.auth, clock.unix_s, hub.revocations),
        clock=clock,
        events=telemetry,
        user_buckets=UserBuckets(settings.limits.user_messages),
    )
    async with open_branch("node", events=telemetry, clock=clock) as root:
        lag = LoopLag(telemetry, context.connections)
        node = Node(context, layers, root, telemetry, lag)
        async with (
            _branch("broker", root, context, longest_wait_s=BROKER_WAIT_S) as broker,
            _closing(hub.broker),
            _branch("hub", root, context) as core,
            _branch("listeners", root, context) as listeners,
        ):
            await hub.broker.start(broker)
            await core.start("fanout", hub.fanout.run, core=True)
            await core.start("heartbeat", context.connections.run, core=True)
            await core.start("interest", hub.interest.run, core=True)
            await core.start("sessions", hub.sessions.run, core=True)
            await node.start_clients(listeners)
            await node.start_http(listeners)
            await core.start("figures", node.figures().run)
            async with open_loop_lag(lag):  # from now on somebody may have to wait
                yield node


def layers_of(configuration: Settings | Layers) -> Layers:
    """Return the layers of a configuration; settings alone have one."""
    return configuration if isinstance(configuration, Layers) else Layers.of(configuration)


def _branch(
    name: str, root: Branch, context: Context, longest_wait_s: float = CAP_S
) -> AbstractAsyncContextManager[Branch]:
    return open_branch(name, events=context.events, clock=context.clock, parent=root, longest_wait_s=longest_wait_s)


@asynccontextmanager
async def _closing(broker: Broker) -> AsyncIterator[None]:
    """Let the broker say goodbye at the end of the block, while its services still run."""
    try:
        yield
    finally:
        with trio.move_on_after(BROKER_GOODBYE_S, shield=True):
            await broker.close()


def _open_broker(settings: Settings, receiver: Receiver, clock: Clock, events: Events) -> Broker:
    if settings.broker.url.scheme == "memory":
        return MemoryBroker(receiver, clock=clock, memory_bytes=settings.broker.memory_bytes)
    from notifyd.broker.redis.broker import RedisBroker  # noqa: PLC0415 - redis-py takes a tenth of a second to import

    return RedisBroker(receiver, settings.broker, node=settings.node.name, clock=clock, events=events)
