"""The product's own scripts do the same in the simulated Redis as in a real one: topics, sessions, members, nodes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.broker.base import Retention, SessionRecord
from notifyd.broker.redis.history import RedisHistory
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.nodes import RedisNodes
from notifyd.broker.redis.presence import RedisPresence
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.sessions import RedisSessions
from notifyd.broker.redis.topology.base import Servers
from notifyd.model import SessionId
from protocol.messages import Member
from protocol.position import Position
from tests.kit.redis_servers import RedisServer, standalone
from tests.simulation.command_sequences import Request
from tests.simulation.test_against_redis import Real, Simulated

IDS = ("a" * 40, "b" * 40, "c" * 40)
TOPICS = st.sampled_from(["t:1", "t:2"])
SESSIONS = st.sampled_from([SessionId("s1"), SessionId("s2")])
OFFSETS = st.integers(0, 6)
HISTORIES = st.sampled_from([0, 2, 100, 100, 100])

Side = Real | Simulated


class OneServer:
    """A `Servers` over one connection; `identity` is what is appended for scripts."""

    sharded = False

    def __init__(self, side: Side) -> None:
        self.side = side
        self.identity: tuple[str, str, int] = (IDS[0], "", 1)

    async def execute(self, key: str, *command: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return self._ask([_bytes(part) for part in command])

    async def evaluate(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, replicas: int = 0
    ) -> Any:
        await trio.lowlevel.checkpoint()
        return self._ask([_bytes(part) for part in ("EVAL", script.text, len(keys), *keys, *arguments, *self.identity)])

    async def scan(self, pattern: str) -> list[str]:
        _, keys = await self.execute("", "SCAN", 0, "MATCH", pattern)
        return sorted(key.decode() for key in keys)

    def _ask(self, request: Request) -> Any:
        (reply,) = self.side.ask(request)
        assert not isinstance(reply, Exception), (request, reply)
        return reply


def _bytes(part: Any) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


class Parts:
    """What the product keeps in Redis, on one server."""

    def __init__(self, side: Side) -> None:
        self.server = OneServer(side)
        servers, names = cast("Servers", self.server), Names("both")
        self.history = RedisHistory(servers, names, "n1")
        self.sessions = [RedisSessions(servers, names, node) for node in ("n1", "n2")]
        self.presence = [RedisPresence(servers, names, node) for node in ("n1", "n2")]
        self.nodes = [RedisNodes(servers, names, node) for node in ("n1", "n2")]
        self.epochs: dict[str, str] = {}

    def known(self, epoch: str) -> str:
        """Name an epoch by its number: they are drawn at random."""
        return self.epochs.setdefault(epoch, f"epoch {len(self.epochs)}")

    def told(self, position: Position | None) -> Any:
        return None if position is None else (self.known(position.epoch), position.offset)

    def since(self, kind: str, offset: int) -> Any:
        newest = next(reversed(self.epochs), "none")
        return {"earliest": "earliest", "latest": "latest"}.get(kind, Position(newest, offset))


Act = Callable[[Parts], Any]


def publishing(topic: str, history: int, key: str | None, data: int) -> Act:
    async def act(parts: Parts) -> Any:
        accepted = await parts.history.publish(
            topic, data, Retention(history, 600.0), key=key, sender="ada", origin=None, sequence=1
        )
        return parts.told(accepted.position), accepted.repeated

    return act


def reading(topic: str, kind: str, offset: int, limit: int) -> Act:
    async def act(parts: Parts) -> Any:
        page = await parts.history.read(topic, parts.since(kind, offset), limit, Retention(100, 600.0))
        messages = [(parts.told(one.position), one.data, one.sender) for one in page.messages]
        return parts.told(page.top), page.base, page.continuous, page.more, messages

    return act


def renewing(topic: str, offset: int) -> Act:
    return lambda parts: parts.history.renew(topic, parts.since("after", offset))


def changing_server(newest: int, previous: int | None, durable: int) -> Act:
    async def act(parts: Parts) -> None:
        await trio.lowlevel.checkpoint()
        parts.server.identity = (IDS[newest], "" if previous is None else IDS[previous], durable)

    return act


def saving(node: int, session: SessionId, offset: int) -> Act:
    record = SessionRecord(session, "ada", {"t:1": Position("e", offset), "t:2": None}, frozenset({"t:1"}))
    return lambda parts: parts.sessions[node].save(record, 60.0)


def taking(node: int, session: SessionId, user: str) -> Act:
    async def act(parts: Parts) -> Any:
        return _without_times(await parts.sessions[node].take(session, user))

    return act


def joining(node: int, topic: str, session: SessionId, since: int) -> Act:
    return lambda parts: parts.presence[node].join(
        topic, Member(user="ada", session=session, since=since), announce=True
    )


def leaving(node: int, topic: str, session: SessionId) -> Act:
    return lambda parts: parts.presence[node].leave(topic, Member(user="ada", session=session, since=0), announce=True)


def counting(topic: str) -> Act:
    async def act(parts: Parts) -> Any:
        return await parts.presence[0].members(topic, await parts.nodes[0].alive())

    return act


def beating(node: int) -> Act:
    async def act(parts: Parts) -> Any:
        beat = await parts.nodes[node].heartbeat()
        return beat.known, sorted(beat.alive), sorted(beat.expired)

    return act


def _without_times(reply: Any) -> Any:
    """Leave out what is a time of Redis's, of 13 digits or more."""
    if isinstance(reply, int) and reply > 10**12:
        return "time"
    return tuple(map(_without_times, reply)) if isinstance(reply, tuple) else reply


nodes = st.integers(0, 1)
acts = st.lists(
    st.one_of(
        st.builds(publishing, TOPICS, HISTORIES, st.sampled_from([None, None, "k1", "k2"]), st.integers(0, 9)),
        st.builds(publishing, TOPICS, st.just(100), st.none(), st.integers(0, 9)),
        st.builds(reading, TOPICS, st.sampled_from(["earliest", "latest", "after"]), OFFSETS, st.integers(1, 5)),
        st.builds(renewing, TOPICS, OFFSETS),
        st.builds(changing_server, st.integers(0, 2), st.none() | st.integers(0, 2), st.just(1)),  # 0: by uptime
        st.builds(saving, nodes, SESSIONS, OFFSETS),
        st.builds(taking, nodes, SESSIONS, st.sampled_from(["ada", "bob"])),
        st.builds(joining, nodes, TOPICS, SESSIONS, st.integers(1, 3)),
        st.builds(leaving, nodes, TOPICS, SESSIONS),
        st.builds(counting, TOPICS),
        st.builds(beating, nodes),
    ),
    min_size=3,
    max_size=20,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with standalone(appendonly="no") as running:
        yield running


@given(acts)
@settings(max_examples=100)
def test_every_script_does_the_same(server: RedisServer, acts: list[Act]) -> None:
    real = Real(server)

    async def compare() -> None:
        both = [Parts(real), Parts(Simulated())]
        for act in acts:
            expected, got = [await act(parts) for parts in both]
            assert got == expected

    try:
        real.ask([b"FLUSHALL"])
        real.ask([b"HELLO", b"3"])
        trio.run(compare)
    finally:
        real.close()
