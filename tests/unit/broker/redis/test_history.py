"""Messages, positions and keys in a real Redis: what the conformance suite asks of a broker, and what only Redis has.

Time is real where a test is about what Redis forgets by itself; else the scripts are told a later time (`later`).
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis
import trio
from hypothesis import given
from hypothesis import strategies as st

from notifyd.broker.base import Accepted, Page, Retention
from notifyd.broker.redis.envelope import read_message
from notifyd.broker.redis.history import RedisHistory, milliseconds
from notifyd.broker.redis.keys import Names
from notifyd.errors import BrokerUnavailable
from notifyd.model import SessionId
from protocol.position import Position
from tests.kit.lua_server import Feed, LuaServer, lua_server
from tests.kit.redis_process import RedisServer

NO_HISTORY = Retention(0, 0.0)
NAMES = Names("test")
HOSTILE = ["a:{b}", "}{", "%7B", "{}", "]]:--", "'..redis.call('FLUSHALL')..'", '"\\":{x}', "🎈:é", "$:{a}:b"]


class Shelf:
    """A history with the values that tests mostly use."""

    def __init__(self, server: LuaServer, *, key_ttl_s: float = 300.0) -> None:
        self.server = server
        self.history = RedisHistory(server, NAMES, "n1", key_ttl_s=key_ttl_s)
        self._sequence = 0

    async def accept(
        self, topic: str, value: Any, retention: Retention, key: str | None = None, sender: str | None = None
    ) -> Accepted:
        self._sequence += 1
        return await self.history.publish(
            topic, value, retention, key=key, sender=sender, origin=None, sequence=self._sequence
        )

    async def publish(self, topic: str, *values: Any, history: int = 1000, ttl_s: float = 60.0) -> list[Position]:
        answers = [await self.accept(topic, value, Retention(history, ttl_s)) for value in values]
        return [answer.position for answer in answers if answer.position]

    async def read(
        self, topic: str, since: Any = "earliest", limit: int = 1000, history: int = 1000, ttl_s: float = 60.0
    ) -> Page:
        return await self.history.read(topic, since, limit, Retention(history, ttl_s))

    def feed(self) -> Feed:
        return Feed(self.server.client, NAMES.channel("*"))


def payloads(feed: Feed, topic: str = "a:b") -> list[bytes]:
    """What has been published on a topic's channel since the last call."""
    return [payload for channel, payload in feed.take() if channel == NAMES.channel(topic)]


def data_of(page: Page) -> list[Any]:
    return [message.data for message in page.messages]


@pytest.fixture
async def shelf(redis_server: RedisServer) -> AsyncIterator[Shelf]:
    with lua_server(redis_server.port) as server:
        yield Shelf(server)


# --- publish ----------------------------------------------------------------------------------------------------------


