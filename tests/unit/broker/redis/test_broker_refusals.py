"""A Redis that answers and refuses: full, or without rights. What cannot be done is said, and the rest goes on."""

import re

import pytest
import trio

from notifyd.broker.redis.keys import Names
from notifyd.errors import BrokerUnavailable
from tests.kit.memory_node import policy
from tests.kit.redis_hub import RedisHub, open_redis_hub
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import standalone
from tests.kit.until import until

LIVE = policy("live:**", history=0)


def fill(server: RedisServer) -> None:
    server.cli("CONFIG", "SET", "maxmemory", "1mb", "maxmemory-policy", "noeviction")


def empty(server: RedisServer) -> None:
    server.cli("CONFIG", "SET", "maxmemory", "0")


async def until_well(hub: RedisHub) -> None:
    """Wait until its broker tells of no problem; nobody tells when that is."""
    with trio.fail_after(5):
        while await hub.broker.problems():  # noqa: ASYNC110 - see above
            await trio.sleep(0.05)


async def test_a_full_redis_takes_no_messages_and_lets_them_be_read() -> None:
    with standalone() as server:
        async with open_redis_hub(server.url, "p", "n1", LIVE) as one:
            ada = one.subscriber()
            await ada.subscribe("a:b")
            for number in range(5):
                await one.hub.publish("a:b", number)
            fill(server)
            for topic in ("a:b", "new:1", "new:2"):
                with pytest.raises(BrokerUnavailable, match="maxmemory") as refusal:
                    await one.hub.publish(topic, "x", key="k")
                assert refusal.value.retry_after_s > 0
            assert [message.data for message in (await one.hub.history("a:b", "earliest", 10)).messages] == [*range(5)]
            bob = one.subscriber("bob", "s2")
            await bob.subscribe("a:b", "earliest")
            await until(lambda: bob.data() == [*range(5)])
            await bob.subscribe("live:a")
            assert (await one.hub.publish("live:a", "live")).position is None
            assert not [key for key in server.cli("KEYS", "*") if "new" in key]
            empty(server)
            assert (await one.hub.publish("a:b", 5, key="k")).repeated is False
            await until(lambda: ada.data() == [*range(6)])
            await until(lambda: len(server.cli("HKEYS", Names("p").presence("a:b"))) == 2)
            assert one.services.failures == {}


@pytest.mark.parametrize(
    "refusing",
    [
        pytest.param({"maxmemory": "1mb", "maxmemory-policy": "noeviction"}, id="full"),
        pytest.param({"min-replicas-to-write": "1"}, id="too few replicas"),
    ],
)
async def test_a_key_that_cannot_be_kept_is_known_before_anybody_hears_of_the_message(refusing: dict[str, str]) -> None:
    with standalone() as server:
        async with (
            open_redis_hub(server.url, "p", "n1", LIVE) as one,
            open_redis_hub(server.url, "p", "n2", LIVE) as two,
        ):
            ada, bob = one.subscriber(), two.subscriber("bob", "s2")
            await ada.subscribe("live:a")
            await bob.subscribe("live:a")
            usual = {name: server.cli("CONFIG", "GET", name)[1] for name in refusing}
            for name, value in refusing.items():
                server.cli("CONFIG", "SET", name, value)
            assert (await one.hub.publish("live:a", 1, key="k")).scope == "node"
            assert (await one.hub.publish("live:a", 2)).scope is None  # that asks for nothing to be kept
            await until(lambda: bob.data() == [2])
            await until(lambda: ada.data() == [1, 2])
            for name, value in usual.items():
                server.cli("CONFIG", "SET", name, value)
            assert not (await two.hub.publish("live:a", 3, key="k")).repeated
            await until(lambda: bob.data() == [2, 3])


async def test_a_full_redis_still_drops_what_is_too_old() -> None:
    with standalone() as server:
        async with open_redis_hub(server.url, "p", "n1", policy("**", history=10, ttl_s=0.2)) as one:
            await one.hub.publish("a:b", 1)
            fill(server)
            await trio.sleep(0.4)
            page = await one.hub.history("a:b", "earliest", 10)
            assert page.messages == []
            assert page.top is not None
            assert page.top.offset == 1


RIGHTS = {
    "no scripts": ("~* &* +@all -eval -evalsha", "'evalsha' command"),
    "no keys": ("~other:* &* +@all", "one of the keys|access a key"),  # newer servers say the latter
    "no channels": ("~* &other:* +@all", "one of the channels|access a channel"),
    "nothing": ("~* &* -@all +hello +auth +ping +info +client +select", "'subscribe' command"),
}
"""A user's rules, and what a problem says of them."""


@pytest.mark.parametrize("what", RIGHTS)
async def test_without_rights_it_says_which_and_does_not_pretend(what: str) -> None:
    rules, words = RIGHTS[what]
    users = {"node": f">secret {rules}"}
    with standalone(users=users) as server:
        url = server.url.replace("redis://", "redis://node:secret@")
        async with open_redis_hub(url, "p", "n1", LIVE) as one:
            problems = await one.broker.problems()
            assert problems, "it says that it is ready"
            assert any(re.search(f"no permissions.* ({words})", problem, re.IGNORECASE) for problem in problems), (
                problems
            )
            assert "secret" not in str(problems)
            with pytest.raises(BrokerUnavailable) as refusal:
                await one.subscriber().subscribe("a:b")
            assert "secret" not in str(refusal.value)
            with pytest.raises(BrokerUnavailable):
                await one.hub.publish("a:b", 1)
            await one.subscriber("bob", "s2").subscribe("live:a")
            assert (await one.hub.publish("live:a", 1)).scope == "node"
            server.cli("ACL", "SETUSER", "node", "allkeys", "allchannels", "+@all")
            await until_well(one)
            await one.hub.publish("a:b", 1)


async def test_a_registry_of_nodes_of_the_wrong_kind_is_told(redis_server: RedisServer, redis_url: str) -> None:
    names = Names("broken")
    for key in (names.nodes(), names.revoked()):
        redis_server.cli("SET", key, "x")
        async with open_redis_hub(redis_url, "broken") as one:
            problems = await one.broker.problems()
            assert any("WRONGTYPE" in problem for problem in problems), problems
            redis_server.cli("DEL", key)
            await until_well(one)
