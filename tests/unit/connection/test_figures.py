"""What a node counts of its clients: every message and its bytes once, by form; latencies; who was refused and why."""

import pytest
import trio
from trio.testing import MockClock

from notifyd.hub.traffic import FORMS, Traffic, form_of, labels_of
from notifyd.settings import LimitSettings
from protocol.codec import FrameType
from protocol.framing import Encoding, Form
from tests.kit.memory_node import (
    ENCODINGS,
    TRANSPORTS,
    MemoryNode,
    open_memory_node,
    policy,
    settings,
    with_tokens_only,
)

EVERYWHERE = [
    pytest.param(transport, encoding, id=f"{transport}-{encoding}")
    for transport in TRANSPORTS
    for encoding in ENCODINGS
]


def traffic(node: MemoryNode) -> Traffic:
    return node.context.hub.traffic


def test_forms_have_their_labels() -> None:
    assert [labels_of(form) for form in FORMS] == [
        ("websocket", "json"),
        ("websocket", "msgpack"),
        ("device", "json"),
        ("device", "msgpack"),
    ]
    assert form_of(Form.DEVICE_JSON, Encoding.MSGPACK) is Form.DEVICE_MSGPACK
    assert form_of(Form.WEBSOCKET_MSGPACK, Encoding.JSON) is Form.WEBSOCKET_JSON


