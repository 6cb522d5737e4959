"""What nodes say about themselves, through a real Redis: a subscription hears all of them, or at least its own node."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from notifyd.hub.watches import CONNECTIONS_TOPIC, FIGURES_TOPIC, ON_DEMAND
from notifyd.node import Node
from notifyd.settings import AuthSettings, BrokerSettings, Secret, Url
from tests.kit.redis_node import Caller, caller, open_redis_node
from tests.kit.redis_servers import standalone

pytestmark = pytest.mark.guard(60)

KEY = "an API key of the cluster"
AUTH = AuthSettings(anonymous=True, api_keys=(Secret(KEY),))
ENOUGH_S = 15.0


@asynccontextmanager
async def two_nodes(url: str, prefix: str) -> AsyncIterator[tuple[Node, Node]]:
    broker = BrokerSettings(url=Url(url), prefix=prefix, timeout_s=0.5)
    async with (
        open_redis_node(url, prefix, "n1", auth=AUTH, broker=broker) as one,
        open_redis_node(url, prefix, "n2", auth=AUTH, broker=broker) as two,
    ):
        yield one, two


async def operator(node: Node, *topics: str) -> Caller:
    client = await caller(node, token=KEY)
    for topic in topics:
        assert (await client.ask("subscribe", topic=topic))["op"] == "subscribed"
    return client


async def next_of(client: Caller, topic: str, *nodes: str) -> list[dict[str, Any]]:
    """What each of these nodes says next on a topic."""
    found: dict[str, dict[str, Any]] = {}
    client.pushes.clear()
    with trio.fail_after(ENOUGH_S):
        while found.keys() < set(nodes):
            push = await client.line.next()
            if push.get("topic") == topic and push["data"]["node"] in nodes:
                found[push["data"]["node"]] = push["data"]
    return [found[node] for node in nodes]


async def test_one_subscription_hears_all_nodes(redis_url: str, redis_prefix: str) -> None:
    async with two_nodes(redis_url, redis_prefix) as (one, two):
        watcher = await operator(one, FIGURES_TOPIC, *ON_DEMAND)
        ada = await caller(two)
        await ada.ask("subscribe", topic="a:b")
        first, second = await next_of(watcher, FIGURES_TOPIC, "n1", "n2")
        assert (first["state"], second["state"]) == ("serving", "serving")
        _, second = await next_of(watcher, FIGURES_TOPIC, "n1", "n2")
        assert second["broker"]["kind"] == "redis"
        assert 0 < second["broker"]["round_trip_ms"] < 5000
        for topic in ON_DEMAND:
            await next_of(watcher, topic, "n1", "n2")
        (connections,) = await next_of(watcher, CONNECTIONS_TOPIC, "n2")
        assert [(each["session"], each["topics"]) for each in connections["connections"]] == [(ada.session, ["a:b"])]
        assert two.context.hub.watches.here() == frozenset()


async def test_without_the_broker_each_hears_its_own_node(redis_prefix: str) -> None:
    with standalone() as server:
        async with two_nodes(server.url, redis_prefix) as (one, _):
            watcher = await operator(one, FIGURES_TOPIC, *ON_DEMAND)
            await next_of(watcher, FIGURES_TOPIC, "n1", "n2")
            server.kill()
            with trio.fail_after(ENOUGH_S):
                while (figures := (await next_of(watcher, FIGURES_TOPIC, "n1"))[0])["state"] != "degraded":
                    pass
            assert figures["problems"]
            await next_of(watcher, CONNECTIONS_TOPIC, "n1")
            server.start()
            with trio.fail_after(ENOUGH_S):
                while (await next_of(watcher, FIGURES_TOPIC, "n2"))[0]["state"] != "serving":
                    pass
            for topic in ON_DEMAND:
                await next_of(watcher, topic, "n1", "n2")
