"""A node whose broker is away, clause by clause: what goes on, what is refused and how, what comes back by itself."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from notifyd.node import Node
from notifyd.settings import BrokerSettings, Url
from tests.http_client import Answer, HttpClient
from tests.integration.cluster_waits import heard_all, wait_saved
from tests.kit.memory_node import policy
from tests.kit.redis_node import Caller, caller, open_redis_node, opened
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import standalone
from tests.kit.until import until

pytestmark = pytest.mark.guard(60)

LIVE = policy("live:**", history=0)
PREFIX = "p"
TIMEOUT_S = 0.5
LONG_TIMEOUT_S = 4.0
SOON_S = 1.0
"""Who is answered within so long did not wait for the long timeout."""


@asynccontextmanager
async def two_nodes(timeout_s: float = TIMEOUT_S) -> AsyncIterator[tuple[RedisServer, Node, Node]]:
    with standalone(appendfsync="always") as server:
        broker = BrokerSettings(url=Url(server.url), prefix=PREFIX, timeout_s=timeout_s)
        async with (
            open_redis_node(server.url, PREFIX, "n1", LIVE, broker=broker) as one,
            open_redis_node(server.url, PREFIX, "n2", LIVE, broker=broker) as two,
        ):
            yield server, one, two


async def wait_back(*nodes: Node) -> None:
    with trio.fail_after(8):
        for node in nodes:
            while await node.problems():  # noqa: ASYNC110 - nobody tells when it is well
                await trio.sleep(0.02)


async def data(client: Caller, topic: str) -> list[Any]:
    """The data of a topic's messages since the last call."""
    return [push["data"] for push in await client.heard() if push.get("topic") == topic and push["op"] == "message"]


def assert_unavailable(answer: dict[str, Any]) -> None:
    assert (answer["op"], answer["code"], answer["reason"]) == ("error", 503, "unavailable"), answer
    assert 0 < answer["retry_after"] < 10


async def test_what_is_refused_and_what_goes_on_while_redis_is_dead() -> None:
    async with two_nodes(LONG_TIMEOUT_S) as (server, one, two):
        ada, bob, far = await caller(one), await caller(one), await caller(two)
        for client in (ada, far):
            await client.ask("subscribe", topic="kept:a")
            await client.ask("subscribe", topic="live:a")
        server.kill()
        await trio.sleep(0.05)
        for op, fields in {
            "publish": {"topic": "kept:a", "data": 1},
            "subscribe": {"topic": "kept:b"},
            "history": {"topic": "kept:a"},
            "presence": {"topic": "kept:a"},
        }.items():
            began_s = time.monotonic()
            assert_unavailable(await bob.ask(op, **fields))
            assert time.monotonic() - began_s < SOON_S, op
        answer = await bob.ask("publish", topic="live:a", data="near")
        assert answer["scope"] == "node"
        assert await data(ada, "live:a") == ["near"]
        answer = await bob.ask("subscribe", topic="live:b")
        assert answer["scope"] == "node"
        assert (await ada.ask("publish", topic="live:b", data="near too"))["scope"] == "node"
        assert await data(bob, "live:b") == ["near too"]
        assert (await bob.ask("unsubscribe", topic="live:a"))["op"] == "unsubscribed"
        assert await far.heard() == []
        server.restart()
        await wait_back(one, two)
        with trio.fail_after(5):
            while not (heard := await data(bob, "live:b")):
                assert "scope" not in await far.ask("publish", topic="live:b", data="from afar")
                await trio.sleep(0.05)
        assert heard[0] == "from afar"
        assert (await far.ask("publish", topic="kept:a", data=2))["offset"] == 1
        with trio.fail_after(2):
            while await data(ada, "kept:a") != [2]:  # noqa: ASYNC110 - asks the node
                await trio.sleep(0.02)