@pytest.mark.parametrize(("transport", "encoding"), EVERYWHERE)
async def test_every_message_is_counted_once_by_its_form(
    transport: str, encoding: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        listening = await node.connected(transport, encoding)
        await listening.ask("subscribe", topic="a:b")
        other = await node.connected("device", "json")
        await other.ask("subscribe", topic="a:b")
        out, bytes_out = list(traffic(node).messages_out), list(traffic(node).bytes_out)
        inside = list(traffic(node).messages_in)
        for number in range(3):
            await other.ask("publish", topic="a:b", data={"n": number}, echo=number > 0)
        for _ in range(3):
            await listening.next_push()
        mine = FORMS[[labels_of(form) for form in FORMS].index((transport, encoding))]
        expected = dict.fromkeys(FORMS, 0)
        expected[mine] += 3
        expected[Form.DEVICE_JSON] += 2 + 3  # its own two echoes and three replies
        assert [now - before for now, before in zip(traffic(node).messages_out, out, strict=True)] == list(
            expected.values()
        )
        grown = [now > before for now, before in zip(traffic(node).bytes_out, bytes_out, strict=True)]
        assert grown == [count > 0 for count in expected.values()]
        came = [now - before for now, before in zip(traffic(node).messages_in, inside, strict=True)]
        assert came == [3 if form is Form.DEVICE_JSON else 0 for form in FORMS]
        assert node.events.counted("messages_delivered") == 5


async def test_bytes_are_those_that_a_client_receives(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        device = await node.connected("device")
        await device.ask("subscribe", topic="a:b")
        for number in range(20):
            await device.ask("publish", topic="a:b", data="x" * number)
            await device.next_push()
        assert sum(traffic(node).bytes_out) == sum(node.served[0].stream.sends)


async def test_those_who_leave_and_those_who_catch_up_are_counted_right(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        first, second = await node.connected("device"), await node.connected("device")
        for number in range(4):
            await first.ask("publish", topic="a:b", data=number)
        await first.ask("subscribe", topic="a:b")
        out = traffic(node).messages_out[Form.DEVICE_JSON]
        await second.ask("subscribe", topic="a:b", since="earliest")
        for _ in range(4):
            await second.next_push()
        assert traffic(node).messages_out[Form.DEVICE_JSON] - out == 1 + 4
        assert node.events.counted("recoveries", outcome="complete") == 1
        assert node.events.counted("messages_replayed") == 4
        await second.ask("unsubscribe", topic="a:b")
        out = traffic(node).messages_out[Form.DEVICE_JSON]
        await first.ask("publish", topic="a:b", data=5)
        assert traffic(node).messages_out[Form.DEVICE_JSON] - out == 2
        topic = node.context.hub.registry.topics["a:b"]
        assert topic.live_forms == [0, 0, 1, 0]


async def test_a_recovery_of_what_is_gone_is_incomplete(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        device = await node.connected("device")
        await device.ask("publish", topic="a:b", data=1)
        await device.ask("subscribe", topic="a:b", since={"epoch": "another", "offset": 7})
        assert node.events.counted("recoveries", outcome="incomplete") == 1


async def test_gaps_are_counted_as_they_are_told(autojump_clock: MockClock) -> None:
    rules = (policy("a:*", overflow="gap"),)
    async with open_memory_node(settings(topics=rules, limits=LimitSettings(queue_bytes=4096))) as node:
        slow = await node.connected("device", capacity_bytes=2000)
        await slow.ask("subscribe", topic="a:b")
        fast = await node.connected("device")
        for _ in range(60):
            await fast.ask("publish", topic="a:b", data="x" * 500)
        assert node.events.counted("overflows", policy="gap") > 0
        gaps = 0
        with trio.move_on_after(5):
            while True:
                gaps += (await slow.receive())["op"] == "gap"
        assert gaps >= 1
        assert node.events.counted("gaps", reason="slow") == gaps


async def test_latency_is_observed_for_each_subscriber(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        clients = [await node.connected(transport) for transport in TRANSPORTS]
        for client in clients:
            await client.ask("subscribe", topic="a:b")
        await clients[0].ask("publish", topic="a:b", data=1)
        await clients[1].ask("publish", topic="nobody:there", data=1)
        latencies = node.events.observed("delivery_latency_seconds")
        assert len(latencies) == 2
        assert all(0 <= latency < 0.01 for latency in latencies)
        assert len(node.events.observed("fanout_seconds")) == 1


async def test_round_trips_are_observed(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        device = await node.connected("device")
        with trio.move_on_after(31):
            await device.end()
        kind, timestamp_ms = device.heartbeats[-1]
        assert kind is FrameType.PING
        await node.sleep(2)
        await device.send_heartbeat(FrameType.PONG, timestamp_ms)
        await node.sleep(0.1)
        assert node.events.observed("round_trip_seconds") == [pytest.approx(3.0, abs=0.01)]


@pytest.mark.parametrize(
    ("token", "reason"), [(None, "missing"), ("a.b.c", "malformed"), ("expired", "expired"), ("foreign", "signature")]
)
async def test_tokens_are_refused_by_reason(token: str | None, reason: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(with_tokens_only()) as node:
        device = await node.device()
        if token == "expired":
            token = node.token("ada", expires_in_s=1)
            await node.sleep(3)
        elif token == "foreign":
            head, _, signature = node.token("ada").split(".")
            token = f"{head}.{node.token('ben').split('.')[1]}.{signature}"
        fields = {} if token is None else {"token": token}
        await device.send({"op": "connect", "id": 1, **fields})
        await device.end_anyhow()
        assert {dict(labels)["reason"] for name, labels in node.events.counts if name == "token_refusals"} == {reason}
        (line,) = node.events.logged("token_refused")
        assert line["connection"]


async def test_who_may_not_is_counted_by_what_it_wanted(autojump_clock: MockClock) -> None:
    async with open_memory_node(with_tokens_only()) as node:
        token = node.token("ada", subscribe=["a:*"], publish=[])
        device = await node.connected("device", token=token)
        assert (await device.ask("publish", topic="a:b", data=1))["code"] == 403
        assert (await device.ask("subscribe", topic="c:d"))["code"] == 403
        assert (await device.ask("presence", topic="c:d"))["code"] == 403
        assert node.events.counted("permission_refusals", operation="publish") == 1
        assert node.events.counted("permission_refusals", operation="subscribe") == 2


async def test_resumes_are_counted_by_what_became_of_them(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        device = await node.device()
        session = (await device.connect())["session"]
        await device.ask("subscribe", topic="a:b")
        again = await node.device()
        assert (await again.connect(session=session))["resumed"]
        await (await node.device()).connect(session="nobody's")
        assert node.events.counted("resumes", outcome="resumed") == 1
        assert node.events.counted("resumes", outcome="unknown") == 1


async def test_every_line_about_a_connection_has_its_id(autojump_clock: MockClock) -> None:
    async with open_memory_node(with_tokens_only()) as node:
        for user in ("ada", "ben"):
            await node.connected("device", token_for=user)
        browser = await node.websocket()
        await browser.send({"op": "connect", "id": 1, "token": "x.y.z"})
        await browser.end_anyhow()
        ids = [connection.id for connection in node.connections]
        node.cancel_connections()
        await node.let_go()
        lines = [(event, fields["connection"]) for _, event, fields in node.events.lines]
        assert len({connection for _, connection in lines}) == 3
        for connection in ids:
            assert [event for event, about in lines if about == connection] == [
                "connection_opened",
                "connection_connected",
                "connection_closed",
            ]
            assert len(connection) <= 12
        refused = next(about for event, about in lines if event == "token_refused")
        assert [event for event, about in lines if about == refused] == [
            "connection_opened",
            "token_refused",
            "connection_closed",
        ]
