"""Somebody else writes into notifyd's Redis: whatever it is, it is counted and left out, and what is right goes on."""

from typing import Any

import msgspec
import pytest

from notifyd.broker.redis.keys import Names
from notifyd.errors import BrokerUnavailable
from notifyd.model import SessionId
from protocol.framing import Form
from tests.kit.memory_node import policy
from tests.kit.redis_hub import RedisHub, open_redis_hub
from tests.kit.redis_process import RedisServer
from tests.kit.until import until

pack = msgspec.msgpack.encode


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def nested(levels: int) -> bytes:
    """A list in a list in a list, deeper than an encoder would go."""
    return b"\x95" + b"\x91" * levels + b"\x01" + pack(None) + pack(None) + pack("n") + pack(1)


def message(data: Any = 1, *, head: bytes = b"m::", time: bytes = b"1", node: Any = "n9", sequence: Any = 1) -> bytes:
    return head + time + b":" + pack((data, None, None, node, sequence))


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "a letter": b"m",
    "another letter": b"x" + message()[1:],
    "no message": b"m::1:" + pack([1, 2]),
    "a map": b"m::1:" + pack({"data": 1}),
    "cut": message("x" * 100)[:-5],
    "bad time": message(time=b"soon"),
    "a time beyond all clocks": message(time=b"9" * 30),
    "a time without end": message(time=b"9" * 5000),
    "an offset beyond all counters": message(head=b"me:" + b"9" * 25 + b":"),
    "a negative offset": message(head=b"me:-1:"),
    "an offset of zero": message(head=b"me:0:"),
    "an epoch that is no text": message(head=b"m\xff\xfe:1:"),
    "an epoch without end": message(head=b"m" + b"e" * 100_000 + b":1:"),
    "half an epoch": message(head=b"m:1:"),
    "an extension": message(msgspec.msgpack.Ext(5, b"x")),
    "a timestamp": b"m::1:" + b"\x95" + b"\xd6\xff\x00\x00\x00\x01" + pack(None) * 2 + pack("n") + pack(1),
    "keys that are numbers": message({1: 2}),
    "keys that are bytes": message({b"a": 2}),
    "keys that are lists": b"m::1:\x95\x81\x91\x01\x02" + pack(None) * 2 + pack("n") + pack(1),
    "no number": message(float("nan")),
    "deep": message(deep(200)),
    "deeper": b"m::1:" + nested(100_000),
    "larger than a frame": message(b"x" * 17_000_000),
    "a sequence below zero": message(sequence=-1),
    "a node that is none": message(node=7),
    "a change": b"p" + pack(["moved", "ada", "s"]),
    "half a change": b"p" + pack(["joined", "ada"]),
    "a change of numbers": b"p" + pack([1, 2, 3]),
    "a change without end": b"p" + pack(["joined", "x" * 17_000_000, "s"]),
    "a change, cut": b"p" + pack(["joined", "ada", "s"])[:-1],
    "a change that is deep": b"p" + b"\x91" * 100_000,
}


HARMLESS = {"a sequence below zero"}
"""Those that clients can be given."""


async def publish_raw(hub: RedisHub, channel: str, payload: bytes) -> None:
    await hub.broker._servers.execute(channel, "PUBLISH", channel, payload)


@pytest.mark.parametrize("topic", ["live:a", "kept:a"])
async def test_on_a_channel_it_is_left_out(topic: str, redis_url: str, redis_prefix: str) -> None:
    async with open_redis_hub(redis_url, redis_prefix, "n1", policy("live:**", history=0)) as one:
        listeners = [one.subscriber("ada", f"s{form}", form) for form in Form]
        for listener in listeners:
            await listener.subscribe(topic)
        for what, payload in GARBAGE.items():
            before = one.events.counted("malformed_arrivals")
            await publish_raw(one, Names(redis_prefix).channel(topic), payload)
            await one.hub.publish(topic, what)
            for listener in listeners:
                await until(lambda: what in listener.data())  # noqa: B023 - used at once
            assert one.services.failures == {}, what
            assert one.events.counted("malformed_arrivals") == before + (what not in HARMLESS), what
        for listener in listeners:
            assert [data for data in listener.data() if data in GARBAGE] == [*GARBAGE]
            assert not listener.ended


