"""A node that stands still while its sessions are taken over, and goes on: it is not theirs any more."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from notifyd.broker.redis.membership import GRACE_S
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes
from tests.reliability.line import Line, LineLost

pytestmark = pytest.mark.guard(60)

SETTINGS = {"TOPICS": '[{ match = "**", history = 100, joins = true, subscribe = "anyone", publish = "anyone" }]'}


_lines: list[Line] = []


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[RedisServer, NodeCluster]]:
    with standalone() as server:
        async with running_nodes(2, server.url, settings=SETTINGS) as nodes:
            await nodes.wait_ready()
            yield server, nodes
            while _lines:
                _lines.pop().close()


async def connected(nodes: NodeCluster, number: int, **fields: str) -> tuple[Line, dict[str, object]]:
    line = await Line.open(nodes.port(number, "device"), "device")
    _lines.append(line)
    answer = await line.ask({"op": "connect", "id": 1, **fields})
    assert answer["op"] == "connected", answer
    return line, answer


async def code_of(line: Line) -> int | None:
    try:
        while True:
            await line.next()
    except LineLost as lost:
        return lost.code


@pytest.mark.parametrize("forgets", [False, True], ids=["subscribed", "unsubscribed by Redis"])
async def test_a_stalled_node_gives_up_what_was_taken_over(forgets: bool) -> None:
    async with two_nodes() as (server, nodes):
        watcher, _ = await connected(nodes, 1)
        ada, answer = await connected(nodes, 0)
        session = str(answer["session"])
        for line in (watcher, ada):
            for number, topic in enumerate(("a:1", "a:2"), start=2):
                assert (await line.ask({"op": "subscribe", "id": number, "topic": topic}))["op"] == "subscribed"
        await trio.sleep(0.3)
        while (await watcher.ask({"op": "ping", "id": 9}))["op"] != "pong":
            pass
        os.kill(nodes[0].process.pid, signal.SIGSTOP)
        try:
            if forgets:
                _cut_subscriptions_of_first(server)
            successor, answer = await connected(nodes, 1, session=session)
            assert answer["resumed"] is True
            assert await successor.ask({"op": "subscribe", "id": 5, "topic": "a:3"})
            await trio.sleep(0.3)
        finally:
            os.kill(nodes[0].process.pid, signal.SIGCONT)
        with trio.fail_after(5):
            assert await code_of(ada) == 4100
        await trio.sleep(GRACE_S + 0.5)
        for topic in ("a:1", "a:2"):
            reply = await watcher.ask({"op": "presence", "id": 6, "topic": topic})
            assert session in [member["session"] for member in reply["members"]], topic
        successor.close()
        await trio.sleep(0.3)
        _, answer = await connected(nodes, 0, session=session)
        assert answer["resumed"] is True
        assert set(answer["topics"]) == {"a:1", "a:2", "a:3"}  # type: ignore[call-overload]


def _cut_subscriptions_of_first(server: RedisServer) -> None:
    for line in server.cli("CLIENT", "LIST", "TYPE", "pubsub").splitlines():
        fields = dict(pair.split("=", 1) for pair in line.split(" "))
        if fields["name"] == "notifyd:n0":
            server.cli("CLIENT", "KILL", "ID", fields["id"])


async def test_a_client_that_returns_to_a_node_that_has_not_heard_keeps_its_session() -> None:
    """Away from a node and back, while that node stood still: the newest connection stays."""
    async with two_nodes() as (server, nodes):
        ada, answer = await connected(nodes, 0)
        session = str(answer["session"])
        await ada.ask({"op": "subscribe", "id": 2, "topic": "a:1"})
        await trio.sleep(0.3)
        os.kill(nodes[0].process.pid, signal.SIGSTOP)
        try:
            _cut_subscriptions_of_first(server)
            second, _ = await connected(nodes, 1, session=session)
            await second.ask({"op": "subscribe", "id": 5, "topic": "a:2"})
            second.close()
            await trio.sleep(0.3)
            third = await Line.open(nodes.port(0, "device"), "device")
            _lines.append(third)
            await third.send({"op": "connect", "id": 1, "session": session})
        finally:
            os.kill(nodes[0].process.pid, signal.SIGCONT)
        answer = await third.next()
        assert answer["resumed"] is True
        assert set(answer["topics"]) == {"a:1", "a:2"}  # type: ignore[call-overload]
        with trio.move_on_after(2) as waited:
            code = await code_of(third)
        assert waited.cancelled_caught, f"closed with {code}"
