"""What load is asked for: the scenario, how much of it, and at which node."""

import os
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec


class Scenario(StrEnum):
    """What the clients of a load do."""

    CONNECT = "connect"
    IDLE = "idle"
    FANOUT = "fanout"
    TOPICS = "topics"
    PUBLISH = "publish"
    HEARTBEATS = "heartbeats"
    RECOVERY = "recovery"


class Nature(NamedTuple):
    """What a scenario counts, and how much of everything it takes where nothing else is asked for."""

    unit: str
    connections: int
    publishers: int
    topics: int
    in_flight: int


NATURES = {
    Scenario.CONNECT: Nature("connects", connections=1000, publishers=0, topics=1, in_flight=64),
    Scenario.IDLE: Nature("heartbeats", connections=1000, publishers=0, topics=1, in_flight=64),
    Scenario.FANOUT: Nature("deliveries", connections=1000, publishers=2, topics=1, in_flight=32),
    Scenario.TOPICS: Nature("deliveries", connections=1000, publishers=4, topics=0, in_flight=32),
    Scenario.PUBLISH: Nature("replies", connections=200, publishers=0, topics=200, in_flight=1),
    Scenario.HEARTBEATS: Nature("heartbeats", connections=1000, publishers=0, topics=0, in_flight=1),
    Scenario.RECOVERY: Nature("connects", connections=1000, publishers=1, topics=1, in_flight=64),
}
"""`in_flight` is of a publisher; in a connect storm, of a load process."""

SUBSCRIBERS_A_TOPIC = 5
"""With many topics, where their number is not given."""

TransportName = Literal["websocket", "device"]
EncodingName = Literal["json", "msgpack"]
Cut = Literal["client", "server"]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A load as it is asked for. What is None takes the scenario's own measure (NATURES), or the machine's.

    Without `url` a node of its own is started, with `broker` and `settings` (dotted keys, TOML values), and spoken to
    over `transport`. `rate` is operations a second of all together: connects, publishes or heartbeats; None is as fast
    as they are accepted. `http` is where a node that is not ours answers `/metrics`, for which it may want an API key.
    """

    scenario: Scenario
    url: str | None = None
    transport: TransportName = "websocket"
    token: str | None = None
    encoding: EncodingName = "json"
    processes: int | None = None
    connections: int | None = None
    publishers: int | None = None
    topics: int | None = None
    in_flight: int | None = None
    rate: float | None = None
    seconds: float = 10.0
    warm_up_s: float = 0.5
    payload_bytes: int = 150
    heartbeat_s: float = 30.0
    missed: int = 10
    """Messages that are published on each topic while all are away: the recovery storm brings them back."""
    cut: Cut = "client"
    """Who cuts: the load resets all connections, or somebody ends the server, and starts it again."""
    http: str | None = None
    api_key: str | None = None
    broker: str | None = None
    settings: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def nature(self) -> Nature:
        """The scenario's nature, with what was asked for instead."""
        asked = {name: value for name in Nature._fields[1:] if (value := getattr(self, name)) is not None}
        nature = NATURES[self.scenario]._replace(**asked)
        if self.scenario is Scenario.TOPICS and not nature.topics:
            return nature._replace(topics=max(1, nature.connections // SUBSCRIBERS_A_TOPIC))
        return nature

    @property
    def process_count(self) -> int:
        """How many load processes: as asked, else one for each core but the server's."""
        return self.processes or max(1, len(os.sched_getaffinity(0)) - 1)