CONTROL: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"\xff\xfe\x00",
    "a list": pack([1, 2]),
    "no op": pack({"from": "n9"}),
    "no sender": pack({"op": "take_over", "session": "s1"}),
    "an unknown op": pack({"op": "format", "from": "n9"}),
    "an op that is a list": pack({"op": [1], "from": "n9"}),
    "a sender that is a map": pack({"op": "end_session", "session": "x", "ask": 1, "from": {}}),
    "an answer to nobody": pack({"op": "answer", "from": "n9", "to": 1, "answer": {}}),
    "an answer to a list": pack({"op": "answer", "from": "n9", "to": [], "answer": {}}),
    "half an answer": pack({"op": "answer", "from": "n9"}),
    "a takeover of a list": pack({"op": "take_over", "from": "n9", "session": [1], "ask": 1}),
    "a takeover of nobody": pack({"op": "take_over", "from": "n9", "session": "nobody", "ask": {"a": [1]}}),
    "a revocation of nothing": pack({"op": "revoke", "from": "n9"}),
    "a revocation of numbers": pack({"op": "revoke", "from": "n9", "revocation": {"until_s": "soon", "user": 5}}),
    "nothing watched": pack({"op": "watched", "from": "n9"}),
    "numbers watched": pack({"op": "watched", "from": "n9", "topics": [1, {}]}),
    "deep": pack({"op": "revoke", "from": "n9"})[:-1] + b"\x91" * 100_000,
    "a map of numbers": pack({1: 2}),
}


@pytest.mark.parametrize("own", [False, True], ids=["everybody", "own"])
async def test_on_the_channels_of_control_it_is_left_out(own: bool, redis_url: str, redis_prefix: str) -> None:
    names = Names(redis_prefix)
    async with open_redis_hub(redis_url, redis_prefix) as one, open_redis_hub(redis_url, redis_prefix, "n2") as two:
        ada = one.subscriber("ada", "s1")
        await ada.subscribe("a:b")
        channel = names.control_of(one.broker.node) if own else names.control()
        for payload in CONTROL.values():
            await publish_raw(two, channel, payload)
        await two.hub.publish("a:b", "after")
        await until(lambda: ada.data() == ["after"])
        assert not ada.ended
        assert await two.broker.end_session(SessionId("s1")) is True
        assert one.events.counted("malformed_arrivals") >= 10
        assert one.services.failures == {}


def wrong(redis_server: RedisServer, key: str, kind: str) -> None:
    redis_server.cli("DEL", key)
    if kind == "string":
        redis_server.cli("SET", key, "x")
    elif kind == "list":
        redis_server.cli("RPUSH", key, "x")
    elif kind == "hash":
        redis_server.cli("HSET", key, "e", "x", "s1", "x")
    else:
        redis_server.cli("ZADD", key, "1", "x")


@pytest.mark.parametrize("kind", ["string", "list", "hash", "zset"])
async def test_keys_of_the_wrong_kind_are_503_and_harm_nothing_else(
    kind: str, redis_server: RedisServer, redis_url: str, redis_prefix: str
) -> None:
    names = Names(redis_prefix)
    async with open_redis_hub(redis_url, redis_prefix, "n1", policy("**", joins=True)) as one:
        ada = one.subscriber("ada", "s1")
        for key in (names.topic("bad:a"), names.stream("bad:b"), names.presence("bad:c"), names.session("bad")):
            wrong(redis_server, key, kind)
        with pytest.raises(BrokerUnavailable):
            await one.hub.publish("bad:a", 1)
        await one.hub.publish("bad:b", 1)  # a stream without its hash is no topic's: it is replaced
        with pytest.raises(BrokerUnavailable):
            await ada.subscribe("bad:a")
        await ada.subscribe("bad:c")
        if kind != "hash":
            with pytest.raises(BrokerUnavailable):
                await one.hub.presence("bad:c")
            with pytest.raises(BrokerUnavailable):
                await one.hub.resume("bad", "ada")
        await ada.subscribe("good:a")
        await one.hub.publish("good:a", 1)
        await until(lambda: ada.data() == [1])
        assert "good:a" in await one.hub.broker.topics()
        assert len(await one.hub.presence("good:a")) == 1
        await ada.leave()
        assert await one.hub.presence("good:a") == []


async def test_keys_with_names_that_are_none_do_not_end_the_list_of_topics(
    redis_server: RedisServer, redis_url: str, redis_prefix: str
) -> None:
    async with open_redis_hub(redis_url, redis_prefix) as one:
        await one.hub.publish("a:b", 1)
        for name in (b"{a}b}", b"{\xff\xfe}", b"{%FF}", b"{a{b}", b"{half}"):
            redis_server.cli("HSET", redis_prefix.encode() + b":topic:" + name, "e", b"\xff", "o", "many")
        redis_server.cli("HSET", Names(redis_prefix).topic("no:offset"), "e", "x")
        assert "a:b" in await one.hub.broker.topics()
