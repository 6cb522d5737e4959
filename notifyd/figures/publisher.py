"""Once a second a node says how it is, on topics of its own; what costs more it says only while somebody watches.

It goes the way of every message: through the broker, so that one subscription, on any node, hears all nodes. While the
broker is away this node's own clients hear it. Source: spec/system-topics.md.
"""

from collections.abc import Awaitable, Callable
from heapq import nlargest

import msgspec
import trio

from notifyd.connection.context import Context
from notifyd.errors import BrokerUnavailable
from notifyd.figures.messages import NodeConnections, NodeReport, NodeState, NodeTopics, NodeTree, WatchedConnection
from notifyd.figures.readings import Condition, Counts, Readings
from notifyd.figures.topics import BusiestTopics
from notifyd.hub.watches import CONNECTIONS_TOPIC, FIGURES_TOPIC, TOPICS_TOPIC, TREE_TOPIC
from notifyd.listeners.http.hub_backend import describe_connection
from notifyd.supervision import TreeNode
from protocol.connecting import ConnectionState

SPEAK_S = 1.0

PATIENCE_S = 0.5
"""A node that cannot tell for so long what its problems are has one."""

MOST_CONNECTIONS = 200
MOST_TOPICS_EACH = 10
"""Connections that are listed, and of each how many topics: half a megabyte at the very most."""


class FigurePublisher:
    """Publishes what a node says about itself. `run` is a service.

    `counts` is what the node counted, `tree` takes a picture of its supervision tree, `broker_state` is that of the
    broker's part of it, `problems` asks what keeps it from serving, `is_draining` says whether it lets its clients go,
    and `loop_lag_s` how long a round of the event loop took lately.
    """

    def __init__(
        self,
        context: Context,
        counts: Counts,
        *,
        tree: Callable[[], TreeNode],
        broker_state: Callable[[], ConnectionState],
        problems: Callable[[], Awaitable[list[str]]],
        is_draining: Callable[[], bool],
        loop_lag_s: Callable[[], float],
    ) -> None:
        self._context = context
        self._hub = context.hub
        self._readings = Readings(context, counts, broker_state)
        self._tree = tree
        self._problems = problems
        self._is_draining = is_draining
        self._loop_lag_s = loop_lag_s
        self._topics = BusiestTopics(context.hub.registry, self._history_of)
        self._counted_s = 0.0
        self._round_trip_s: float | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish every `SPEAK_S`, until cancelled; what comes too late for its turn is left out."""
        task_status.started()
        due_s = trio.current_time()
        while True:
            due_s = max(due_s + SPEAK_S, trio.current_time())
            await trio.sleep_until(due_s)
            await self._publish_figures(self._readings.read(await self._condition()))
            await self._tell_watched()
            await self._publish_watched()

    def _history_of(self, topic: str) -> int:
        return self._context.settings.policy_for(topic).history

    async def _condition(self) -> Condition:
        problems = [f"the broker has not answered for {PATIENCE_S:g} s"]
        with trio.move_on_after(PATIENCE_S):
            problems = await self._problems()
        state: NodeState = "draining" if self._is_draining() else "degraded" if problems else "serving"
        return Condition(state, problems, self._loop_lag_s(), self._round_trip_s)

    async def _publish_figures(self, figures: NodeReport) -> None:
        """Publish them; how long that takes through a shared broker is its round trip."""
        began_s = trio.current_time()
        went_through = await self._publish(FIGURES_TOPIC, figures)
        is_known = went_through and self._hub.broker.is_shared
        self._round_trip_s = trio.current_time() - began_s if is_known else None

    async def _tell_watched(self) -> None:
        topics = self._hub.watches.to_tell() if self._hub.broker.is_shared else ()
        if topics:
            try:
                await self._hub.broker.tell_watched(topics)
            except BrokerUnavailable:
                return  # it is told again; meanwhile nothing would come from other nodes anyway

    async def _publish_watched(self) -> None:
        """Say what somebody wants to know."""
        watched = self._hub.watches.watched()
        await self._count_traffic(TOPICS_TOPIC in watched)
        node, time_ms = self._context.settings.node.name, self._context.clock.unix_ms()
        if TOPICS_TOPIC in watched:
            now_s = trio.current_time()
            topics, more = self._topics.choose(self._hub.topic_counts.take(), max(now_s - self._counted_s, 1e-3))
            self._counted_s = now_s
            await self._publish(TOPICS_TOPIC, NodeTopics(node=node, time=time_ms, topics=topics, more=more))
        if CONNECTIONS_TOPIC in watched:
            listed, more = self._connections()
            answer = NodeConnections(node=node, time=time_ms, connections=listed, more=more)
            await self._publish(CONNECTIONS_TOPIC, answer)
        if TREE_TOPIC in watched:
            await self._publish(TREE_TOPIC, NodeTree(node=node, time=time_ms, tree=self._tree()))

    async def _count_traffic(self, is_counted: bool) -> None:
        """Begin or cease to count messages by topic. The embedded broker tells at no cost which topics there are."""
        traffic = self._hub.topic_counts
        if is_counted and not traffic.is_counted:
            self._topics.begin({} if self._hub.broker.is_shared else await self._hub.broker.topics())
            self._counted_s = trio.current_time()
        if not is_counted:
            traffic.take()
        traffic.is_counted = is_counted

    def _connections(self) -> tuple[list[WatchedConnection], bool]:
        connected = [one for one in self._context.connections if one.subscriber is not None]
        fullest = nlargest(MOST_CONNECTIONS, connected, key=lambda one: one.outbox.queued_bytes)
        listed = []
        for one in fullest:
            described = msgspec.structs.asdict(describe_connection(one))
            topics: list[str] = described.pop("topics")
            listed.append(WatchedConnection(**described, topics=topics[:MOST_TOPICS_EACH], subscriptions=len(topics)))
        return listed, len(connected) > len(fullest)

    async def _publish(self, topic: str, message: msgspec.Struct) -> bool:
        """Publish, and tell whether it went through the broker and not just to this node's clients."""
        try:
            accepted = await self._hub.publish(topic, msgspec.to_builtins(message))
        except BrokerUnavailable:
            return False
        return accepted.scope is None
