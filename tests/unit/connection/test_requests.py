"""Every request of WIRE section 3 and what answers it, on both transports and in both encodings."""

from typing import Any
from unittest.mock import patch

import pytest
from trio.testing import MockClock

from notifyd.errors import BrokerUnavailable
from notifyd.settings import LimitSettings, Rate
from protocol.codec import FrameType
from protocol.messages import Member
from tests.kit.memory_node import ENCODINGS, TRANSPORTS, open_memory_node, policy, settings, with_tokens_only

EVERYWHERE = [
    pytest.param(transport, encoding, id=f"{transport}-{encoding}")
    for transport in TRANSPORTS
    for encoding in ENCODINGS
]
pytestmark = pytest.mark.parametrize(("transport", "encoding"), EVERYWHERE)
"""Each test runs in the four kinds of connection."""


class Anything:
    """In an expected reply: must be there, whatever it is."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY = Anything()


def error(code: int, reason: str, **more: Any) -> dict[str, Any]:
    return {"op": "error", "id": ANY, "code": code, "reason": reason, "message": ANY, **more}


BAD = error(400, "bad_request")

CONVERSATION: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"op": "connect"}, error(409, "conflict")),
    ({"op": "subscribe", "topic": "a:b"}, {"op": "subscribed", "topic": "a:b", "epoch": ANY, "offset": 0}),
    ({"op": "subscribe", "topic": "a:b"}, error(409, "conflict")),
    (
        {"op": "publish", "topic": "a:b", "data": {"n": [1, None, True, 2.5, "é", {}]}, "key": "k"},
        {"op": "published", "topic": "a:b", "epoch": ANY, "offset": 1},
    ),
    (
        {"op": "publish", "topic": "a:b", "data": "other", "key": "k"},
        {"op": "published", "topic": "a:b", "epoch": ANY, "offset": 1},
    ),
    (
        {"op": "publish", "topic": "a:b", "data": None, "echo": False},
        {"op": "published", "topic": "a:b", "epoch": ANY, "offset": 2},
    ),
    ({"op": "ack", "topic": "a:b", "offset": 2}, {"op": "acked", "topic": "a:b", "offset": 2}),
    ({"op": "ack", "topic": "a:b", "offset": 1}, {"op": "acked", "topic": "a:b", "offset": 2}),
    ({"op": "ack", "topic": "a:b", "offset": 3}, BAD),
    ({"op": "ack", "topic": "c:d", "offset": 1}, error(409, "conflict")),
    (
        {"op": "presence", "topic": "a:b"},
        {"op": "presence", "topic": "a:b", "members": [{"user": "", "session": ANY, "since": ANY}]},
    ),
    ({"op": "presence", "topic": "c:d"}, {"op": "presence", "topic": "c:d", "members": []}),
    (
        {"op": "history", "topic": "a:b", "limit": 1},
        {"op": "history", "topic": "a:b", "epoch": ANY, "messages": ANY, "more": True},
    ),
    (
        {"op": "history", "topic": "a:b", "since": "latest"},
        {"op": "history", "topic": "a:b", "epoch": ANY, "messages": [], "more": False},
    ),
    ({"op": "history", "topic": "plain:x"}, {"op": "history", "topic": "plain:x", "messages": [], "more": False}),
    ({"op": "call", "method": "orders.create", "data": 1}, error(404, "unknown_method")),
    ({"op": "ping"}, {"op": "pong"}),
    ({"op": "unsubscribe", "topic": "a:b"}, {"op": "unsubscribed", "topic": "a:b"}),
    ({"op": "unsubscribe", "topic": "a:b"}, {"op": "unsubscribed", "topic": "a:b"}),
    (
        {"op": "subscribe", "topic": "a:b", "since": "earliest"},
        {"op": "subscribed", "topic": "a:b", "epoch": ANY, "offset": 2, "recovered": True},
    ),
    (
        {"op": "subscribe", "topic": "plain:x", "since": "earliest"},
        {"op": "subscribed", "topic": "plain:x", "recovered": False},
    ),
    ({"op": "subscribe", "topic": "plain:y"}, {"op": "subscribed", "topic": "plain:y"}),
    ({"op": "publish", "topic": "plain:y", "data": 1}, {"op": "published", "topic": "plain:y"}),
    ({"op": "publish", "topic": "service:x", "data": 1}, error(403, "forbidden")),
    ({"op": "subscribe", "topic": "service:x"}, error(403, "forbidden")),
    ({"op": "presence", "topic": "service:x"}, error(403, "forbidden")),
    ({"op": "history", "topic": "service:x"}, error(403, "forbidden")),
    ({"op": "subscribe", "topic": "$server"}, error(403, "forbidden")),
    ({"op": "publish", "topic": "$server", "data": 1}, error(403, "forbidden")),
    ({"op": "refresh", "token": "x.y.z"}, error(401, "unauthorized")),
    # Wrong requests: answered, and forgiven.
    ({"op": "subscribe"}, BAD),
    ({"op": "subscribe", "topic": 5}, BAD),
    ({"op": "subscribe", "topic": "a::b"}, BAD),
    ({"op": "subscribe", "topic": "a:*"}, BAD),
    ({"op": "subscribe", "topic": ""}, BAD),
    ({"op": "subscribe", "topic": "x" * 256}, BAD),
    ({"op": "subscribe", "topic": "c:d", "since": "yesterday"}, BAD),
    ({"op": "subscribe", "topic": "c:d", "since": {"epoch": "e", "offset": -1}}, BAD),
    ({"op": "unsubscribe", "topic": "a b"}, BAD),
    ({"op": "publish", "topic": "a:b"}, BAD),
    ({"op": "publish", "topic": "a:b", "data": 1, "key": ""}, BAD),
    ({"op": "publish", "topic": "a:b", "data": 1, "key": "k" * 129}, BAD),
    ({"op": "publish", "topic": "a:b", "data": 1, "echo": "no"}, BAD),
    ({"op": "publish", "topic": "a\n", "data": 1}, BAD),
    ({"op": "ack", "topic": "a:b", "offset": -1}, BAD),
    ({"op": "ack", "topic": "a:b", "offset": 2**63}, BAD),
    ({"op": "ack", "topic": "", "offset": 1}, BAD),
    ({"op": "presence", "topic": ""}, BAD),
    ({"op": "history", "topic": "a:b", "limit": 0}, BAD),
    ({"op": "history", "topic": "a:b", "limit": 1001}, BAD),
    ({"op": "history", "topic": ""}, BAD),
    ({"op": "call"}, BAD),
    ({"op": "refresh"}, BAD),
    ({"op": "nonsense"}, BAD),
]


async def test_a_whole_conversation(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    topics = (
        policy("plain:*", history=0),
        policy("service:*", publish="service", subscribe="service"),
        policy("**"),
    )
    async with open_memory_node(settings(topics=topics)) as node:
        client = await node.connected(transport, encoding)
        for request, expected in CONVERSATION:
            reply = await client.ask(**request)
            assert reply == {"id": ANY, **expected}, f"{request} got {reply}"
        assert [push.get("offset") for push in client.pushes] == [1, 1, 2, None]
        assert node.barrier_hits == 0
        assert node.events.counted("messages_published", transport=transport) == 4


async def test_what_a_subscriber_gets(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    """Each gets its own encoding, whatever the publisher's was; bytes reach JSON as base64."""
    async with open_memory_node() as node:
        publisher = await node.connected("device", "msgpack", token_for="ada")
        client = await node.connected(transport, encoding)
        await client.ask("subscribe", topic="a:b")
        await publisher.ask("publish", topic="a:b", data={"raw": b"\0\xff", "n": 2**64 - 1})
        push = await client.next_push()
        raw = "AP8=" if encoding == "json" else b"\0\xff"
        assert push == {
            "op": "message",
            "topic": "a:b",
            "data": {"raw": raw, "n": 2**64 - 1},
            "time": 1_790_000_000_000,
            "epoch": push["epoch"],
            "offset": 1,
            "sender": "ada",
        }
        history = await client.ask("history", topic="a:b")
        assert history["messages"] == [{name: value for name, value in push.items() if name != "op"}]


