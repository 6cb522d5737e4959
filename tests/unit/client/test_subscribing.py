"""Subscriptions over reconnects, slow consumers, sessions from an earlier process, acknowledgements."""

from functools import partial
from typing import Any

import pytest
import trio
from msgspec import UNSET
from trio.testing import MockClock

from notifyd.client import SubscriptionEnded
from protocol.codec import FrameType, encode_frame
from protocol.errors import CloseCode, ErrorCode, RequestError
from protocol.framing import Encoding
from protocol.messages import (
    Entry,
    Gap,
    History,
    HistoryReply,
    Joined,
    Left,
    Message,
    Publish,
    Published,
    Restored,
    Subscribe,
    Subscribed,
    Unsubscribed,
    encode,
)
from tests.unit.client.scripted_server import EPOCH, Peer, ScriptedServer, at, restored


async def seen(messages: Any, count: int) -> list[Any]:
    """Take so many events: offsets of messages, (first, last, reason) of gaps."""
    events = [await anext(messages) for _ in range(count)]
    return [event.offset if isinstance(event, Message) else (event.first, event.last, event.reason) for event in events]


async def page(peer: Peer, *offsets: int, more: bool = False, epoch: str = EPOCH) -> History:
    """Answer the next `history`."""
    request = await peer.expect(History)
    entries = [Entry(topic="a", data=offset, time=1, epoch=epoch, offset=offset) for offset in offsets]
    await peer.send(HistoryReply(id=request.id, topic="a", messages=entries, more=more, epoch=epoch))
    return request


# --- coming back -----------------------------------------------------------------------------------------------------


async def test_a_resumed_session_goes_on_by_itself(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.admit(offset=0)
        await peer.push(1, 2)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end(CloseCode.RESTART)
        peer = await server.accept()
        hello = await peer.welcome(resumed=True, topics={"a": restored(4, recovered=True)})
        assert (hello.session, hello.positions) == ("s1", {"a": at(2)})
        await peer.push(3, 4, 5)
        await peer.nothing_comes()

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 5) == [1, 2, 3, 4, 5]
        await trio.testing.wait_all_tasks_blocked()


async def test_a_resumed_session_that_lost_something_tells_it_once(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.admit(offset=0)
        await peer.push(1)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end()
        peer = await server.accept()
        await peer.welcome(resumed=True, topics={"a": restored(7, recovered=False)})
        await peer.send(Gap(topic="a", first=2, last=7, reason="expired", epoch=EPOCH))
        await peer.push(8)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 3) == [1, (2, 7, "expired"), 8]


async def test_a_new_session_subscribes_from_the_last_position(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.admit(offset=0)
        await peer.push(1)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end()
        peer = await server.accept_connected(session="s2")
        assert (await peer.admit(offset=7, recovered=False)).since == at(1)
        await peer.push(8)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 3) == [1, (2, 7, "expired"), 8]


async def test_a_history_that_began_anew(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected()
        await peer.admit(offset=10)
        await peer.end()
        peer = await device_server.accept_connected()
        await peer.admit(offset=2, recovered=False, epoch="e2")
        await peer.push(3, epoch="e2")

    nursery.start_soon(serve)
    async with device_server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 2) == [(1, 2, "epoch"), 3]


async def test_a_topic_without_history_says_that_something_may_be_missing(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected()
        await peer.admit(offset=None)
        await peer.end()
        peer = await device_server.accept_connected(resumed=True, topics={"a": Restored()})
        await peer.nothing_comes()

    nursery.start_soon(serve)
    async with device_server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 1) == [(0, 0, "no_history")]


