"""What the conformance suite needs of a broker under test, whichever it is.

A new broker adds its name to `KINDS` and its way of being opened to `open_trial`; the tests stay as they are. They
speak of time only through `Trial`: a broker with a virtual clock answers `advance` at once, one with a real clock
chooses short times to live and waits. Where the servers of a kind are stands in `URLS`, which conftest.py fills.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import Broker, ConfigurationVersion, Loss, Page, Retention, Services, SessionRecord
from notifyd.broker.memory import MemoryBroker
from notifyd.broker.memory.keys import KEY_TTL_S
from notifyd.broker.redis.broker import RedisBroker
from notifyd.broker.redis.topology.base import Servers
from notifyd.clock import Clock
from notifyd.model import Notification, SessionId
from notifyd.settings import BrokerSettings, Url
from protocol.messages import Joined, Left
from protocol.position import Position
from tests.kit.redis_process import versions
from tests.kit.services import open_services
from tests.recorded_events import RecordedEvents
from tests.simulation.opening import open_simulated

OTHER_VERSIONS = {f"redis, {version}": version for version in versions()[1:]}
"""The other servers that this machine has: an older Redis, a Valkey."""

SIMULATED = "redis, simulated"
"""The Redis of the simulation: it has to be one here, too."""

KINDS = ("memory", "redis", "redis+cluster", *OTHER_VERSIONS, SIMULATED)

URLS: dict[str, str] = {}

SHORT_S = 0.6
"""A time to live for real clocks: long against what a busy machine takes for a few commands."""

MARKER = "marker:"
"""Begins the topics of messages that are published to see what came before them arrive."""

START_UNIX_S = 1_790_000_000.0


@dataclass
class VirtualTime:
    """Both clocks of a node, moved by hand."""

    now_s: float = 1000.0

    def clock(self) -> Clock:
        return Clock(monotonic_s=lambda: self.now_s, unix_s=lambda: START_UNIX_S + self.now_s)

    async def advance(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Received:
    """Implements `notifyd.broker.base.Receiver` by keeping everything; `sessions` are those that live here."""

    delivered: list[Notification] = field(default_factory=list)
    lost: list[Loss] = field(default_factory=list)
    changes: list[Joined | Left] = field(default_factory=list)
    revoked: list[Revocation] = field(default_factory=list)
    configured: list[ConfigurationVersion] = field(default_factory=list)
    watched: list[list[str]] = field(default_factory=list)
    sessions: dict[SessionId, SessionRecord] = field(default_factory=dict)
    ended: list[SessionId] = field(default_factory=list)

    markers: list[Any] = field(default_factory=list)

    def deliver(self, batch: Sequence[Notification]) -> None:
        for notification in batch:
            if notification.topic.startswith(MARKER):
                self.markers.append(notification.data)
            else:
                self.delivered.append(notification)

    def lose(self, loss: Loss) -> None:
        self.lost.append(loss)

    def announce(self, change: Joined | Left) -> None:
        self.changes.append(change)

    def take_over(self, session: SessionId) -> SessionRecord | None:
        return self.sessions.pop(session, None)

    def end_session(self, session: SessionId) -> bool:
        self.ended.append(session)
        return self.sessions.pop(session, None) is not None

    def missed_takeovers(self) -> None:
        """Do nothing: no session is saved here by itself."""

    def watched_elsewhere(self, topics: Collection[str]) -> None:
        self.watched.append(list(topics))

    def revoke_here(self, revocation: Revocation) -> None:
        self.revoked.append(revocation)

    def configure_here(self, newest: ConfigurationVersion) -> None:
        self.configured.append(newest)


@dataclass
class Trial:
    """A broker under test, what it brought, and the time it lives in.

    `ttl_s` is a time to live of messages and sessions that `advance` can wait for, `key_ttl_s` how long the broker
    knows a key. `delivered_all` returns once everything published so far has been handed to `deliver`. `clean_up` makes
    the broker do now what it does in the background.
    """

    broker: Broker
    ttl_s: float
    key_ttl_s: float
    advance: Callable[[float], Awaitable[None]]
    delivered_all: Callable[[], Awaitable[None]]
    clean_up: Callable[[], None]
    now_s: Callable[[], float]
    got: Received

    @property
    def delivered(self) -> list[Notification]:
        """Everything handed to `deliver` so far."""
        return self.got.delivered

    async def subscribe(self, topic: str, history: int = 1000) -> None:
        """Want a topic's messages."""
        assert await self.broker.subscribe(topic, self.keep(history)) is None

    def keep(self, history: int = 1000) -> Retention:
        """Keep so many messages for `ttl_s`."""
        return Retention(history, self.ttl_s)

    async def publish(self, topic: str, *values: Any, history: int = 1000) -> list[Position]:
        """Publish values to a topic with history; return their positions."""
        answers = [await self.broker.publish(topic, value, self.keep(history)) for value in values]
        positions = [answer.position for answer in answers]
        assert None not in positions
        return [position for position in positions if position]

    async def read(self, topic: str, since: Any = "earliest", limit: int = 1000, history: int = 1000) -> Page:
        """Read a topic's history, 1000 messages unless told otherwise."""
        return await self.broker.history(topic, since, limit, self.keep(history))

    async def topics(self) -> dict[str, Position | None]:
        """Tell the topics that the test itself has used."""
        return {name: at for name, at in (await self.broker.topics()).items() if not name.startswith(MARKER)}

    async def received(self) -> list[Any]:
        """Return the data of everything delivered so far, and start anew."""
        await self.delivered_all()
        values = [notification.data for notification in self.delivered]
        self.delivered.clear()
        return values


