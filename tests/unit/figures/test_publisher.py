"""What a node says about itself, in virtual time: how often, to whom, and what it does when it cannot."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from unittest.mock import AsyncMock, Mock

import msgspec
import pytest
import trio
from trio.testing import MockClock

from notifyd import __version__
from notifyd.errors import BrokerUnavailable
from notifyd.figures.messages import NodeConnections, NodeReport, NodeTopics, NodeTree
from notifyd.figures.publisher import MOST_CONNECTIONS, MOST_TOPICS_EACH, PATIENCE_S, FigurePublisher
from notifyd.figures.readings import ERRORS
from notifyd.hub.watches import CONNECTIONS_TOPIC, FIGURES_TOPIC, HOLD_S, ON_DEMAND, RENEW_S, TOPICS_TOPIC, TREE_TOPIC
from notifyd.listeners.http.hub_backend import HubBackend
from notifyd.settings import Settings
from notifyd.supervision import TreeNode
from notifyd.telemetry.catalogue import COUNTERS
from protocol.connecting import ConnectionState
from tests.kit.clients import Client
from tests.kit.memory_node import UNIX_S, MemoryNode, open_memory_node, policy, settings

TREE = TreeNode("node", ConnectionState.CONNECTED, 0, 0)
UNTIL_TICK_S = 0.1
"""Ticks are at whole seconds; tests look so long after them."""

T = TypeVar("T")


class Counted:
    """What `RecordedEvents` heard, as telemetry would tell it."""

    def __init__(self, node: MemoryNode) -> None:
        self._events = node.events

    def total(self, name: str, **labels: str) -> float:
        assert name in COUNTERS
        return self._events.counted(name, **labels)

    def quantiles(self, name: str, shares: Any) -> list[float | None]:
        assert name == "delivery_latency_seconds"
        return [0.0005 for _ in shares] if self._events.observed(name) else [None for _ in shares]


class SpokenNode:
    """A node with its publisher, and what it was made to be."""

    def __init__(self, node: MemoryNode) -> None:
        self.node = node
        self.problems: list[str] = []
        self.hangs = False
        self.draining = False
        self.publisher = FigurePublisher(
            node.context,
            Counted(node),
            tree=lambda: TREE,
            broker_state=lambda: ConnectionState.CONNECTED,
            problems=self._problems,
            is_draining=lambda: self.draining,
            loop_lag_s=lambda: 0.0025,
        )

    async def _problems(self) -> list[str]:
        if self.hangs:
            await trio.sleep_forever()
        return self.problems

    async def watcher(self, *topics: str) -> Client:
        """An operator who watches."""
        self.node.peer_host = "127.0.0.1"
        client = await self.node.websocket(Host="127.0.0.1:7500")
        assert (await client.connect())["op"] == "connected"
        for topic in topics:
            assert (await client.ask("subscribe", topic=topic))["op"] == "subscribed"
        return client

    def spoken(self) -> list[str]:
        """On which topics it spoke since the last time."""
        published = [topic for topic in self.node.broker.called("publish") if topic.startswith("$")]
        self.node.broker.calls.clear()
        return published


@asynccontextmanager
async def speaking(node_settings: Settings | None = None, *, shared: bool = False) -> AsyncIterator[SpokenNode]:
    async with open_memory_node(node_settings) as node, trio.open_nursery() as nursery:
        node.broker.is_shared = shared
        spoken = SpokenNode(node)
        await nursery.start(spoken.publisher.run)
        await trio.sleep(UNTIL_TICK_S)
        yield spoken
        nursery.cancel_scope.cancel()


async def hear(client: Client, topic: str, kind: Callable[..., T] | type[T]) -> T:
    """The next message on a topic."""
    while (push := await client.next_push()).get("topic") != topic:
        pass
    assert "epoch" not in push, "it keeps no history"
    return msgspec.convert(push["data"], kind)  # type: ignore[arg-type]


class TestFigures:
    async def test_they_come_once_a_second_and_tell_how_the_node_is(self, autojump_clock: MockClock) -> None:
        async with speaking() as spoken:
            watcher = await spoken.watcher(FIGURES_TOPIC, "a:b")
            device = await spoken.node.connected("device", "msgpack")
            await device.ask("subscribe", topic="a:b")
            for number in range(10):
                await device.ask("publish", topic="a:b", data=number)
            began_s = spoken.node.time_s()
            first = await hear(watcher, FIGURES_TOPIC, NodeReport)
            second = await hear(watcher, FIGURES_TOPIC, NodeReport)
            assert spoken.node.time_s() - began_s == pytest.approx(2 - UNTIL_TICK_S, abs=0.01)
            assert (second.time - first.time, first.started) == (1000, int(UNIX_S * 1000))
            assert (first.node, first.version, first.state, first.problems) == ("n1", __version__, "serving", [])
            assert first.connections.websocket.json == first.connections.device.msgpack == 1
            assert first.connections.websocket.msgpack == first.connections.device.json == 0
            assert (first.sessions, first.topics, first.subscriptions, first.queue_bytes) == (2, 2, 3, 0)
            assert (first.messages.incoming, first.messages.outgoing) == (10, 20)
            assert (second.messages.incoming, second.messages.outgoing) == (0, 1)
            assert (second.latency_ms.p50, second.latency_ms.p99) == (0.5, 0.5)
            assert first.errors == dict.fromkeys(ERRORS, 0)
            assert first.loop_lag_ms == 2.5
            assert (first.broker.kind, first.broker.state, first.broker.round_trip_ms) == ("memory", "connected", None)
            assert first.memory_bytes is None or first.memory_bytes > 10_000_000

    async def test_run_again_after_a_failure_it_tells_the_same_start(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            spoken = SpokenNode(node)
            watcher = await spoken.watcher(FIGURES_TOPIC)
            started = set()
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    await nursery.start(spoken.publisher.run)
                    started.add((await hear(watcher, FIGURES_TOPIC, NodeReport)).started)
                    nursery.cancel_scope.cancel()
            assert len(started) == 1

    async def test_errors_are_counted_since_the_start(self, autojump_clock: MockClock) -> None:
        async with speaking(settings(auth=settings().auth)) as spoken:
            watcher = await spoken.watcher(FIGURES_TOPIC)
            for _ in range(3):
                await (await spoken.node.device()).connect(token="no token")
            first = await hear(watcher, FIGURES_TOPIC, NodeReport)
            assert first.errors["token_refusals"] == 3
            assert (await hear(watcher, FIGURES_TOPIC, NodeReport)).errors == first.errors

    async def test_the_state_says_what_is_wrong(self, autojump_clock: MockClock) -> None:
        async with speaking() as spoken:
            watcher = await spoken.watcher(FIGURES_TOPIC)

            async def state() -> tuple[str, list[str]]:
                figures = await hear(watcher, FIGURES_TOPIC, NodeReport)
                return figures.state, figures.problems

            assert await state() == ("serving", [])
            spoken.problems = ["the broker is away"]
            assert await state() == ("degraded", ["the broker is away"])
            spoken.hangs = True
            assert await state() == ("degraded", [f"the broker has not answered for {PATIENCE_S:g} s"])
            spoken.hangs = False
            spoken.draining, spoken.problems = True, ["the node is draining"]
            assert await state() == ("draining", ["the node is draining"])

    async def test_through_a_shared_broker_the_round_trip_is_told(self, autojump_clock: MockClock) -> None:
        async with speaking(shared=True) as spoken:
            watcher = await spoken.watcher(FIGURES_TOPIC)
            assert (await hear(watcher, FIGURES_TOPIC, NodeReport)).broker.round_trip_ms is None
            spoken.node.broker.pause("publish")
            await spoken.node.broker.waiting("publish")
            await trio.sleep(0.25)
            spoken.node.broker.resume("publish")
            await hear(watcher, FIGURES_TOPIC, NodeReport)
            figures = await hear(watcher, FIGURES_TOPIC, NodeReport)
            assert figures.broker.kind == "redis"
            assert figures.broker.round_trip_ms == pytest.approx(250, abs=5)

    async def test_a_broker_that_is_away_is_no_reason_to_fail_or_to_log(self, autojump_clock: MockClock) -> None:
        async with speaking(shared=True) as spoken:
            watcher = await spoken.watcher(FIGURES_TOPIC, *ON_DEMAND)
            await trio.sleep(3)
            lines = len(spoken.node.events.lines)
            spoken.node.broker.fail("publish", BrokerUnavailable("away"), times=None)
            spoken.node.broker.fail("tell_watched", BrokerUnavailable("away"), times=None)
            await trio.sleep(60)
            assert len(spoken.node.events.lines) == lines
            spoken.node.broker.heal("publish", "tell_watched")
            watcher.pushes.clear()
            spoken.spoken()
            await trio.sleep(1)
            assert set(spoken.spoken()) == {FIGURES_TOPIC, *ON_DEMAND}

    async def test_what_comes_too_late_for_its_turn_is_left_out(self, autojump_clock: MockClock) -> None:
        async with speaking() as spoken:
            await trio.sleep(1)
            spoken.node.broker.pause("publish")
            await trio.sleep(10.5)
            spoken.spoken()
            spoken.node.broker.resume("publish")
            await trio.sleep(2.4)
            assert spoken.spoken() == [FIGURES_TOPIC] * 3, "the one that waited is followed at once by one more"

    async def test_a_topic_policy_does_not_keep_them(self, autojump_clock: MockClock) -> None:
        everything = policy("**", history=1000, joins=True)
        async with speaking(settings(topics=(everything,))) as spoken:
            watcher = await spoken.watcher(FIGURES_TOPIC)
            await hear(watcher, FIGURES_TOPIC, NodeReport)
            page = await watcher.ask("history", topic=FIGURES_TOPIC)
            assert (page["messages"], page["more"]) == ([], False)
            assert (await watcher.ask("presence", topic=FIGURES_TOPIC))["members"] == []

    async def test_they_are_no_topics_of_the_http_side(self, autojump_clock: MockClock) -> None:
        async with speaking() as spoken:
            await spoken.watcher("a:b", *ON_DEMAND, FIGURES_TOPIC)
            backend: Any = HubBackend(
                spoken.node.context, Mock(), tree=lambda: TREE, metrics=AsyncMock(), problems=spoken._problems
            )
            listed, more = await backend.topics(None, 2)
            assert ([topic.topic for topic in listed], more) == (["a:b"], False)


class TestOnDemand:
    async def test_nobody_watches_nothing_else_is_said(self, autojump_clock: MockClock) -> None:
        async with speaking(shared=True) as spoken:
            await spoken.watcher(FIGURES_TOPIC)
            await trio.sleep(5)
            assert set(spoken.spoken()) == {FIGURES_TOPIC}
            assert not spoken.node.hub.topic_counts.is_counted
            assert spoken.node.broker.called("tell_watched") == []

    @pytest.mark.parametrize("topic", ON_DEMAND)
    async def test_while_somebody_does(self, topic: str, autojump_clock: MockClock) -> None:
        async with speaking() as spoken:
            watcher = await spoken.watcher(topic)
            await trio.sleep(3)
            assert spoken.spoken() == [FIGURES_TOPIC, topic] * 3
            await watcher.ask("unsubscribe", topic=topic)
            await trio.sleep(3)
            assert spoken.spoken() == [FIGURES_TOPIC] * 3
            assert not spoken.node.hub.topic_counts.is_counted
            assert spoken.node.broker.called("tell_watched") == []

    async def test_other_nodes_are_told_again_and_again_while_somebody_watches(self, autojump_clock: MockClock) -> None:
        async with speaking(shared=True) as spoken:
            broker = spoken.node.broker
            watcher = await spoken.watcher(TREE_TOPIC)
            await trio.sleep(1)
            assert broker.called("tell_watched") == [{TREE_TOPIC}]
            await watcher.ask("subscribe", topic=TOPICS_TOPIC)
            await trio.sleep(1)
            assert broker.called("tell_watched") == [{TREE_TOPIC}, {TREE_TOPIC, TOPICS_TOPIC}]
            await trio.sleep(10 * RENEW_S)
            assert 8 <= len(broker.called("tell_watched")) - 2 <= 11
            watcher.stream.close()
            await trio.sleep(2)
            told = len(broker.called("tell_watched"))
            await trio.sleep(10)
            assert len(broker.called("tell_watched")) == told

    async def test_a_node_that_is_told_believes_it_for_a_while(self, autojump_clock: MockClock) -> None:
        async with speaking(shared=True) as spoken:
            spoken.node.hub.watched_elsewhere([CONNECTIONS_TOPIC, FIGURES_TOPIC, "a:b"])
            await trio.sleep(2 * HOLD_S)
            said = spoken.spoken()
            assert said.count(CONNECTIONS_TOPIC) == HOLD_S
            assert set(said) == {FIGURES_TOPIC, CONNECTIONS_TOPIC}
            assert spoken.node.broker.called("tell_watched") == [], "only who has a watcher of its own tells"


class TestWhatIsSaid:
    async def test_topics_with_their_rates(self, autojump_clock: MockClock) -> None:
        policies = (policy("plain:**", history=0), policy("**", history=7))
        async with speaking(settings(topics=policies)) as spoken:
            await spoken.node.hub.publish("before:1", 1)
            watcher = await spoken.watcher(TOPICS_TOPIC)
            first = await hear(watcher, TOPICS_TOPIC, NodeTopics)
            assert [(one.topic, one.subscribers, one.history, one.offset) for one in first.topics] == [
                ("before:1", 0, 7, 1)
            ]
            device = await spoken.node.connected("device")
            await device.ask("subscribe", topic="plain:a")
            for _ in range(4):
                await device.ask("publish", topic="plain:a", data=1)
            await device.ask("publish", topic="unheard:1", data=1)
            second = await hear(watcher, TOPICS_TOPIC, NodeTopics)
            assert not second.more
            told = {one.topic: one for one in second.topics}
            assert list(told) == ["plain:a", "unheard:1", "before:1"]
            plain, unheard = told["plain:a"], told["unheard:1"]
            assert (plain.incoming, plain.outgoing, plain.subscribers, plain.history) == (4, 4, 1, 0)
            assert (plain.epoch, plain.offset) == (None, None)
            assert (unheard.incoming, unheard.outgoing, unheard.offset) == (1, 0, 1)
            third = await hear(watcher, TOPICS_TOPIC, NodeTopics)
            assert {(one.incoming, one.outgoing) for one in third.topics} == {(0, 0)}

    async def test_connections_with_the_fullest_queues_first(self, autojump_clock: MockClock) -> None:
        async with speaking() as spoken:
            watcher = await spoken.watcher(CONNECTIONS_TOPIC)
            for _ in range(MOST_CONNECTIONS):
                await spoken.node.connected("device")
            slow = await spoken.node.connected("device", capacity_bytes=10)
            for number in range(MOST_TOPICS_EACH + 5):
                await slow.ask("subscribe", topic=f"a:{number:02}")
            for _ in range(10):
                await spoken.node.hub.publish("a:00", "x" * 100)
            said = await hear(watcher, CONNECTIONS_TOPIC, NodeConnections)
            assert said.more
            assert len(said.connections) == MOST_CONNECTIONS
            fullest = said.connections[0]
            assert fullest.session == slow.session
            assert fullest.queue_bytes > 1000
            assert fullest.topics == [f"a:{number:02}" for number in range(MOST_TOPICS_EACH)]
            assert fullest.subscriptions == MOST_TOPICS_EACH + 5

    async def test_the_tree(self, autojump_clock: MockClock) -> None:
        async with speaking() as spoken:
            watcher = await spoken.watcher(TREE_TOPIC)
            said = await hear(watcher, TREE_TOPIC, NodeTree)
            assert (said.node, said.tree) == ("n1", TREE)