async def test_messages_before_the_answer_do_not_count(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Those of an earlier subscription of the same topic on the same connection may still be under way."""

    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.push(1, 2)
        await peer.push(1, topic="unknown")
        await peer.admit(offset=2)
        await peer.push(3)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 1) == [3]


async def test_earliest_is_asked_again_until_something_came(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected()
        assert (await peer.admit(offset=5, recovered=True)).since == "earliest"
        await peer.end()
        peer = await device_server.accept_connected()
        assert (await peer.admit(offset=5, recovered=True)).since == "earliest"
        await peer.push(1)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end()
        peer = await device_server.accept_connected()
        assert (await peer.admit(offset=5, recovered=True)).since == at(1)

    nursery.start_soon(serve)
    async with device_server.client() as client, client.subscribe("a", since="earliest") as messages:
        assert await seen(messages, 1) == [1]
        await trio.sleep(1)


async def test_subscribing_waits_for_the_connection(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    device_server.refusals.extend([OSError("x")] * 7)
    async with device_server.client() as client, trio.open_nursery() as nursery:

        async def serve() -> None:
            peer = await device_server.accept()
            assert (await peer.welcome()).positions == {"b": at(4)}
            await peer.admit(offset=9, recovered=True)

        nursery.start_soon(serve)
        async with client.subscribe("b", since=at(4)):
            pass


async def test_more_topics_than_a_connect_can_name(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    topics = [f"a-rather-long-name-for-a-topic:{number}" for number in range(100)]

    async def serve() -> None:
        peer = await device_server.accept_connected()
        for _ in topics:
            await peer.admit(offset=5)
        await peer.end()
        peer = await device_server.accept()
        hello = await peer.welcome(resumed=True, topics={topic: restored(5, recovered=True) for topic in topics})
        assert hello.positions is not None
        assert 10 < len(hello.positions) < 50
        for _ in range(100 - len(hello.positions)):
            assert (await peer.admit(offset=5, recovered=True)).since == at(5)
        await peer.nothing_comes()
        assert set(peer.unsubscribed) == set(topics) - set(hello.positions)
        for topic in topics:
            await peer.push(6, topic=topic)

    nursery.start_soon(serve)
    async with device_server.client() as client, trio.open_nursery() as inner:

        async def subscribe(topic: str) -> None:
            async with client.subscribe(topic) as messages:
                assert await seen(messages, 1) == [6]

        for topic in topics:
            inner.start_soon(subscribe, topic)


# --- refusals and ends -----------------------------------------------------------------------------------------------


async def test_a_refused_subscription(server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.refuse(await peer.expect(Subscribe), 403)
        await peer.admit()

    nursery.start_soon(serve)
    async with server.client() as client:
        with pytest.raises(RequestError, match="refused"):
            async with client.subscribe("a"):
                pass
        async with client.subscribe("a"):
            pass


async def test_a_subscription_that_has_to_wait(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def serve() -> None:
        peer = await device_server.accept_connected()
        for _ in range(3):
            request = await peer.expect(Subscribe)
            times.append(trio.current_time())
            await peer.refuse(request, 429, retry_after=2.0)
        await peer.admit()

    nursery.start_soon(serve)
    async with device_server.client() as client, client.subscribe("a"):
        assert times[2] - times[0] == pytest.approx(4)


async def test_a_subscription_refused_after_a_reconnect_ends(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected()
        await peer.admit(offset=0)
        await peer.push(1)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end()
        peer = await device_server.accept_connected()
        await peer.refuse(await peer.expect(Subscribe), 403)

    nursery.start_soon(serve)
    async with device_server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 1) == [1]
        for _ in range(2):
            with pytest.raises(RequestError, match="refused"):
                await anext(messages)


async def test_a_subscription_the_server_ends(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.admit(offset=0)
        await peer.push(1)
        await peer.send(Unsubscribed(topic="a", reason="forbidden"))
        await peer.push(2)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 1) == [1]
        with pytest.raises(SubscriptionEnded, match="the subscription of 'a' is over: forbidden") as ended:
            await anext(messages)
        assert ended.value.reason == "forbidden"


async def test_a_subscription_left_is_over(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected()
        await peer.admit()

    nursery.start_soon(serve)
    async with device_server.client() as client:
        async with client.subscribe("a") as messages:
            pass
        with pytest.raises(SubscriptionEnded, match="left"):
            await anext(messages)


@pytest.mark.parametrize("topic", ["", "a b", "a::b", "a:*"])
async def test_what_is_no_topic(device_server: ScriptedServer, topic: str, autojump_clock: MockClock) -> None:
    async with device_server.client() as client:
        with pytest.raises(RequestError) as refused:
            async with client.subscribe(topic):
                pass
        assert refused.value.code is ErrorCode.BAD_REQUEST


async def test_one_topic_is_subscribed_once(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected()
        await peer.admit()

    nursery.start_soon(serve)
    async with device_server.client() as client, client.subscribe("a"):
        with pytest.raises(RequestError, match="already") as refused:
            async with client.subscribe("a"):
                pass
        assert refused.value.code is ErrorCode.CONFLICT


async def test_joins_are_shown_where_asked_for(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        for _ in range(2):
            request = await peer.admit(offset=0)
            await peer.send(Joined(topic=request.topic, user="bob", session="s9"))
            await peer.push(1, topic=request.topic)
            await peer.send(Left(topic=request.topic, user="bob", session="s9"))

    nursery.start_soon(serve)
    async with server.client() as client:
        async with client.subscribe("a") as messages:
            assert await seen(messages, 1) == [1]
        async with client.subscribe("b", joins=True) as messages:
            assert [type(await anext(messages)) for _ in range(3)] == [Joined, Message, Left]


# --- topics the server subscribed by itself --------------------------------------------------------------------------


async def test_a_session_of_an_earlier_process_goes_on(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with server.client(session="s0") as client:
        peer = await server.accept()
        await peer.welcome(session="s0", resumed=True, topics={"a": restored(3, recovered=True)})
        await peer.push(2, 3)
        await client.wait_connected()
        async with client.subscribe("a") as messages:
            await peer.push(4)
            assert await seen(messages, 3) == [2, 3, 4]
            await peer.nothing_comes()


async def test_a_topic_of_the_token_is_claimed_or_begun_anew(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client("t") as client:
        peer = await device_server.accept_connected(topics={"a": restored(3), "b": restored(3)})
        await peer.push(4)
        await client.wait_connected()
        async with client.subscribe("a") as messages:
            assert await seen(messages, 1) == [4]

            async def serve() -> None:
                assert (await peer.admit(offset=3, recovered=True)).since == at(1)

            nursery.start_soon(serve)
            async with client.subscribe("b", since=at(1)):
                assert peer.unsubscribed == ["b"]


async def test_a_topic_of_the_token_that_is_wanted_from_a_position(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected(topics={"a": restored(3), "b": restored(3)})
        await peer.push(4, topic="b")
        assert (await peer.admit(offset=4, recovered=True)).since == at(2)
        assert peer.unsubscribed == ["a"]
        await peer.push(3, 4)

    nursery.start_soon(serve)
    async with (
        device_server.client("t") as client,
        client.subscribe("b") as news,
        client.subscribe("a", since=at(2)) as messages,
    ):
        assert await seen(messages, 2) == [3, 4]
        assert await seen(news, 1) == [4]


async def test_topics_left_while_away_are_left_again(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.admit(offset=0)

    async with device_server.client() as client:
        peer = await device_server.accept_connected()
        nursery.start_soon(serve, peer)
        async with client.subscribe("a"):
            await peer.end()
            await trio.testing.wait_all_tasks_blocked()
        peer = await device_server.accept_connected(resumed=True, topics={"a": restored(0, recovered=True)})
        await trio.testing.wait_all_tasks_blocked()
        assert peer.unsubscribed == ["a"]


# --- acknowledgements ------------------------------------------------------------------------------------------------


async def test_acknowledgements_are_cumulative_and_joined(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            await peer.push(1, 2, 3)
            await peer.send(Message(topic="a", data=0, time=1))

        nursery.start_soon(serve)
        async with client.subscribe("a") as messages:
            first, second, third, nameless = [await anext(messages) for _ in range(4)]
            for message in (nameless, second, third, first, second):
                messages.acknowledge(message)
            await trio.testing.wait_all_tasks_blocked()
            assert [ack.offset for ack in peer.acks] == [3]
            assert peer.acks[0].id is None


async def test_acknowledgements_survive_a_reconnect(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peers: list[Peer] = []

    async def serve() -> None:
        peers.append(await device_server.accept_connected())
        await peers[0].admit(offset=0)
        await peers[0].push(1, 2)
        peers.append(await device_server.accept_connected(resumed=True, topics={"a": restored(2, recovered=True)}))
        await trio.testing.wait_all_tasks_blocked()
        await peers[1].end()
        peers.append(await device_server.accept_connected(session="s2"))
        await peers[2].admit(offset=2, recovered=True)
        await trio.testing.wait_all_tasks_blocked()
        await peers[2].end()
        peers.append(await device_server.accept_connected(session="s2"))
        await peers[3].admit(offset=0, recovered=False, epoch="e2")

    nursery.start_soon(serve)
    async with device_server.client() as client, client.subscribe("a") as messages:
        assert await seen(messages, 1) == [1]
        second = await anext(messages)
        await peers[0].end()
        await trio.testing.wait_all_tasks_blocked()
        messages.acknowledge(second)
        assert await seen(messages, 1) == [(0, 0, "epoch")]
        await trio.testing.wait_all_tasks_blocked()
    assert [[ack.offset for ack in peer.acks] for peer in peers] == [[], [2], [2], []]


# --- slow consumers --------------------------------------------------------------------------------------------------


async def test_a_slow_consumer_reads_the_rest_from_the_history(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            await peer.push(*range(1, 10))

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=3) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert (await client_pages(peer, nursery, messages)) == list(range(1, 10))
            await peer.push(10)
            assert await seen(messages, 1) == [10]
            await peer.nothing_comes()


async def client_pages(peer: Peer, nursery: trio.Nursery, messages: Any) -> list[Any]:
    async def serve() -> None:
        assert (await page(peer, 4, 5, 6, more=True)).since == at(3)
        request = await page(peer, 7, 8, 9)
        assert (request.since, request.limit) == (at(6), 3)

    nursery.start_soon(serve)
    return await seen(messages, 9)


async def test_a_quick_consumer_keeps_up_with_a_burst(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A burst that arrives in one piece is no reason to fall behind."""
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            messages = [Message(topic="a", data=0, time=1, epoch=EPOCH, offset=offset) for offset in range(1, 501)]
            frames = [encode_frame(FrameType.MSGPACK, encode(message, Encoding.MSGPACK)) for message in messages]
            await peer.send_raw(b"".join(frames))

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=50) as messages:
            assert await seen(messages, 500) == list(range(1, 501))
            await peer.nothing_comes()