def data_of(page: Page) -> list[Any]:
    """Return the data of a page's messages."""
    return [message.data for message in page.messages]


@asynccontextmanager
async def open_trial(kind: str, **bounds: int) -> AsyncIterator[Trial]:
    """Open a fresh and empty broker; `bounds` are the constructor's of the embedded one."""
    if kind == "memory":
        yield _memory_trial(bounds)
        return
    async with open_services() as services, AsyncExitStack() as stack:
        servers = None
        if kind == SIMULATED:
            servers = (await stack.enter_async_context(open_simulated(RecordedEvents()))).servers
        yield await stack.enter_async_context(_redis_trial(services, URLS.get(kind, "redis://"), servers))


def _memory_trial(bounds: dict[str, int]) -> Trial:
    time = VirtualTime()
    got = Received()
    clock = time.clock()
    broker = MemoryBroker(got, clock=clock, **bounds)

    async def delivered_all() -> None:
        """Do nothing: this broker delivers before a publish returns."""

    def clean_up() -> None:
        for _ in broker._sweep(time.now_s):
            pass

    return Trial(
        broker=broker,
        ttl_s=60.0,
        key_ttl_s=KEY_TTL_S,
        advance=time.advance,
        delivered_all=delivered_all,
        clean_up=clean_up,
        now_s=clock.monotonic_s,
        got=got,
    )


@asynccontextmanager
async def _redis_trial(services: Services, url: str, servers: Servers | None) -> AsyncIterator[Trial]:
    """Open a broker over the Redis at `url`, or over these servers, under a prefix of its own."""
    settings = BrokerSettings(url=Url(url), prefix=f"trial-{secrets.token_hex(4)}", timeout_s=5.0)
    got = Received()
    broker = RedisBroker(
        got,
        settings,
        node="trial",
        clock=Clock(),
        events=RecordedEvents(),
        servers=servers,
        key_ttl_s=SHORT_S * 1.5,
    )
    await broker.start(services)
    markers = [f"{MARKER}{number}" for number in range(8 if "cluster" in url else 1)]  # some on each server
    for marker in markers:
        await broker.subscribe(marker, Retention(0, 0.0))

    async def delivered_all() -> None:
        token = secrets.token_hex(4)
        for marker in markers:
            await broker.publish(marker, token, Retention(0, 0.0))
        while got.markers.count(token) < len(markers):  # noqa: ASYNC110 - Redis tells nobody when it has delivered
            await trio.sleep(0.002)

    def clean_up() -> None:
        """Do nothing: Redis forgets by itself."""

    yield Trial(
        broker=broker,
        ttl_s=SHORT_S,
        key_ttl_s=SHORT_S * 1.5,
        advance=trio.sleep,
        delivered_all=delivered_all,
        clean_up=clean_up,
        now_s=trio.current_time,
        got=got,
    )
    await broker.close()
