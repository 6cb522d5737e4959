"""The messages on `$sys:…` topics: who publishes and who shows them share these types.

Source: spec/system-topics.md.
"""

from typing import Literal, TypeAlias

from msgspec import Struct, field

from notifyd.listeners.http.backend import ConnectionInfo
from notifyd.supervision import TreeNode

NodeState: TypeAlias = Literal["serving", "degraded", "draining"]


class ByEncoding(Struct, frozen=True):
    """Open connections of one transport."""

    json: int
    msgpack: int


class Clients(Struct, frozen=True):
    """Open connections, by transport and encoding."""

    websocket: ByEncoding
    device: ByEncoding


class Flow(Struct, frozen=True):
    """What came in and went out, a second."""

    incoming: float = field(name="in")
    outgoing: float = field(name="out")


class Latency(Struct, frozen=True):
    """Milliseconds within which so many percent were delivered; None where nothing was."""

    p50: float | None
    p90: float | None
    p99: float | None


class BrokerFigures(Struct, frozen=True):
    """The broker as a node sees it. `round_trip_ms` is None where there is nobody to ask, or no answer."""

    kind: Literal["memory", "redis"]
    state: str
    round_trip_ms: float | None


class NodeReport(Struct, frozen=True, kw_only=True):
    """How a node is: `$sys:figures`. `started` and `time` are Unix time in ms; spec/system-topics.md has the rest."""

    node: str
    version: str
    started: int
    time: int
    state: NodeState
    problems: list[str]
    connections: Clients
    sessions: int
    topics: int
    subscriptions: int
    messages: Flow
    bytes: Flow
    latency_ms: Latency
    queue_bytes: int
    errors: dict[str, int]
    loop_lag_ms: float
    cpu_percent: float
    memory_bytes: int | None
    broker: BrokerFigures


class TopicFigures(Struct, frozen=True, omit_defaults=True):
    """One topic on a node. `history` is how many messages its policy keeps; the position is the newest known here."""

    topic: str
    subscribers: int
    incoming: float = field(name="in")
    outgoing: float = field(name="out")
    history: int
    epoch: str | None = None
    offset: int | None = None


class NodeTopics(Struct, frozen=True, kw_only=True):
    """The busiest topics of a node: `$sys:topics`."""

    node: str
    time: int
    topics: list[TopicFigures]
    more: bool


class WatchedConnection(ConnectionInfo, frozen=True, kw_only=True):
    """A connection as `GET /v1/connections` lists it, with the first of its topics, and how many it has."""

    subscriptions: int


class NodeConnections(Struct, frozen=True, kw_only=True):
    """The connections of a node whose queues are fullest: `$sys:connections`."""

    node: str
    time: int
    connections: list[WatchedConnection]
    more: bool


class NodeTree(Struct, frozen=True, kw_only=True):
    """The supervision tree of a node: `$sys:tree`."""

    node: str
    time: int
    tree: TreeNode