async def test_what_the_history_has_no_more_is_a_gap(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            await peer.push(*range(1, 8))
            await page(peer, 5, 6)
            await page(peer)
            await peer.push(8, 9, 10, 11)
            await peer.send(Gap(topic="a", first=12, last=13, reason="slow", epoch=EPOCH))
            await peer.refuse(await peer.expect(History), 403)
            await peer.push(14)

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 6) == [1, 2, (3, 4, "skipped"), 5, 6, (7, 7, "slow")]
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 4) == [8, 9, (10, 13, "slow"), 14]


async def test_messages_that_come_while_the_history_is_read(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            await peer.push(1, 2, 3)
            request = await peer.expect(History)
            await peer.push(4)
            await peer.send(
                HistoryReply(
                    id=request.id,
                    topic="a",
                    messages=[Entry(topic="a", data=3, time=1, epoch=EPOCH, offset=3)],
                    more=False,
                    epoch=EPOCH,
                )
            )
            await page(peer, 4, 5)
            await peer.push(4, 5, 6)

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 6) == [1, 2, 3, 4, 5, 6]


async def test_a_slow_consumer_of_a_topic_without_history(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def send(count: int) -> None:
            for _ in range(count):
                await peer.send(Message(topic="a", data=0, time=1))

        async def serve() -> None:
            await peer.admit(offset=None)
            await send(5)
            await peer.send(Joined(topic="a", user="bob", session="s"))

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2, joins=True) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 3) == [UNSET, UNSET, (0, 0, "slow")]
            await send(1)
            assert await seen(messages, 1) == [UNSET]


