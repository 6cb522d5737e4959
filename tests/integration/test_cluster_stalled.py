"""A node that stands still while its sessions are taken over, and goes on: it is not theirs any more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from notifyd.broker.redis.membership import GRACE_S
from tests.integration.cluster_waits import wait_saved
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes, stalled
from tests.reliability.line import Line, LineLost

pytestmark = pytest.mark.guard(60)

SETTINGS = {"TOPICS": '[{ match = "**", history = 100, joins = true, subscribe = "anyone", publish = "anyone" }]'}
PREFIX = "notifyd"

_lines: list[Line] = []


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[RedisServer, NodeCluster]]:
    with standalone() as server:
        async with running_nodes(2, server.url, settings=SETTINGS) as nodes:
            await nodes.wait_ready()
            yield server, nodes
            while _lines:
                _lines.pop().close()


async def connected(nodes: NodeCluster, number: int, **fields: str) -> Line:
    line = await Line.connected(nodes.port(number, "device"), "device", **fields)
    _lines.append(line)
    return line


def assert_resumed(answer: dict[str, Any], *topics: str) -> None:
    assert answer["resumed"] is True
    assert set(answer["topics"]) == set(topics)


async def code_of(line: Line) -> int | None:
    try:
        while True:
            await line.next()
    except LineLost as lost:
        return lost.code


@pytest.mark.parametrize("forgets", [False, True], ids=["subscribed", "unsubscribed by Redis"])
async def test_a_stalled_node_gives_up_what_was_taken_over(forgets: bool) -> None:
    async with two_nodes() as (server, nodes):
        watcher = await connected(nodes, 1)
        ada = await connected(nodes, 0)
        session = ada.welcome["session"]
        for line in (watcher, ada):
            for number, topic in enumerate(("a:1", "a:2"), start=2):
                assert (await line.ask({"op": "subscribe", "id": number, "topic": topic}))["op"] == "subscribed"
        await wait_saved(server.url, PREFIX, session, ["a:1", "a:2"])
        async with stalled(nodes[0]):
            if forgets:
                _cut_subscriptions_of_first(server)
            successor = await connected(nodes, 1, session=session)
            assert_resumed(successor.welcome, "a:1", "a:2")
            assert (await successor.ask({"op": "subscribe", "id": 5, "topic": "a:3"}))["op"] == "subscribed"
            await wait_saved(server.url, PREFIX, session, ["a:1", "a:2", "a:3"])
        with trio.fail_after(5):
            assert await code_of(ada) == 4100
        await trio.sleep(GRACE_S + 0.5)
        for topic in ("a:1", "a:2"):
            reply = await watcher.ask({"op": "presence", "id": 6, "topic": topic})
            assert session in [member["session"] for member in reply["members"]], topic
        successor.close()
        await nodes[1].wait_metric("sessions", 1)  # the watcher's
        await wait_saved(server.url, PREFIX, session, ["a:1", "a:2", "a:3"])
        assert_resumed((await connected(nodes, 0, session=session)).welcome, "a:1", "a:2", "a:3")


def _cut_subscriptions_of_first(server: RedisServer) -> None:
    for line in server.cli("CLIENT", "LIST", "TYPE", "pubsub").splitlines():
        fields = dict(pair.split("=", 1) for pair in line.split(" "))
        if fields["name"] == "notifyd:n0":
            server.cli("CLIENT", "KILL", "ID", fields["id"])


async def test_a_client_that_returns_to_a_node_that_has_not_heard_keeps_its_session() -> None:
    """Away from a node and back, while that node stood still: the newest connection stays."""
    async with two_nodes() as (server, nodes):
        ada = await connected(nodes, 0)
        session = ada.welcome["session"]
        await ada.ask({"op": "subscribe", "id": 2, "topic": "a:1"})
        await wait_saved(server.url, PREFIX, session, ["a:1"])
        async with stalled(nodes[0]):
            _cut_subscriptions_of_first(server)
            second = await connected(nodes, 1, session=session)
            await second.ask({"op": "subscribe", "id": 5, "topic": "a:2"})
            second.close()
            await nodes[1].wait_metric("sessions", 0)
            await wait_saved(server.url, PREFIX, session, ["a:1", "a:2"])
            third = await Line.open(nodes.port(0, "device"), "device")
            _lines.append(third)
            await third.send({"op": "connect", "id": 1, "session": session})
        assert_resumed(await third.next(), "a:1", "a:2")
        with trio.move_on_after(2) as waited:
            code = await code_of(third)
        assert waited.cancelled_caught, f"closed with {code}"
