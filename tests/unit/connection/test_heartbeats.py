"""Heartbeats and tokens in virtual time: what is sent and what ends, at the exact moment."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from notifyd.settings import HeartbeatSettings
from protocol.codec import FrameType
from tests.kit.clients import Client
from tests.kit.memory_node import TRANSPORTS, MemoryNode, open_memory_node, query, settings, with_tokens_only

on_both = pytest.mark.parametrize("transport", TRANSPORTS)


async def watch(node: MemoryNode, client: Client) -> list[tuple[float, FrameType]]:
    """Read until the server ends the connection; return when each heartbeat of its came."""
    seen: list[tuple[float, FrameType]] = []
    known = 0

    class Noting(list):
        def append(self, heartbeat: tuple[FrameType, int]) -> None:
            super().append(heartbeat)
            seen.append((node.time_s(), heartbeat[0]))

    client.heartbeats = Noting(client.heartbeats)
    await client.end()
    assert known == 0
    return seen


@on_both
async def test_a_silent_client_is_pinged_each_interval_and_lost_at_the_exact_time(
    transport: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport)
        seen = await watch(node, client)
        assert seen == [(30.0, FrameType.PING), (60.0, FrameType.PING)]
        assert client.ended.code == 4008
        assert node.time_s() == 2 * 30 + 10
        assert node.events.counted("heartbeats_lost") == 1
        await node.let_go()
        node.assert_empty()


@on_both
async def test_the_agreed_interval_holds(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        await node.sleep(3)
        client = await node.connected(transport, heartbeat=5)
        seen = await watch(node, client)
        assert seen == [(8.0, FrameType.PING), (13.0, FrameType.PING), (18.0, FrameType.PING)]
        assert node.time_s() == 3 + 2 * 5 + 10
        assert client.ended.code == 4008


@on_both
async def test_misses_and_floor_are_configurable(transport: str, autojump_clock: MockClock) -> None:
    heartbeat = HeartbeatSettings(interval_s=10, misses=4, floor_s=3)
    async with open_memory_node(settings(heartbeat=heartbeat)) as node:
        client = await node.connected(transport)
        await watch(node, client)
        assert node.time_s() == 43


@on_both
@pytest.mark.parametrize(
    "sign_of_life",
    [
        lambda client: client.send_heartbeat(FrameType.PING, 1),
        lambda client: client.send_heartbeat(FrameType.PONG, 1),
        lambda client: client.send({"op": "ack", "topic": "a:b", "offset": 1}),
        lambda client: client.send({"op": "ping", "id": 1}),
        lambda client: client.stream.send_now(client.written({"op": "ping", "id": 1})[:5]),
    ],
    ids=["ping", "pong", "a message without an answer", "a ping message", "half a frame"],
)
async def test_any_byte_is_life(
    transport: str, sign_of_life: Callable[[Client], object], autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport)
        await node.sleep(69)
        sent = sign_of_life(client)
        if not isinstance(sent, int):
            await sent
        await client.end()
        assert node.time_s() == 69 + 70


async def test_a_websocket_ping_is_life(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected("websocket")
        await node.sleep(69)
        await client.send_ping()
        await client.end()
        assert node.time_s() == 69 + 70


@on_both
async def test_a_talkative_client_is_pinged_each_fifth_interval(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport)
        pings = []
        for _ in range(40):
            await node.sleep(10)
            await client.send_heartbeat(FrameType.PING, 7)
            await client.ask("ping")
            if (FrameType.PING, int(node.time_s() * 1000)) in client.heartbeats:
                pings.append(node.time_s())
        assert pings == [150.0, 300.0]


@on_both
async def test_the_timeout_adapts_to_the_round_trips(transport: str, autojump_clock: MockClock) -> None:
    """Answers take 8 s: the timeout becomes 24 s, and is shown to operators."""
    async with open_memory_node() as node:
        client = await node.connected(transport)
        liveness = node.connections[0].watch.liveness
        for number in range(1, 7):
            while len([one for one in client.heartbeats if one[0] is FrameType.PING]) < number:
                with trio.move_on_after(1):
                    client.pushes.append(await client.receive())
            pinged_ms = client.heartbeats[-1][1]
            await node.sleep(pinged_ms / 1000 + 8 - node.time_s())
            await client.send_heartbeat(FrameType.PONG, pinged_ms)
            await client.send_heartbeat(FrameType.PONG, pinged_ms)
            answered_s = node.time_s()
            await node.sleep(0)
        assert abs(liveness.round_trip_s - 8) < 1e-6
        await client.end()
        assert abs(node.time_s() - answered_s - (60 + 24)) < 1e-6


@on_both
async def test_pongs_nobody_asked_for_change_nothing(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport)
        for timestamp_ms in (0, 1, 2**64 - 1):
            await client.send_heartbeat(FrameType.PONG, timestamp_ms)
        await client.ask("ping")
        assert node.connections[0].watch.liveness.round_trip_s is None


@on_both
async def test_one_service_beats_for_all(transport: str, autojump_clock: MockClock) -> None:
    """However many connections: no task of its own for any, and each is lost at its own time."""
    async with open_memory_node() as node:
        clients = []
        for number in range(20):
            clients.append(await node.connected(transport, heartbeat=1 + number % 7))
            await node.sleep(0.25)
        ends = {}

        async def note(number: int, client: Client) -> None:
            await client.end()
            ends[number] = node.time_s()

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(clients):
                nursery.start_soon(note, number, client)
        assert ends == {number: number * 0.25 + 2 * (1 + number % 7) + 10 for number in range(20)}
        await node.let_go()
        node.assert_empty()


class TestExpiry:
    @on_both
    async def test_a_token_that_expires_ends_it_within_a_second(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.connected(transport, token=node.token("ada", expires_in_s=40))
            assert (await client.end()).code == 4001
            assert 40 <= node.time_s() <= 41

    async def test_one_given_in_the_handshake_too(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.websocket("json", query(token=node.token("ada", expires_in_s=40)))
            assert (await client.receive())["expires"] == 1_790_000_040
            assert (await client.end()).code == 4001
            assert 40 <= node.time_s() <= 41

    @on_both
    async def test_refreshed_it_goes_on(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.connected(transport, token=node.token("ada", expires_in_s=20))
            await node.sleep(19)
            reply = await client.ask("refresh", token=node.token("ada", expires_in_s=30))
            assert (reply["op"], reply["expires"]) == ("refreshed", 1_790_000_049)
            assert (await client.end()).code == 4001
            assert 49 <= node.time_s() <= 50

    @on_both
    async def test_a_shorter_token_ends_it_sooner_and_one_without_end_never(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.connected(transport, token=node.token("ada", expires_in_s=60))
            await client.ask("refresh", token=node.token("ada", expires_in_s=15))
            other = await node.connected(transport, token=node.token("ada", expires_in_s=15))
            assert "expires" not in await other.ask("refresh", token=node.token("ada"))
            assert (await client.end()).code == 4001
            assert 15 <= node.time_s() <= 16
            assert (await other.end()).code == 4008

    @on_both
    async def test_a_bad_token_is_401_and_the_old_one_goes_on_to_hold(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.connected(transport, token=node.token("ada", expires_in_s=20))
            assert (await client.ask("refresh", token="x"))["code"] == 401
            assert (await client.ask("refresh", token=node.token("bob")))["code"] == 403
            assert (await client.ask("history", topic="a:b"))["op"] == "history"
            await client.end()
            assert 20 <= node.time_s() <= 21

    @on_both
    async def test_fewer_rights_end_subscriptions(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.connected(transport, token=node.token("ada"))
            for topic in ("a:b", "a:c", "x:y"):
                await client.ask("subscribe", topic=topic)
            reply = await client.ask("refresh", token=node.token("ada", subscribe=["a:*"], publish=[]))
            assert reply["op"] == "refreshed"
            assert list(client.pushes) == [{"op": "unsubscribed", "topic": "x:y", "reason": "forbidden"}]
            client.pushes.clear()
            await node.hub.publish("x:y", 1)
            await node.hub.publish("a:b", 2)
            assert (await client.next_push())["data"] == 2
            assert (await client.ask("publish", topic="a:b", data=1))["code"] == 403
            assert node.hub.registry.topics.keys() == {"a:b", "a:c"}