async def test_a_slow_consumer_over_a_reconnect(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            nonlocal peer
            await peer.admit(offset=0)
            await peer.push(1, 2, 3, 4)
            await peer.expect(History)
            await peer.end()
            peer = await device_server.accept()
            hello = await peer.welcome(resumed=True, topics={"a": restored(5, recovered=True)})
            assert hello.positions == {"a": at(2)}
            await peer.push(3, 4, 5)
            await page(peer, 3, 4)
            await page(peer, 5)

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 5) == [1, 2, 3, 4, 5]


async def test_a_reconnect_that_recovers_nothing_ends_the_catching_up(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            nonlocal peer
            await peer.admit(offset=0)
            await peer.push(1, 2, 3)
            await peer.expect(History)
            await peer.end()
            peer = await device_server.accept_connected()
            requests = {type(request): request for request in [await peer.take_request() for _ in range(2)]}
            subscribe, history = requests[Subscribe], requests[History]
            await peer.send(Subscribed(id=subscribe.id or 0, topic="a", epoch="e2", offset=2, recovered=False))
            await peer.send(HistoryReply(id=history.id or 0, topic="a", messages=[], more=False, epoch="e2"))
            await peer.push(3, epoch="e2")

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 4) == [1, 2, (1, 2, "epoch"), 3]


