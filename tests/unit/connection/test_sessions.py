"""Sessions across connections: what is restored, from where it goes on, who may have it."""

import pytest
from trio.testing import MockClock

from notifyd.settings import SessionSettings
from tests.kit.clients import Client
from tests.kit.memory_node import ENCODINGS, TRANSPORTS, MemoryNode, open_memory_node, policy, settings

on_both = pytest.mark.parametrize("transport", TRANSPORTS)


async def publish(node: MemoryNode, count: int, topic: str = "a:b") -> None:
    for _ in range(count):
        await node.hub.publish(topic, None)
    await node.sleep(0)


async def messages(client: Client, count: int) -> list[object]:
    """Read `count` pushes: offsets, and gaps as pairs."""
    found = [await client.next_push() for _ in range(count)]
    return [(one["from"], one["to"], one["reason"]) if one["op"] == "gap" else one["offset"] for one in found]


def offsets(client: Client) -> list[int]:
    return [push["offset"] for push in client.pushes if push["op"] == "message"]


async def left(node: MemoryNode, client: Client) -> None:
    """Let a client end its connection, having read everything."""
    client.stream.end()
    await client.end()
    await node.sleep(0)


@on_both
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_what_was_missed_comes_after_connected(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    topics = (policy("plain:*", history=0), policy("**"))
    async with open_memory_node(settings(topics=topics)) as node:
        first = await node.connected(transport, encoding)
        for topic in ("a:b", "plain:x"):
            await first.ask("subscribe", topic=topic)
        await publish(node, 2)
        await left(node, first)
        await publish(node, 3)
        await publish(node, 1, "plain:x")
        second = await node.client("websocket" if transport == "device" else "device", encoding)
        reply = await second.connect(session=first.session)
        assert (reply["resumed"], reply["session"]) == (True, first.session)
        assert reply["topics"] == {
            "a:b": {"epoch": reply["topics"]["a:b"]["epoch"], "offset": 5, "recovered": True},
            "plain:x": {},
        }
        assert await messages(second, 3) == [3, 4, 5]
        await publish(node, 1)
        await publish(node, 1, "plain:x")
        assert await messages(second, 1) == [6]
        assert (await second.next_push())["topic"] == "plain:x"
        assert not second.pushes


@on_both
async def test_from_the_last_acknowledged_then_the_positions_given(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport)
        epoch = (await client.ask("subscribe", topic="a:b"))["epoch"]
        await publish(node, 5)
        await client.ask("ack", topic="a:b", offset=2)
        await left(node, client)
        second = await node.connected(transport, session=client.session)
        assert await messages(second, 3) == [3, 4, 5]
        await left(node, second)
        third = await node.connected(transport, session=client.session)
        assert await messages(third, 3) == [3, 4, 5], "what was acknowledged holds until more is"
        await third.ask("ack", topic="a:b", offset=4)
        await left(node, third)
        positions = {"a:b": {"epoch": epoch, "offset": 3}, "other:x": {"epoch": epoch, "offset": 0}}
        fourth = await node.client(transport)
        reply = await fourth.connect(session=client.session, positions=positions)
        assert reply["topics"].keys() == {"a:b"}
        assert await messages(fourth, 2) == [4, 5]
        await left(node, fourth)
        fifth = await node.connected(transport, session=client.session)
        assert await messages(fifth, 1) == [5]


@on_both
async def test_a_client_that_acknowledges_nothing_goes_on_after_what_was_sent(
    transport: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport)
        await client.ask("subscribe", topic="a:b")
        session = client.session
        for number in range(3):
            await publish(node, 2)
            await left(node, client)
            await publish(node, 1)
            client = await node.connected(transport, session=session)
            assert await messages(client, 1) == [3 * number + 3]


@on_both
async def test_what_still_waited_when_the_connection_broke_comes_again(
    transport: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport, capacity_bytes=600)
        await client.ask("subscribe", topic="a:b")
        await publish(node, 50)
        client.stream.reset()
        await node.sleep(0)
        await publish(node, 5)
        second = await node.connected(transport, session=client.session)
        assert await messages(second, 55) == [*range(1, 56)]


@on_both
async def test_a_slow_client_that_was_cut_off_misses_nothing(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport, capacity_bytes=600)
        await client.ask("subscribe", topic="a:b")
        await publish(node, 50)
        await node.sleep(10.5)
        assert (await client.end()).code == 4009
        read = offsets(client)
        assert read == [*range(1, len(read) + 1)]
        await publish(node, 1)
        second = await node.connected(transport, session=client.session)
        again = await messages(second, 1)
        assert again[0] <= len(read) + 1
        again += await messages(second, 51 - again[0])
        assert again == [*range(again[0], 52)]


@on_both
async def test_another_users_session_is_not_given_away(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        ada = await node.connected(transport, token_for="ada")
        await ada.ask("subscribe", topic="a:b")
        for _ in range(2):
            bob = await node.connected(transport, token_for="bob", session=ada.session)
            assert bob.session != ada.session
            assert not bob.pushes
            if not ada.ended:
                assert (await ada.ask("ping"))["op"] == "pong", "it is not even disturbed"
                await left(node, ada)
        again = await node.client(transport)
        reply = await again.connect(session=ada.session, token=node.token("ada"))
        assert reply["resumed"] is True


@on_both
@pytest.mark.parametrize("session", ["", "unknown", "x" * 300, "ü"])
async def test_an_unknown_session_gives_a_new_one(transport: str, session: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.client(transport)
        reply = await client.connect(session=session, positions={"a:b": {"epoch": "e", "offset": 1}})
        assert reply["resumed"] is False
        assert reply["session"] != session
        assert "topics" not in reply


@on_both
async def test_a_live_session_is_taken_over_and_nothing_is_lost(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        first = await node.connected(transport, capacity_bytes=500)
        await first.ask("subscribe", topic="a:b")
        await publish(node, 20)
        second = await node.client(transport)
        reply = await second.connect(session=first.session)
        assert reply["resumed"] is True
        await publish(node, 5)
        assert (await first.end()).code == 4100
        read = offsets(first)
        assert read == [*range(1, len(read) + 1)]
        again = await messages(second, 1)
        assert again[0] <= len(read) + 1
        again += await messages(second, 25 - again[0])
        assert again == [*range(again[0], 26)]
        assert [one["session"] for one in (await second.ask("presence", topic="a:b"))["members"]] == [first.session]
        assert not node.hub.interest._idle
        await left(node, second)
        await node.let_go()
        node.assert_empty()


@on_both
async def test_many_taking_it_over_leave_one(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        clients = [await node.connected(transport)]
        session = clients[0].session
        await clients[0].ask("subscribe", topic="a:b")
        others = [await node.client(transport) for _ in range(5)]
        for client in others:
            await client.send({"op": "connect", "id": 1, "session": session})
        await node.sleep(0)
        assert len(node.connections) == 1
        assert len(node.hub.registry.subscribers) == 1
        for client in [*clients, *others]:
            client.stream.end()
        codes = [(await client.end()).code for client in [*clients, *others]]
        assert sorted(codes, key=str) == [4100] * 5 + [None]


@on_both
async def test_a_session_lasts_as_long_as_configured(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(settings(sessions=SessionSettings(ttl_s=20))) as node:
        client = await node.connected(transport)
        await client.ask("subscribe", topic="a:b")
        await left(node, client)
        await node.sleep(19.9)
        second = await node.client(transport)
        assert (await second.connect(session=client.session))["resumed"] is True
        await left(node, second)
        await node.sleep(20)
        third = await node.client(transport)
        assert (await third.connect(session=client.session))["resumed"] is False


@on_both
async def test_what_is_gone_is_told_as_a_gap(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(settings(topics=(policy("a:*", history=3),))) as node:
        client = await node.connected(transport)
        for topic in ("a:b", "a:c", "a:d"):
            await client.ask("subscribe", topic=topic)
        await publish(node, 1)
        await publish(node, 1, "a:c")
        await left(node, client)
        await publish(node, 10)
        node.broker._broker._histories.end_epoch("a:c")
        await publish(node, 2, "a:c")
        second = await node.client(transport)
        reply = await second.connect(session=client.session)
        assert {name: topic["recovered"] for name, topic in reply["topics"].items()} == {
            "a:b": False,
            "a:c": False,
            "a:d": True,
        }
        assert await messages(second, 2) == [(2, 11, "expired"), (1, 2, "epoch")]
        await publish(node, 1)
        assert await messages(second, 1) == [12]


@on_both
async def test_a_topic_the_client_may_no_longer_have_is_left_out(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(settings(topics=(policy("**", subscribe="token"),))) as node:
        client = await node.connected(transport, token_for="ada")
        for topic in ("a:b", "c:d"):
            await client.ask("subscribe", topic=topic)
        await left(node, client)
        second = await node.client(transport)
        reply = await second.connect(session=client.session, token=node.token("ada", subscribe=["a:*"]))
        assert reply["topics"].keys() == {"a:b"}
        await left(node, second)
        third = await node.client(transport)
        assert (await third.connect(session=client.session, token=node.token("ada")))["topics"].keys() == {"a:b"}


@on_both
async def test_joined_and_left_are_pushed_to_the_others(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(settings(topics=(policy("**", joins=True),))) as node:
        watcher = await node.connected(transport)
        await watcher.ask("subscribe", topic="a:b")
        ada = await node.connected("device", token_for="ada")
        await ada.ask("subscribe", topic="a:b")
        assert await watcher.next_push() == {"op": "joined", "topic": "a:b", "user": "ada", "session": ada.session}
        await ada.ask("unsubscribe", topic="a:b")
        assert (await watcher.next_push())["op"] == "left"
        await ada.ask("subscribe", topic="a:b")
        assert (await watcher.next_push())["op"] == "joined"
        ada.stream.reset()
        assert await watcher.next_push() == {"op": "left", "topic": "a:b", "user": "ada", "session": ada.session}
        members = (await watcher.ask("presence", topic="a:b"))["members"]
        assert [member["session"] for member in members] == [watcher.session]
        assert not ada.pushes
