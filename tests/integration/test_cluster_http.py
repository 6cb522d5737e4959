"""The HTTP side of one node about clients, topics and sessions of another."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from notifyd.auth.tokens import Signer
from notifyd.node import Node
from tests.http_client import HttpClient
from tests.kit.memory_node import policy, with_tokens_only
from tests.kit.redis_node import Caller, caller, open_redis_node, opened

pytestmark = pytest.mark.guard(30)

AUTH = with_tokens_only().auth
SEEN = policy("**", joins=True)


def token(user: str, **claims: Any) -> str:
    return Signer(AUTH).sign(user, now_s=_now_s(), subscribe=["**"], publish=["**"], **claims)


def _now_s() -> float:

    return time.time() - 1


@asynccontextmanager
async def pair(url: str, prefix: str) -> AsyncIterator[tuple[Node, Node, HttpClient]]:
    """Two nodes, and the HTTP side of the first."""
    async with (
        open_redis_node(url, prefix, "n1", SEEN, auth=AUTH) as one,
        open_redis_node(url, prefix, "n2", SEEN, auth=AUTH) as two,
    ):
        assert one.http_address is not None
        yield one, two, HttpClient(one.http_address.port)


async def subscribed(node: Node, user: str, *topics: str) -> Caller:
    client = await caller(node, token=token(user))
    for topic in topics:
        assert (await client.ask("subscribe", topic=topic))["op"] == "subscribed"
    return client


async def test_what_another_node_has_is_seen(redis_url: str, redis_prefix: str) -> None:
    async with pair(redis_url, redis_prefix) as (_, two, http):
        ada = await subscribed(two, "ada", "a:1", "a:2")
        for number in range(3):
            answer = await ada.ask("publish", topic="a:1", data=number)
        topics = {each["topic"]: each for each in (await http.get("/v1/topics")).json["topics"]}
        assert (topics["a:1"]["offset"], topics["a:1"]["epoch"]) == (3, answer["epoch"])
        found = (await http.get("/v1/topics/a:1/history")).json["messages"]
        assert [message["data"] for message in found] == [0, 1, 2]
        found = (await http.get(f"/v1/topics/a:1/history?since={answer['epoch']}:2")).json["messages"]
        assert [message["data"] for message in found] == [2]
        found = (await http.get("/v1/topics/a:2/presence")).json["members"]
        assert [(member["user"], member["session"]) for member in found] == [("ada", ada.session)]
        answer = (await http.post("/v1/publish", {"topic": "a:2", "data": "by HTTP"})).json
        assert answer["offset"] == 1
        while not (heard := [push for push in await ada.heard() if push["topic"] == "a:2"]):  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert heard[0]["data"] == "by HTTP"


@pytest.mark.parametrize("topics", [(), ("a:1",)], ids=["without topics", "with a topic"])
@pytest.mark.parametrize("wait_s", [0.0, 0.3], ids=["at once", "once it is saved"])
async def test_a_session_of_another_node_is_disconnected(
    topics: tuple[str, ...], wait_s: float, redis_url: str, redis_prefix: str
) -> None:
    async with pair(redis_url, redis_prefix) as (_, two, http):
        ada, bob = await subscribed(two, "ada", *topics), await subscribed(two, "bob", "a:1")
        await trio.sleep(wait_s)
        assert (await http.ask("DELETE", f"/v1/connections/{ada.session}")).status == 204
        with trio.fail_after(2):
            assert await ada.code() == 4003
        assert (await bob.ask("ping"))["op"] == "pong"
        await trio.sleep(0.1)
        assert (await http.ask("DELETE", f"/v1/connections/{ada.session}")).status == 404
        assert (await http.ask("DELETE", "/v1/connections/nobody")).status == 404


async def test_a_revocation_holds_on_all_nodes_and_on_those_that_come(redis_url: str, redis_prefix: str) -> None:
    async with pair(redis_url, redis_prefix) as (one, two, http):
        ada, bob = await subscribed(two, "ada", "a:1"), await subscribed(two, "bob", "a:1")
        eve = await subscribed(one, "ada")
        revoked = token("ada")
        assert (await http.post("/v1/revocations", {"user": "ada"})).status == 200
        for client in (ada, eve):
            with trio.fail_after(2):
                assert await client.code() == 4001
        async with open_redis_node(redis_url, redis_prefix, "n3", SEEN, auth=AUTH) as three:
            for node in (one, two, three):
                stranger = await opened(node)
                assert (await stranger.connect(token=revoked, session=ada.session))["code"] == 401
        assert (await bob.ask("ping"))["op"] == "pong"
