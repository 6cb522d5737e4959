"""RELIABILITY row 20 over Redis, in small: clients that come, move between nodes and go leave nothing behind."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from notifyd.broker.redis.membership import GRACE_S
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes
from tests.reliability.line import Line, LineLost

WARM_UP, LIVES = 150, 500
AT_ONCE = 16
TOPICS = 20
GROWTH_BYTES = 3072
"""What a life of several connections may leave of memory in so short a run; a forgotten session has 10 KiB and more."""

GAUGES = ("connections", "sessions", "topics", "tasks")
SESSION_TTL_S = 0.5
SETTINGS = {
    "SESSIONS__TTL": f"{SESSION_TTL_S * 1000:.0f}ms",
    "TOPICS": (
        '[{ match = "soak:*", history = 10, ttl = "1s", joins = true, subscribe = "anyone", publish = "anyone" },'
        ' { match = "live:*", history = 0, joins = true, subscribe = "anyone", publish = "anyone" }]'
    ),
}


class Life:
    """One client, on one node after the other. `seen` counts what it was granted."""

    def __init__(self, nodes: NodeCluster, number: int, chance: random.Random, seen: Counter[str]) -> None:
        self._nodes = nodes
        self._chance = chance
        self._seen = seen
        self._topics = [f"{kind}:{number % TOPICS}" for kind in ("soak", "live")]
        self._id = 0
        self._line: Line
        self._session: str | None = None

    async def run(self) -> None:
        try:
            await self._connect()
            for topic in self._topics:
                await self._ask("subscribe", topic=topic)
                await self._ask("publish", topic=topic, data="x" * 50)
            with suppress(LineLost):  # taken over, or unknown by then
                for _ in range(self._chance.choice([0, 0, 1, 2])):
                    await self._move()
                await self._do_something()
        finally:
            self._line.cut() if self._chance.random() < 0.3 else self._line.close()

    async def _connect(self) -> None:
        transport: Any = self._chance.choice(["device", "websocket"])
        self._line = await Line.open(self._nodes.port(self._chance.randrange(2), transport), transport)
        resumed = {} if self._session is None else {"session": self._session}
        answer = await self._ask("connect", **resumed)
        self._session = answer.get("session")
        self._seen["resumed"] += answer.get("resumed") is True

    async def _move(self) -> None:
        """Go on elsewhere, the old connection open, closed or reset."""
        old = self._line
        how = self._chance.randrange(3)
        if how:
            (old.cut if how == 1 else old.close)()
        await self._connect()
        if not how:
            old.close()

    async def _do_something(self) -> None:
        topic = self._chance.choice(self._topics)
        for op in self._chance.sample(["presence", "history", "unsubscribe", "ping"], 2):
            await self._ask(op, **({} if op == "ping" else {"topic": topic}))

    async def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        self._id += 1
        answer = await self._line.ask({"op": op, "id": self._id, **fields})
        self._seen["published"] += answer["op"] == "published"
        return answer


async def _live(nodes: NodeCluster, count: int, seed: int) -> Counter[str]:
    """Let so many live; how often one of them was resumed, and how many messages were published."""
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    numbers = iter(range(count))

    async def clients() -> None:
        for number in numbers:
            await Life(nodes, number, chance, seen).run()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(clients)
    return seen


def _kinds(server: RedisServer) -> Counter[str]:
    """How many keys there are of each kind; what a kept position takes stays for a week."""
    return Counter(key.split(":")[1] for key in server.cli("KEYS", "*"))


async def _at_rest(nodes: NodeCluster, server: RedisServer) -> dict[str, Any]:
    await trio.sleep(GRACE_S + SESSION_TTL_S + 1)
    found: dict[str, Any] = {}
    for number in range(2):
        node = nodes[number]
        await node.wait_metric("connections", 0)
        await node.wait_metric("topics", 0)
        found[f"n{number}"] = {name: await node.metric(name) for name in GAUGES}, await node.steady_descriptors()
    found["keys"] = _kinds(server)
    found["channels"] = len(server.cli("PUBSUB", "CHANNELS", "*"))
    found["connections"] = len(server.cli("CLIENT", "LIST").splitlines())
    return found


@pytest.mark.guard(90)
async def test_lives_across_nodes_leave_nothing(report: Callable[[str], None]) -> None:
    with standalone(appendonly="no") as server:
        async with running_nodes(2, server.url, settings=SETTINGS) as nodes:
            await nodes.wait_ready()
            await _live(nodes, WARM_UP, seed=1)
            before = await _at_rest(nodes, server)
            before_bytes = [nodes[number].resident_bytes for number in range(2)]
            seen = await _live(nodes, LIVES, seed=2)
            assert seen["published"] == 2 * LIVES
            assert seen["resumed"] > LIVES / 4
            assert await _at_rest(nodes, server) == before
            assert set(before["keys"]) <= {"topic", "{nodes}", "complete"}, before["keys"]
            grown = max(nodes[number].resident_bytes - before_bytes[number] for number in range(2)) / LIVES
            report(f"row 20 over Redis in small: {LIVES} lives, {dict(seen)}, {grown:.0f} bytes each, {before}")
            assert grown <= GROWTH_BYTES
            for number in range(2):
                assert await nodes[number].metric("barrier_hits_total") == 0
