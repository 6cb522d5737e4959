"""Whatever a client may send goes through Redis unchanged, whatever it is called and wherever one asks from."""

import base64
from typing import Any

import msgspec
import pytest

from notifyd.broker.base import Retention
from notifyd.broker.redis.keys import Names
from protocol.errors import RequestError
from protocol.framing import Encoding, Form
from protocol.messages import MAX_KEY_CHARACTERS, Publish, decode_request
from protocol.position import MAX_OFFSET, Position
from protocol.topics import check_topic
from tests.kit.memory_node import policy
from tests.kit.redis_hub import open_redis_hub
from tests.kit.redis_process import RedisServer
from tests.kit.until import until


def nested(levels: int) -> Any:
    value: Any = {"": None}
    for level in range(levels - 1):
        value = [value] if level % 2 else {"a": value}
    return value


VALUES = [
    None,
    True,
    False,
    "",
    "\0\x01\x1f\x7f\u2028\ufeff😀é",
    "x" * 70_000,
    *(sign * 2**bits + more for bits in (7, 8, 31, 32, 53, 62) for sign in (1, -1) for more in (-1, 0, 1)),
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.1,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    1.0,
    2.0**60,
    [],
    {},
    {"": {"": [[], {}]}, "a b": 1, "é\n": 2, "__proto__": 3},
    nested(64),
    b"",
    bytes(range(256)),
    {"nested": [b"\xff", {"b": b"\0"}]},
]


def as_json(value: Any) -> Any:
    """What a JSON client is given: bytes are base64 text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value


def sent(data: Any, encoding: Encoding) -> Any:
    """What a node reads of a publish."""
    encode = msgspec.msgpack.encode if encoding is Encoding.MSGPACK else msgspec.json.encode
    request = decode_request(encode({"op": "publish", "topic": "a", "data": data}), encoding)
    assert isinstance(request, Publish)
    return request.data


@pytest.mark.parametrize("topic", ["live:a", "kept:a"])
@pytest.mark.parametrize("encoding", list(Encoding))
async def test_all_data_arrives_as_it_was_sent(
    encoding: Encoding, topic: str, redis_url: str, redis_prefix: str
) -> None:
    live = policy("live:**", history=0)
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", live) as one,
        open_redis_hub(redis_url, redis_prefix, "n2", live) as two,
    ):
        browser = two.subscriber("eve", "s1", Form.WEBSOCKET_JSON)
        device = two.subscriber("eve", "s2", Form.DEVICE_MSGPACK)
        for listener in (browser, device):
            await listener.subscribe(topic)
        for value in VALUES:
            await one.hub.publish(topic, sent(value, encoding))
        await until(lambda: len(browser.data()) == len(device.data()) == len(VALUES))
        as_sent = VALUES if encoding is Encoding.MSGPACK else [as_json(value) for value in VALUES]
        _assert_same(device.data(), as_sent)
        _assert_same(browser.data(), [as_json(value) for value in VALUES])
        if topic == "kept:a":
            late = one.subscriber("bob", "s3", Form.DEVICE_MSGPACK)
            await late.subscribe(topic, "earliest")
            await until(lambda: len(late.data()) == len(VALUES))
            _assert_same(late.data(), as_sent)


def _assert_same(got: list[Any], wanted: list[Any]) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert type(one) is type(other), (one, other)
        assert repr(one) == repr(other)


@pytest.mark.parametrize("data", [2**64, -(2**63) - 1, float("inf"), float("nan"), nested(65), {1: 2}])
async def test_what_only_one_encoding_carries_never_comes_to_redis(data: Any) -> None:
    with pytest.raises((RequestError, OverflowError)):
        sent(data, Encoding.MSGPACK)


TOPICS = [
    "a{b}c",
    "{}",
    "{",
    "}{",
    "%7B",
    "%",
    "100%:{x}",
    "a:{b}:{c}",
    "é" * 127,
    "😀" * 63,
    "x" * 255,
    "a b",
    "[a-z]?\\",
    "'..redis.call('FLUSHALL')..'",
    "channel",
    "~!@#$^&()_+=|;<>,.",
    "\u200b\u202e",
]


async def test_topics_of_all_names_are_kept_apart(redis_server: RedisServer, redis_url: str, redis_prefix: str) -> None:
    topics = [topic for topic in TOPICS if _is_topic(topic)]
    assert len(topics) >= 12
    seen = policy("**", joins=True)
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", seen) as one,
        open_redis_hub(redis_url, redis_prefix, "n2", seen) as two,
    ):
        listener, other = one.subscriber("ada", "s1"), two.subscriber("bob", "s{2}%")
        for topic in topics:
            await listener.subscribe(topic)
            await other.subscribe(topic)
        key = "🔑{}%\0" + "k" * (MAX_KEY_CHARACTERS - 5)
        for topic in topics:
            for _ in range(2):
                answer = await two.hub.publish(topic, topic, key=key)
                assert answer.position is not None
                assert answer.position.offset == 1
        await until(lambda: sorted(listener.data()) == sorted(topics))
        for topic in topics:
            assert [message.data for message in (await one.hub.history(topic, "earliest", 10)).messages] == [topic]
            assert [member.session for member in await one.hub.presence(topic)] == ["s1", "s{2}%"]
        assert set(await one.hub.broker.topics()) >= set(topics)
        await other.leave()
        resumed = await one.hub.resume("s{2}%", "bob")
        assert resumed is not None
        assert set(resumed.positions) == set(topics)
        names = Names(redis_prefix)
        assert set(redis_server.cli("KEYS", f"{redis_prefix}:topic:*")) == {names.topic(t) for t in topics}


def _is_topic(topic: str) -> bool:
    try:
        check_topic(topic)
    except ValueError:
        return False
    return True


KEPT = Retention(1000, 3600.0)
EPOCHS = ["", "x", ":", "e:1", "é" * 1000, "\0", "'", "0" * 12, "nan", "inf", "%d", "x" * 100_000]
OFFSETS = [0, 1, 2, 3, 4, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**62, MAX_OFFSET]


async def test_since_any_position_reads_what_is_right(redis_url: str, redis_prefix: str) -> None:
    async with open_redis_hub(redis_url, redis_prefix) as one:
        positions = [(await one.hub.publish("a:b", number)).position for number in (1, 2, 3)]
        top = positions[-1]
        assert top is not None
        for number, (epoch, offset) in enumerate((e, o) for e in [top.epoch, *EPOCHS] for o in OFFSETS):
            since = Position(epoch, offset)
            known = epoch == top.epoch and offset <= 3
            page = await one.broker.history("a:b", since, 10, KEPT)
            assert page.top == top
            assert page.continuous is known, since
            assert [message.data for message in page.messages] == ([1, 2, 3][offset:] if known else [])
            listener = one.subscriber("ada", f"s{number}")
            assert await listener.subscribe("a:b", since) == top
            await listener.leave()
        ada = one.subscriber("ada", "last")
        await ada.subscribe("a:b", Position(top.epoch, MAX_OFFSET))
        await one.hub.publish("a:b", 4)
        await until(lambda: ada.data() == [4])
        assert (await one.hub.publish("a:b", 5)).position == Position(top.epoch, 5)
