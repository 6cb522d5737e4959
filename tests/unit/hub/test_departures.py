"""Who is present, when sessions move and connections end at the wrong moment: nobody flickers, nobody stays behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.errors import BrokerUnavailable
from notifyd.model import SessionId
from protocol.errors import CloseCode
from tests.kit.clients import Client
from tests.kit.hub_kit import HubKit, open_hub
from tests.kit.memory_node import MemoryNode, open_memory_node, policy, settings, with_tokens_only

TOPICS = ("a:1", "a:2", "a:3")


async def present(kit: HubKit | MemoryNode) -> set[str]:
    """In which topics anybody is present."""
    return {topic for topic in TOPICS if await kit.hub.broker.presence(topic)}


class TestDetaching:
    async def test_cancelled_it_takes_the_session_out_of_every_topic(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            for topic in TOPICS:
                await ada.subscribe(topic)
            with trio.CancelScope() as scope:
                scope.cancel()
                await ada.leave()
            await wait_all_tasks_blocked()
            assert await present(hub_kit) == set()

    @pytest.mark.parametrize("slow", ["save_session", "leave"])
    async def test_cut_short_it_takes_the_session_out_of_every_topic(self, slow: str) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            for topic in TOPICS:
                await ada.subscribe(topic)
            hub_kit.broker.pause(slow)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ada.leave)
                    await hub_kit.broker.waiting(slow)
                    scope.cancel()
            assert await present(hub_kit) == set()


class TestASessionThatIsJustBeingSaved:
    """Its connection has ended, the broker has not answered yet, and its client is back already."""

    async def test_is_resumed_whole_on_the_same_node(self, autojump_clock: MockClock) -> None:
        async with watched() as (node, watcher, first):
            node.broker.pause("save_session")
            first.stream.end()
            await node.broker.waiting("save_session")
            second = await node.client("device")
            reply = await second.connect(session=first.session)
            node.broker.resume("save_session")
            assert (reply["resumed"], set(reply["topics"])) == (True, set(TOPICS))
            await node.sleep(1)
            assert await heard(watcher) == []
            assert len((await watcher.ask("presence", topic="a:1"))["members"]) == 2

    async def test_is_given_up_whole(self, autojump_clock: MockClock) -> None:
        async with watched() as (node, _, first):
            await node.hub.publish("a:1", 1)
            await first.ask("ack", topic="a:1", offset=1)
            node.broker.pause("save_session")
            first.stream.end()
            await node.broker.waiting("save_session")
            record = node.hub.take_over(SessionId(first.session))
            assert record is not None
            assert set(record.positions) == set(TOPICS)
            assert record.acknowledged == {"a:1"}


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[MemoryNode, Client, Client]]:
    """A node, a client that watches all topics, and one that is subscribed to them and will come back."""
    async with open_memory_node(settings(topics=(policy("**", joins=True),))) as node:
        watcher, first = await node.connected(), await node.connected("websocket")
        for topic in TOPICS:
            await watcher.ask("subscribe", topic=topic)
            await first.ask("subscribe", topic=topic)
        await watcher.ask("ping")
        watcher.pushes.clear()
        node.broker.is_far = True
        yield node, watcher, first


async def heard(watcher: Client) -> list[tuple[str, str]]:
    await watcher.ask("ping")
    told = [(push["op"], push["topic"]) for push in watcher.pushes]
    watcher.pushes.clear()
    return told


class TestTakingOverOnTheSameNode:
    async def test_is_not_seen(self, autojump_clock: MockClock) -> None:
        async with watched() as (node, watcher, first):
            second = await node.client("device")
            assert (await second.connect(session=first.session))["resumed"] is True
            assert (await first.end()).code == 4100
            await node.sleep(1)
            assert await heard(watcher) == []
            assert len((await watcher.ask("presence", topic="a:3"))["members"]) == 2

    async def test_that_fails_half_way_leaves_nobody_behind(self, autojump_clock: MockClock) -> None:
        async with watched() as (node, watcher, first):
            node.broker.pause("history")
            second = await node.client("device")
            connecting = {"op": "connect", "id": 1, "session": first.session}
            await second.send(connecting)
            await node.broker.waiting("history")
            await first.end()
            node.broker.fail("history", BrokerUnavailable("away"), times=None)
            node.broker.resume("history")
            assert (await second.end()).code == 1012
            await node.sleep(1)
            assert sorted(await heard(watcher)) == [("left", topic) for topic in TOPICS]

    async def test_without_the_right_to_a_topic_takes_the_session_out_of_it(self, autojump_clock: MockClock) -> None:
        node_settings = with_tokens_only(topics=(policy("**", joins=True, subscribe="token"),))
        async with open_memory_node(node_settings) as node:
            watcher = await node.connected(token_for="eve")
            first = await node.connected("websocket", token_for="ada")
            for topic in TOPICS:
                await watcher.ask("subscribe", topic=topic)
                await first.ask("subscribe", topic=topic)
            await heard(watcher)
            node.broker.is_far = True
            second = await node.client("device")
            token = node.token("ada", subscribe=["a:1"])
            assert set((await second.connect(session=first.session, token=token))["topics"]) == {"a:1"}
            await first.end()
            await node.sleep(1)
            assert sorted(await heard(watcher)) == [("left", "a:2"), ("left", "a:3")]


class TestASessionThatIsBeingRestored:
    async def test_is_given_up_with_what_was_acknowledged(self, autojump_clock: MockClock) -> None:
        async with watched() as (node, _, first):
            for topic in TOPICS:
                await node.hub.publish(topic, 1)
                await first.ask("ack", topic=topic, offset=1)
            second = await node.client("device")
            node.broker.pause("history")
            await second.send({"op": "connect", "id": 1, "session": first.session})
            await node.broker.waiting("history")
            record = node.hub.take_over(SessionId(first.session))
            assert record is not None
            assert record.acknowledged == set(TOPICS)
            assert {position.offset for position in record.positions.values() if position} == {1}
            node.broker.resume("history")


class TestASessionThatMayBeAnotherNodesByNow:
    async def test_the_broker_is_asked_whose_a_live_one_is(self) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            ada = hub_kit.subscriber("ada", "s")
            await ada.subscribe("a:1")
            record = await hub_kit.hub.resume("s", "ada")
            assert hub_kit.broker.called("load_session") == ["s"]
            assert record is not None
            assert set(record.positions) == {"a:1"}
            assert await hub_kit.hub.resume("s", "eve") is None
            assert hub_kit.broker.called("load_session") == ["s"]

    async def test_while_the_broker_is_away_it_is_taken_over_all_the_same(self) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            await hub_kit.subscriber("ada", "s").subscribe("a:1")
            hub_kit.broker.fail("load_session", BrokerUnavailable("away"), times=None)
            record = await hub_kit.hub.resume("s", "ada")
            assert record is not None
            assert set(record.positions) == {"a:1"}
            with pytest.raises(BrokerUnavailable):
                await hub_kit.hub.resume("t", "ada")

    async def test_all_are_saved_again_where_takeovers_may_have_been_missed(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            ada, bob = hub_kit.subscriber("ada", "s"), hub_kit.subscriber("bob", "t")
            await ada.subscribe("a:1")
            await bob.subscribe("a:1")
            await trio.sleep(1)
            hub_kit.broker.lost_sessions.add(SessionId("s"))
            hub_kit.hub.missed_takeovers()
            await trio.sleep(1)
            assert ada.ended == [CloseCode.REPLACED]
            assert bob.ended == []

    async def test_one_that_was_resumed_without_topics_learns_it_too(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            hub_kit.broker.lost_sessions.add(SessionId("s"))
            ada = hub_kit.subscriber("ada", "s")
            ada.subscriber.restoring = {}
            await hub_kit.hub.restored(ada.subscriber)
            await trio.sleep(1)
            assert ada.ended == [CloseCode.REPLACED]