async def test_requests_without_an_id(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    """`publish` and `ack` may leave it out; then only a failure is told, as a push without `id`."""
    async with open_memory_node() as node:
        client = await node.connected(transport, encoding)
        await client.ask("subscribe", topic="a:b")
        await client.send({"op": "publish", "topic": "a:b", "data": 1})
        await client.send({"op": "ack", "topic": "a:b", "offset": 1})
        await client.send({"op": "ack", "topic": "a:b", "offset": 7})
        await client.send({"op": "publish", "topic": "$x", "data": 1})
        await client.send({"op": "subscribe", "topic": "c:d"})
        await client.send({"op": "publish", "topic": "a:b", "id": 0, "data": 1})
        await client.send({"op": "publish", "topic": "a:b", "id": 2**32, "data": 1})
        await client.send({"op": "publish", "topic": "a:b", "id": "7", "data": 1})
        assert (await client.ask("ping"))["op"] == "pong"
        assert client.pushes.popleft()["op"] == "message"
        assert [(push["op"], push["code"]) for push in client.pushes] == [("error", 400), ("error", 403)] + [
            ("error", 400)
        ] * 4
        assert not any("id" in push for push in client.pushes)


async def test_a_client_may_mix_encodings(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    """It is answered in its connection's."""
    async with open_memory_node() as node:
        client = await node.connected(transport, encoding)
        for written in ENCODINGS:
            await client.send({"op": "publish", "id": 50, "topic": "a:b", "data": 1}, encoding=written)
            assert (await client.reply(50))["op"] == "published"
        form = node.connections[0].outbox.form
        assert form.encoding.name.lower() == encoding


async def test_replies_come_in_the_order_of_the_requests(
    transport: str, encoding: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport, encoding)
        requests = [{"op": "history", "topic": "a:b", "id": number} for number in range(1, 60)]
        await client.send_data(b"".join(client.written(request) for request in requests))
        assert [(await client.receive())["id"] for _ in requests] == [*range(1, 60)]


async def test_what_the_broker_cannot_do_now_is_503(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport, encoding)
        await client.ask("subscribe", topic="a:b")
        for name, request in {
            "publish": {"op": "publish", "topic": "a:b", "data": 1},
            "history": {"op": "history", "topic": "a:b"},
            "presence": {"op": "presence", "topic": "a:b"},
            "subscribe": {"op": "subscribe", "topic": "c:d"},
            "join": {"op": "subscribe", "topic": "e:f"},
            "leave": {"op": "unsubscribe", "topic": "a:b"},
        }.items():
            node.broker.fail(name, BrokerUnavailable("away", retry_after_s=1.5))
            reply = await client.ask(**request)
            assert reply == error(503, "unavailable", retry_after=1.5)
        node.broker.fail("publish", BrokerUnavailable("away"))
        await client.send({"op": "publish", "topic": "a:b", "data": 1})
        push = await client.next_push()
        assert (push["op"], push["code"], push["retry_after"], "id" in push) == ("error", 503, 1.0, False)
        assert (await client.ask("ping"))["op"] == "pong"
        assert node.barrier_hits == 0
        assert node.events.counted("messages_published") == 0


async def test_rights_come_from_the_token(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(with_tokens_only()) as node:
        token = node.token("ada", subscribe=["news:*"], publish=["chat:**"])
        client = await node.connected(transport, encoding, token=token)
        assert (await client.ask("subscribe", topic="news:today"))["op"] == "subscribed"
        assert (await client.ask("subscribe", topic="chat:a"))["code"] == 403
        assert (await client.ask("publish", topic="chat:a:b", data=1))["op"] == "published"
        assert (await client.ask("publish", topic="news:today", data=1))["code"] == 403
        assert (await client.ask("presence", topic="chat:a"))["code"] == 403
        assert (await client.ask("history", topic="chat:a"))["code"] == 403


class TestRates:
    async def test_a_connection_has_its_bucket(self, transport: str, encoding: str, autojump_clock: MockClock) -> None:
        limits = LimitSettings(messages=Rate(rate=10, burst=5))
        async with open_memory_node(settings(limits=limits)) as node:
            client = await node.connected(transport, encoding)
            other = await node.connected(transport, encoding)
            replies = [await client.ask("history", topic="a:b") for _ in range(6)]
            assert [reply["op"] for reply in replies] == ["history"] * 4 + ["error"] * 2
            assert replies[-1] == error(429, "rate_limited", retry_after=0.1)
            assert (await other.ask("history", topic="a:b"))["op"] == "history"
            wrong = await client.ask("subscribe", topic=5)
            assert (wrong["code"], "id" in wrong) == (429, True), "a wrong request counts too, and gets its one answer"
            await node.sleep(0.1)
            assert (await client.ask("history", topic="a:b"))["op"] == "history"
            assert node.events.counted("rate_limited", kind="requests") == 3

    async def test_a_user_may_have_one_too(self, transport: str, encoding: str, autojump_clock: MockClock) -> None:
        limits = LimitSettings(user_messages=Rate(rate=1, burst=4))
        async with open_memory_node(settings(limits=limits)) as node:
            first = await node.connected(transport, encoding, token_for="ada")
            second = await node.connected(transport, encoding, token_for="ada")
            other = await node.connected(transport, encoding, token_for="bob")
            for client in (first, second, first, second):
                assert (await client.ask("history", topic="a:b"))["op"] == "history"
            refused = await first.ask("history", topic="a:b")
            assert (refused["code"], refused["retry_after"]) == (429, 1.0)
            assert (await other.ask("history", topic="a:b"))["op"] == "history"
            for client in (first, second, other):
                client.stream.end()
            await node.let_go()
            assert not node.context.user_buckets._buckets

    async def test_pings_and_acknowledgements_are_no_requests(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        limits = LimitSettings(messages=Rate(rate=1, burst=3))
        async with open_memory_node(settings(limits=limits)) as node:
            client = await node.connected(transport, encoding)
            await client.ask("subscribe", topic="a:b")
            for _ in range(50):
                assert (await client.ask("ping"))["op"] == "pong"
                assert (await client.ask("ack", topic="a:b", offset=0))["op"] == "acked"
            assert (await client.ask("history", topic="a:b"))["op"] == "history"
            assert (await client.ask("history", topic="a:b"))["code"] == 429

    async def test_who_goes_on_against_429_is_cut_off(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        limits = LimitSettings(messages=Rate(rate=10, burst=5))
        async with open_memory_node(settings(limits=limits)) as node:
            client = await node.connected(transport, encoding)
            request = client.written({"op": "history", "id": 1, "topic": "a:b"})
            await client.send_data(request * 100)
            assert (await client.end()).code == 4029
            answers = [push["op"] for push in client.pushes if push.get("id") == 1]
            assert answers == ["history"] * 4 + ["error"] * 50
            assert node.events.counted("rate_limited", kind="flood") == 1

    async def test_a_flood_of_heartbeats_is_cut_off(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            for data_of in (
                lambda client: client.wrapped(b"HEAR" + bytes(12)),
                lambda client: client.wrapped(b"HEAR\x01" + bytes(11)),
                lambda client: client.written({"op": "ping", "id": 1}),
            ):
                client = await node.connected(transport, encoding)
                await client.send_data(data_of(client) * 2000)
                assert (await client.ask("history", topic="a:b"))["op"] == "history", "2,000 at once are allowed"
                await client.send_data(data_of(client))
                assert (await client.end()).code == 4029


async def test_wrong_data_gets_400_and_reaches_nobody(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport, encoding)
        await client.ask("subscribe", topic="a:b")
        deep: Any = 1
        for _ in range(65):
            deep = [deep]
        wrong: list[Any] = [deep, float("nan"), float("inf")] if encoding == "msgpack" else [deep, 2**64]
        for data in wrong:
            assert (await client.ask("publish", topic="a:b", data=data))["code"] == 400
        assert not client.pushes


async def test_a_heartbeat_is_answered_bit_for_bit(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.client(transport, encoding)
        for timestamp_ms in (0, 1, 2**63, 2**64 - 1):
            await client.send_heartbeat(FrameType.PING, timestamp_ms)
        await client.connect()
        await client.send_heartbeat(FrameType.PING, 77)
        await client.ask("ping")
        assert client.heartbeats == [(FrameType.PONG, timestamp_ms) for timestamp_ms in (0, 1, 2**63, 2**64 - 1, 77)]


class TestLargeReplies:
    async def test_a_client_that_reads_may_ask_for_much_at_once(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        """More than its queue holds: each reply waits until there is room for it."""
        async with open_memory_node(settings(limits=LimitSettings(queue_bytes=50_000))) as node:
            for _ in range(20):
                await node.hub.publish("a:b", "x" * 5000)
            client = await node.connected(transport, encoding)
            asked = [client.written({"op": "history", "id": number, "topic": "a:b"}) for number in range(1, 11)]
            await client.send_data(b"".join(asked))
            replies = [await client.reply(number) for number in range(1, 11)]
            for reply in replies:
                assert 1 <= len(reply["messages"]) < 20
                assert reply["more"] is True

    async def test_a_live_message_finds_room_beside_a_reply(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(settings(limits=LimitSettings(queue_bytes=50_000))) as node:
            for _ in range(20):
                await node.hub.publish("a:b", "x" * 5000)
            client = await node.connected(transport, encoding, capacity_bytes=1000)
            await client.ask("subscribe", topic="c:d")
            await client.send({"op": "history", "id": 9, "topic": "a:b"})
            await node.sleep(0)
            for _ in range(2):
                await node.hub.publish("c:d", "x" * 10_000)
            assert (await client.reply(9))["op"] == "history"
            assert len((await client.next_push())["data"]) == 10_000

    async def test_a_message_above_half_the_queue_comes_alone(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(settings(limits=LimitSettings(queue_bytes=20_000))) as node:
            for _ in range(3):
                await node.hub.publish("a:b", "x" * 15_000)
            client = await node.connected(transport, encoding)
            since, received = "earliest", 0
            while received < 3:
                reply = await client.ask("history", topic="a:b", since=since)
                assert len(reply["messages"]) == 1
                received += 1
                since = {"epoch": reply["epoch"], "offset": reply["messages"][-1]["offset"]}
                assert reply["more"] is (received < 3)

    async def test_a_crowd_too_large_for_the_queue_is_told_alone(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(settings(limits=LimitSettings(queue_bytes=5000))) as node:
            for number in range(200):
                await node.broker.join("a:b", Member(user="ada", session=f"s{number}", since=number), announce=False)
            client = await node.connected(transport, encoding, capacity_bytes=1000)
            asked = [client.written({"op": "presence", "id": number, "topic": "a:b"}) for number in (1, 2, 3)]
            await client.send_data(b"".join(asked))
            for number in (1, 2, 3):
                assert len((await client.reply(number))["members"]) == 200

    async def test_what_no_frame_holds_is_413(self, transport: str, encoding: str, autojump_clock: MockClock) -> None:
        if (transport, encoding) == ("websocket", "json"):
            pytest.skip("a text message has no such limit")
        async with open_memory_node() as node:
            crowd = [Member(user="u" * 255, session="s", since=1)] * 70_000
            client = await node.connected(transport, encoding)
            with patch.object(node.hub, "presence", return_value=crowd):
                reply = await client.ask("presence", topic="a:b")
            assert (reply["code"], reply["reason"]) == (413, "too_large")
            assert (await client.ask("ping"))["op"] == "pong"
            assert node.barrier_hits == 0