async def test_offsets_count_from_one_within_one_epoch(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", *range(5))
    assert [position.offset for position in positions] == [1, 2, 3, 4, 5]
    assert len({position.epoch for position in positions}) == 1
    assert len(positions[0].epoch) == 12
    [other] = await shelf.publish("a:c", 1)
    assert other.offset == 1
    assert other.epoch != positions[0].epoch


async def test_a_message_is_sent_as_it_is_kept(shelf: Shelf) -> None:
    feed = shelf.feed()
    answer = await shelf.history.publish(
        "a:b", {"n": [1]}, Retention(10, 60), key=None, sender="ann", origin=SessionId("s1"), sequence=7
    )
    [arrived] = [read_message("a:b", payload) for payload in payloads(feed)]
    assert (arrived.node, arrived.sequence) == ("n1", 7)
    assert arrived.notification.position == answer.position
    assert (arrived.notification.sender, arrived.notification.origin) == ("ann", "s1")
    assert list((await shelf.read("a:b")).messages) == [arrived.notification]
    assert abs(arrived.notification.time_ms - int(shelf.server.client.time()[0]) * 1000) < 5000


async def test_without_history_a_message_is_sent_and_nothing_kept(shelf: Shelf) -> None:
    feed = shelf.feed()
    assert await shelf.accept("a:b", 1, NO_HISTORY) == Accepted(None)
    [arrived] = [read_message("a:b", payload) for payload in payloads(feed)]
    assert (arrived.notification.data, arrived.notification.position) == (1, None)
    assert shelf.server.client.keys() == []


async def test_a_message_without_position_ends_the_epoch(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2)
    await shelf.accept("a:b", "in between", NO_HISTORY)
    page = await shelf.read("a:b", positions[1])
    assert (data_of(page), page.continuous) == ([], False)
    [new] = await shelf.publish("a:b", 3)
    assert new.offset == 1
    assert new.epoch != positions[0].epoch


@pytest.mark.parametrize("topic", HOSTILE)
async def test_a_topic_is_only_a_name(shelf: Shelf, topic: str) -> None:
    await shelf.publish("a:b", "mine")
    feed = shelf.feed()
    for value in (topic, {"'": topic}):
        await shelf.accept(topic, value, Retention(10, 60), key=topic, sender=topic)
    assert [read_message(topic, payload).notification.data for payload in payloads(feed, topic)] == [topic]
    assert data_of(await shelf.read(topic)) == [topic]
    assert data_of(await shelf.read("a:b")) == ["mine"]
    assert set(await shelf.history.topics()) == {"a:b", topic}


@pytest.mark.parametrize(
    "data",
    [None, True, "text ☃", b"\x00\xff:\r\n", -(2**63), 2**64 - 1, 1.5, [], {}, {"a": [{"b": b"c"}, None, 0.1]}, "']]"],
)
async def test_every_value_is_kept(shelf: Shelf, data: Any) -> None:
    await shelf.publish("a:b", data)
    [read] = data_of(await shelf.read("a:b"))
    assert (read, type(read)) == (data, type(data))


async def test_offsets_are_exact_far_beyond_what_anyone_publishes(shelf: Shelf) -> None:
    [first] = await shelf.publish("a:b", 0)
    shelf.server.client.delete(NAMES.stream("a:b"))
    shelf.server.client.hset(NAMES.topic("a:b"), "o", str(2**53 - 3))
    positions = await shelf.publish("a:b", 1, 2)
    assert [position.offset for position in positions] == [2**53 - 2, 2**53 - 1]
    page = await shelf.read("a:b", positions[0])
    assert [message.position for message in page.messages] == positions[1:]
    assert not (await shelf.read("a:b", first)).continuous


# --- read -------------------------------------------------------------------------------------------------------------


async def test_since_is_exclusive(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2, 3, 4)
    page = await shelf.read("a:b", positions[1])
    assert (data_of(page), page.continuous, page.more, page.base) == ([3, 4], True, False, 0)
    assert [message.position for message in page.messages] == positions[2:]
    assert page.top == positions[-1]


async def test_a_topic_that_never_had_a_message_has_one_stable_top(shelf: Shelf) -> None:
    pages = [await shelf.read("a:b", since) for since in ("latest", "earliest", "latest")]
    assert {page.top for page in pages} == {pages[0].top}
    assert pages[0].top is not None
    assert pages[0].top.offset == 0
    assert all((data_of(page), page.continuous) == ([], True) for page in pages)
    positions = await shelf.publish("a:b", 1, 2)
    assert positions[0].epoch == pages[0].top.epoch
    assert data_of(await shelf.read("a:b", pages[0].top)) == [1, 2]


async def test_the_newest_position_is_continuous_and_latest_is_the_top_alone(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2)
    for since in (positions[-1], "latest"):
        page = await shelf.read("a:b", since)
        assert (data_of(page), page.continuous, page.more, page.top) == ([], True, False, positions[-1])


@pytest.mark.parametrize("offset", [3, 10**15, 2**63 - 1, -1, -(2**63)])
async def test_a_position_outside_the_epoch_is_not_continuous(shelf: Shelf, offset: int) -> None:
    [_, top] = await shelf.publish("a:b", 1, 2)
    page = await shelf.read("a:b", Position(top.epoch, offset))
    assert (data_of(page), page.continuous, page.more, page.top) == ([], False, False, top)


async def test_a_position_of_another_epoch_is_not_continuous(shelf: Shelf) -> None:
    [_, top] = await shelf.publish("a:b", 1, 2)
    for epoch in ("", "other", "{}", (await shelf.publish("a:c", 1))[0].epoch):
        page = await shelf.read("a:b", Position(epoch, 2))
        assert (data_of(page), page.continuous, page.top) == ([], False, top)


async def test_a_position_before_what_was_trimmed_is_not_continuous(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2, 3, 4, 5, history=2)
    continuity = [(await shelf.read("a:b", position, history=2)).continuous for position in positions]
    assert continuity == [False, False, True, True, True]
    assert data_of(await shelf.read("a:b", positions[2], history=2)) == [4, 5]
    earliest = await shelf.read("a:b", history=2)
    assert (data_of(earliest), earliest.continuous) == ([4, 5], False)


async def test_a_limit_cuts_and_the_last_position_goes_on(shelf: Shelf) -> None:
    await shelf.publish("a:b", *range(10))
    since: Any = "earliest"
    read: list[list[Any]] = []
    more = True
    while more:
        page = await shelf.read("a:b", since, limit=4)
        assert page.continuous
        read.append(data_of(page))
        since, more = page.messages[-1].position, page.more
    assert read == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert not (await shelf.read("a:b", limit=10)).more


async def test_without_history_nothing_is_asked(shelf: Shelf) -> None:
    shelf.server.client.close()
    shelf.server.client = redis.Redis(port=1)
    for since in ("latest", "earliest", Position("x", 1)):
        page = await shelf.history.read("a:b", since, 10, NO_HISTORY)  # type: ignore[arg-type]
        assert page == Page((), None, continuous=since == "latest", more=False)


async def test_topics_are_told_with_their_newest_positions(shelf: Shelf) -> None:
    assert await shelf.history.topics() == {}
    newest = {f"t:{number}": (await shelf.publish(f"t:{number}", 1, 2))[-1] for number in range(200)}
    await shelf.accept("no:history", 1, NO_HISTORY)
    await RedisHistory(shelf.server, Names("test:topic"), "n1").read("other:prefix", "latest", 1, Retention(1, 1))
    assert await shelf.history.topics() == newest


# --- a retention that changes -----------------------------------------------------------------------------------------


async def test_less_history_holds_at_once_and_more_brings_nothing_back(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2, 3, 4)
    assert data_of(await shelf.read("a:b", history=2)) == [3, 4]
    assert data_of(await shelf.read("a:b", history=1000)) == [3, 4]
    assert not (await shelf.read("a:b", positions[0])).continuous
    assert (await shelf.read("a:b", positions[1])).continuous


async def test_a_shorter_time_holds_at_once_and_a_longer_one_brings_nothing_back(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2)
    shelf.server.later(10)
    positions += await shelf.publish("a:b", 3)
    assert data_of(await shelf.read("a:b", ttl_s=5)) == [3]
    page = await shelf.read("a:b", ttl_s=1000)
    assert (data_of(page), page.continuous, page.top) == ([3], False, positions[2])
    assert (await shelf.read("a:b", positions[1])).continuous
    assert not (await shelf.read("a:b", positions[0])).continuous


async def test_each_message_has_a_time_of_its_own(shelf: Shelf) -> None:
    for number in range(100):
        await shelf.publish("a:b", number)
        shelf.server.later(1)
    for number in range(100, 160):
        assert data_of(await shelf.read("a:b", ttl_s=60))[:1] == [number - 59]
        await shelf.publish("a:b", number)
        shelf.server.later(1)
    shelf.server.later(30.5)
    await shelf.publish("a:b", "last")
    assert shelf.server.client.xlen(NAMES.stream("a:b")) == 30


async def test_messages_end_after_their_time_and_positions_do_not(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2)
    shelf.server.later(61)
    old, newest = await shelf.read("a:b", positions[0]), await shelf.read("a:b", positions[1])
    assert (data_of(old), old.continuous) == ([], False)
    assert (data_of(newest), newest.continuous, newest.top) == ([], True, positions[1])
    assert (await shelf.publish("a:b", 3)) == [Position(positions[0].epoch, 3)]
    assert data_of(await shelf.read("a:b")) == [3]


# --- what Redis forgets by itself -------------------------------------------------------------------------------------


async def test_a_stream_ends_with_its_newest_message_and_the_position_stays(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2, ttl_s=0.05)
    with trio.fail_after(5):
        while shelf.server.client.exists(NAMES.stream("a:b")):  # noqa: ASYNC110  Redis does not tell
            await trio.sleep(0.02)
    assert (await shelf.read("a:b", positions[1], ttl_s=0.05)).continuous
    assert not (await shelf.read("a:b", positions[0], ttl_s=0.05)).continuous
    assert await shelf.publish("a:b", 3) == [Position(positions[0].epoch, 3)]
    assert data_of(await shelf.read("a:b")) == [3]


async def stream_left_s(shelf: Shelf) -> float:
    return float(shelf.server.client.pttl(NAMES.stream("a:b"))) / 1000  # type: ignore[arg-type]


async def test_a_stream_never_outlives_its_time_by_more_than_a_second(shelf: Shelf) -> None:
    for ttl_s in (60.0, 60.0, 30.0, 90.0, 90.0):
        await shelf.publish("a:b", 1, ttl_s=ttl_s)
        assert ttl_s <= await stream_left_s(shelf) + 0.2
        assert await stream_left_s(shelf) <= ttl_s + 1
    await shelf.read("a:b", ttl_s=20)
    assert await stream_left_s(shelf) <= 21
    await shelf.read("a:b", ttl_s=40)
    assert 39 <= await stream_left_s(shelf) <= 41


async def test_a_stream_that_was_read_empty_gets_its_time_again(shelf: Shelf) -> None:
    await shelf.publish("a:b", 1, ttl_s=10)
    shelf.server.later(10)
    assert data_of(await shelf.read("a:b", ttl_s=10)) == []
    await shelf.publish("a:b", 2, ttl_s=10)
    assert await stream_left_s(shelf) >= 19.5


async def test_a_stream_ends_in_time_where_the_clock_goes_back(shelf: Shelf) -> None:
    shelf.server.later(3600)
    await shelf.publish("a:b", 1)
    shelf.server.later(-3600)
    await shelf.publish("a:b", 2)
    assert await stream_left_s(shelf) <= 61


async def test_a_position_is_remembered_for_a_week_and_longer_than_its_messages(shelf: Shelf) -> None:
    week_s, meta, client = 7 * 86400, NAMES.topic("a:b"), shelf.server.client
    await shelf.read("a:b", "latest")
    assert week_s <= client.ttl(meta) <= week_s + 3601  # type: ignore[operator]
    await shelf.publish("a:b", 1, ttl_s=2 * week_s)
    assert client.pttl(meta) > client.pttl(NAMES.stream("a:b"))  # type: ignore[operator]
    shelf.server.later(86400)
    await shelf.read("a:b", "latest", ttl_s=2 * week_s)
    assert client.ttl(meta) >= 2 * week_s + 86400  # type: ignore[operator]


async def test_a_forgotten_topic_begins_a_new_epoch_without_its_old_messages(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1, 2)
    shelf.server.client.delete(NAMES.topic("a:b"))
    page = await shelf.read("a:b", positions[1])
    assert (data_of(page), page.continuous) == ([], False)
    assert page.top is not None
    assert page.top.offset == 0
    assert (await shelf.publish("a:b", 3)) == [Position(page.top.epoch, 1)]
    assert data_of(await shelf.read("a:b")) == [3]


# --- idempotency keys -------------------------------------------------------------------------------------------------


async def test_a_known_key_gets_the_first_answer_and_delivers_nothing(shelf: Shelf) -> None:
    feed = shelf.feed()
    first = await shelf.accept("a:b", "one", Retention(1, 60), key="k")
    await shelf.publish("a:b", "two", history=1)
    again = await shelf.accept("a:b", "other data", Retention(1, 60), key="k")
    assert again == Accepted(first.position, repeated=True)
    assert len(payloads(feed)) == 2
    assert data_of(await shelf.read("a:b")) == ["two"]


async def test_a_key_holds_without_history_too(shelf: Shelf) -> None:
    feed = shelf.feed()
    assert await shelf.accept("a:b", 1, NO_HISTORY, key="k") == Accepted(None)
    assert await shelf.accept("a:b", 1, NO_HISTORY, key="k") == Accepted(None, repeated=True)
    assert len(payloads(feed)) == 1


async def test_keys_of_different_topics_are_independent(shelf: Shelf) -> None:
    pairs = (("a:b", "k"), ("a:c", "k"), ("a:b", "c:k"), ("a:b:c", "k"))
    answers = [await shelf.accept(topic, 1, Retention(9, 60), key=key) for topic, key in pairs]
    assert not any(answer.repeated for answer in answers)


async def test_a_key_is_known_for_its_time_and_repeating_does_not_prolong_it(shelf: Shelf) -> None:
    redis, name = shelf.server.client, NAMES.key("a:b", "k")
    brief = Shelf(shelf.server, key_ttl_s=60.0)
    await brief.accept("a:b", 1, Retention(9, 60), key="k")
    assert 50_000 < redis.pttl(name) <= 60_000
    redis.pexpire(name, 20_000)
    assert (await brief.accept("a:b", 1, Retention(9, 60), key="k")).repeated
    assert redis.pttl(name) <= 20_000
    redis.pexpire(name, 0)
    assert not (await brief.accept("a:b", 1, Retention(9, 60), key="k")).repeated


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def test_a_full_server_refuses_and_nothing_has_happened(shelf: Shelf) -> None:
    positions = await shelf.publish("a:b", 1)
    shelf.server.client.config_set("maxmemory", 1)
    try:
        for key in (None, "k"):
            with pytest.raises(BrokerUnavailable, match="maxmemory"):
                await shelf.accept("a:b", 2, Retention(9, 60), key=key)
    finally:
        shelf.server.client.config_set("maxmemory", 0)
    page = await shelf.read("a:b")
    assert (data_of(page), page.top) == ([1], positions[0])
    assert not (await shelf.accept("a:b", 2, Retention(9, 60), key="k")).repeated


@given(st.floats(0, allow_infinity=True, allow_nan=False))
def test_every_time_to_live_is_one_that_redis_can_hold(ttl_s: float) -> None:
    assert 1 <= milliseconds(ttl_s) <= 2**53
    assert ttl_s > 10**6 or abs(milliseconds(ttl_s) - ttl_s * 1000) <= 1


async def test_the_longest_time_to_live_is_one(shelf: Shelf) -> None:
    values: Sequence[int] = (1, 2)
    await shelf.publish("a:b", *values, ttl_s=float("inf"))
    assert data_of(await shelf.read("a:b", ttl_s=float("inf"))) == [1, 2]
