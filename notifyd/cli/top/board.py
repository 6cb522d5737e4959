"""What `notifyd top` knows: what each node said last, and since when a node says nothing any more. Times in seconds."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import trio

from notifyd.figures.messages import NodeReport, NodeTopics, TopicFigures
from protocol.connecting import ConnectionState
from protocol.data import check_data
from protocol.errors import RequestError

Said = TypeVar("Said")

SILENT_S = 3.0
"""Nodes speak every second: one that has not for so long is in trouble, or gone."""

FORGET_NODE_S = 60.0
"""For so long a silent node is shown: it should have been noticed by then."""

REMEMBERED = 60
"""Values of a curve."""


def read_said(data: Any, kind: type[Said]) -> Said | None:
    """Read what a node said; None where it is of another kind: a node of another version may be in the cluster."""
    try:
        check_data(data)
        return msgspec.convert(data, kind)
    except (RequestError, msgspec.ValidationError):
        return None


@dataclass(slots=True)
class NodeRow:
    """A node: what it said last and when, its topics, and its messages in and out over the last seconds."""

    figures: NodeReport
    heard_s: float
    topics: list[TopicFigures] = field(default_factory=list)
    incoming: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    outgoing: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def silent_s(self, now_s: float) -> float | None:
        """Return for how long it has said nothing; None while that is nothing to worry about."""
        quiet_s = now_s - self.heard_s
        return quiet_s if quiet_s > SILENT_S else None


class NodeBoard:
    """All nodes that one of them, at `url`, tells of. `heard` is set with the first figures."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.state = ConnectionState.CONNECTING
        self.problem: str | None = None
        self.connected = trio.Event()
        self.heard = trio.Event()
        self._rows: dict[str, NodeRow] = {}

    def take_state(self, state: ConnectionState, problem: str | None) -> None:
        """Note how the connection stands."""
        self.state, self.problem = state, problem
        if state is ConnectionState.CONNECTED:
            self.connected.set()

    def take_figures(self, figures: NodeReport, now_s: float) -> None:
        """Note what a node said about itself."""
        row = self._rows.get(figures.node)
        if row is None:
            row = self._rows[figures.node] = NodeRow(figures, now_s)
        row.figures, row.heard_s = figures, now_s
        row.incoming.append(figures.messages.incoming)
        row.outgoing.append(figures.messages.outgoing)
        self.heard.set()

    def take_topics(self, said: NodeTopics, now_s: float) -> None:  # noqa: ARG002 - figures tell that a node lives
        """Note a node's topics."""
        row = self._rows.get(said.node)
        if row is not None:
            row.topics = said.topics

    def rows(self, now_s: float) -> list[NodeRow]:
        """Return the nodes by name, without those that have been silent for long."""
        self._rows = {name: row for name, row in self._rows.items() if now_s - row.heard_s <= FORGET_NODE_S}
        return [row for _, row in sorted(self._rows.items())]

    def topics(self, now_s: float) -> list[TopicFigures]:
        """Return the topics of all nodes that speak, the busiest first, each as the sum over the nodes."""
        speaking = [row for row in self.rows(now_s) if row.silent_s(now_s) is None]
        merged = _merge(one for row in speaking for one in row.topics)
        return sorted(merged, key=lambda one: (-one.incoming - one.outgoing, -one.subscribers, one.topic))


def _merge(topics: Iterable[TopicFigures]) -> list[TopicFigures]:
    merged: dict[str, TopicFigures] = {}
    for one in topics:
        other = merged.get(one.topic)
        merged[one.topic] = one if other is None else _add(other, one)
    return list(merged.values())


def _add(one: TopicFigures, other: TopicFigures) -> TopicFigures:
    """Add up what two nodes say of a topic; the newer position is the topic's."""
    newer = other if (other.offset or 0) > (one.offset or 0) else one
    return msgspec.structs.replace(
        newer,
        subscribers=one.subscribers + other.subscribers,
        incoming=one.incoming + other.incoming,
        outgoing=one.outgoing + other.outgoing,
    )