async def test_a_history_that_begins_anew_while_catching_up(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            await peer.push(1, 2, 3)
            await page(peer, epoch="e2")
            await peer.push(1, epoch="e2")

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 4) == [1, 2, (0, 0, "epoch"), 1]


async def test_a_slow_consumer_learns_at_the_end_what_it_did_not_get(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            await peer.push(1, 2, 3, 4)
            await peer.send(Unsubscribed(topic="a"))

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2) as messages:
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(messages, 3) == [1, 2, (3, 4, "slow")]
            with pytest.raises(SubscriptionEnded, match="unsubscribed"):
                await anext(messages)


async def test_what_waits_for_an_own_publish_is_bounded_and_comes_again(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Offset 1 may be the publish's own: what follows waits for its answer, up to the feed's bound."""
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            nonlocal peer
            await peer.admit(offset=0)
            await peer.expect(Publish)
            await peer.push(2, 3, 4)
            await page(peer, 1, 2)
            await page(peer, 3, 4)
            await trio.testing.wait_all_tasks_blocked()
            await peer.push(6)
            await trio.testing.wait_all_tasks_blocked()
            await peer.end()
            peer = await device_server.accept()
            hello = await peer.welcome(resumed=True, topics={"a": restored(6, recovered=True)})
            assert hello.positions == {"a": at(4)}
            await peer.push(5, 6)
            request = await peer.expect(Publish)
            await peer.send(Published(id=request.id or 0, topic="a", epoch=EPOCH, offset=1))

        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=2) as messages, trio.open_nursery() as inner:
            inner.start_soon(partial(client.publish, "a", "mine", echo=False))
            assert await seen(messages, 6) == [1, 2, 3, 4, 5, 6]


async def test_several_tasks_share_a_subscription(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()

        async def serve() -> None:
            await peer.admit(offset=0)
            await peer.push(*range(1, 10))
            await page(peer, *range(4, 7), more=True)
            await page(peer, *range(7, 10))

        taken: list[int] = []
        nursery.start_soon(serve)
        async with client.subscribe("a", queue_messages=3) as messages, trio.open_nursery() as inner:
            await trio.testing.wait_all_tasks_blocked()

            async def work() -> None:
                taken.extend(await seen(messages, 3))

            for _ in range(3):
                inner.start_soon(work)
        assert sorted(taken) == list(range(1, 10))