async def test_the_http_side_says_503_as_json() -> None:
    async with two_nodes() as (server, one, _):
        server.kill()
        await trio.sleep(0.05)
        for method, path, body in (
            ("POST", "/v1/publish", {"topic": "kept:a", "data": 1}),
            ("GET", "/v1/topics", None),
            ("GET", "/v1/topics/kept:a/history", None),
            ("GET", "/v1/topics/kept:a/presence", None),
            ("DELETE", "/v1/connections/nobody", None),
            ("POST", "/v1/revocations", {"user": "eve"}),
        ):
            answer = await http(one, method, path, body)
            assert answer.status == 503, (path, answer.status, answer.body)
            assert answer.error[:2] == (503, "unavailable")
            assert int(answer.headers["retry-after"]) > 0
        answer = await http(one, "POST", "/v1/publish", {"topic": "live:a", "data": 1})
        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["scope"] == "node"
        ready = await http(one, "GET", "/ready", None)
        assert ready.status == 503
        assert json.loads(ready.body)["ready"] is False
        assert (await http(one, "GET", "/health", None)).status == 200


async def http(node: Node, method: str, path: str, body: dict[str, Any] | None) -> Answer:
    assert node.http_address is not None
    client = HttpClient(node.http_address.port)
    return await (client.ask(method, path) if body is None else client.post(path, body))


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_keyed_messages_without_history_are_not_doubled(how: str) -> None:
    async with two_nodes() as (server, one, _):
        ada, bob, eve = [await caller(one) for _ in range(3)]
        await ada.ask("subscribe", topic="live:a")
        if how == "killed":
            server.kill()
        else:
            server.stop_process()
        try:
            await trio.sleep(0.05)
            async with trio.open_nursery() as nursery:
                for client in (bob, eve):
                    nursery.start_soon(publish_with_key, client, "k1")
            await publish_with_key(bob, "k1")
            await publish_with_key(bob, "k2")
        finally:
            if how == "killed":
                server.restart()
            else:
                server.continue_process()
        await wait_back(one)
        await publish_with_key(eve, "k1")
        await bob.ask("publish", topic="live:a", data="end")
        assert [push["data"] for push in await heard_all(ada, 3)] == ["k1", "k2", "end"]


async def publish_with_key(client: Caller, key: str) -> None:
    assert (await client.ask("publish", topic="live:a", data=key, key=key))["op"] == "published"


async def test_a_session_cannot_be_resumed_meanwhile_and_can_be_afterwards() -> None:
    async with two_nodes() as (server, one, two):
        ada = await caller(one)
        await ada.ask("subscribe", topic="kept:a")
        await wait_saved(server.url, PREFIX, ada.session, ["kept:a"])
        ada.line.close()
        await until(lambda: ada.session not in one.context.hub.registry.subscribers)
        server.kill()
        await trio.sleep(0.05)
        for node in (one, two):
            back = await opened(node)
            assert_unavailable(await back.connect(session=ada.session))
            fresh = await opened(node)
            assert (await fresh.connect())["op"] == "connected"
        server.restart()
        await wait_back(one, two)
        back = await opened(two)
        answer = await back.connect(session=ada.session)
        assert (answer["resumed"], set(answer["topics"])) == (True, {"kept:a"})


async def test_a_node_that_starts_without_its_broker_serves_and_finds_it_later() -> None:
    with standalone() as server:
        server.kill()
        began_s = time.monotonic()
        async with open_redis_node(server.url, PREFIX, "n1", LIVE) as one:
            assert time.monotonic() - began_s < 4
            ada = await caller(one)
            assert (await ada.ask("subscribe", topic="live:a"))["scope"] == "node"
            assert_unavailable(await ada.ask("subscribe", topic="kept:a"))
            assert await one.problems()
            server.restart()
            await wait_back(one)
            assert (await ada.ask("subscribe", topic="kept:a"))["op"] == "subscribed"


async def test_idle_while_away_also_with_many_members_and_topics() -> None:
    async with two_nodes() as (server, one, _):
        clients = [await caller(one) for _ in range(50)]
        for client in clients:
            for number in range(20):
                await client.ask("subscribe", topic=f"kept:{number}")
        server.kill()
        await trio.sleep(1.5)
        began_s, used_s = time.monotonic(), time.process_time()
        await trio.sleep(3)
        share = (time.process_time() - used_s) / (time.monotonic() - began_s)
        server.restart()
        await wait_back(one)
        assert share < 0.15, f"{share:.0%} of a core, for two nodes"
        assert len((await clients[0].ask("presence", topic="kept:1"))["members"]) == 50
