"""Every number a node tells about itself, as data: the one place where metrics are declared.

On `/metrics` a counter stands as `notifyd_<name>_total`, a gauge or a histogram as `notifyd_<name>`. The values of
labels are fixed sets: never a user, a session, a topic or anything else that a client can choose. Every series is there
from the start, with 0: an alert can be written for what has not happened yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from types import MappingProxyType
from typing import Literal, TypeAlias

from notifyd.settings import Overflow
from protocol.errors import CloseCode

Series: TypeAlias = tuple[str, ...]
"""The values of a metric's labels, in the order in which it declares them."""

PREFIX = "notifyd_"

OTHER = "other"
"""What stands for a label's value that is in no set, where a metric declares that there may be such."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number means, and its labels with all of their values.

    `bounds` are those of a histogram's buckets. `combine` says how the workers of a node make one number of theirs.
    """

    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()
    combine: Literal["sum", "max"] = "sum"

    def series(self) -> list[Series]:
        """List every series the metric has."""
        return list(product(*self.labels.values()))


_TRANSPORTS = {"transport": ("websocket", "device")}

_FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a tenth of a millisecond, which is an idle node's work, to what nobody should wait."""

_REFUSALS = (
    "bad_request",
    "connection_limit",
    "crowd",
    "forbidden",
    "handshake_timeout",
    "head_too_large",
    "method_not_allowed",
    "not_found",
    "unauthorized",
    "upgrade_required",
)

_SERVICES = (
    "control",
    "device",
    "fanout",
    "feed",
    "heartbeat",
    "http",
    "interest",
    "membership",
    "memory",
    "ordering",
    "redis",
    "sentinel",
    "sessions",
    "slots",
    "subscriber",
    "websocket",
    "worker",
    OTHER,
)

COUNTERS: Mapping[str, Metric] = MappingProxyType(
    {
        "connections_opened": Metric("Connections whose transport's handshake was done.", _TRANSPORTS),
        "connections_closed": Metric(
            "Connections ended, by the word for their close code.",
            {**_TRANSPORTS, "reason": tuple(code.reason for code in CloseCode)},
        ),
        "refusals": Metric("Connections refused before they were served.", {"reason": _REFUSALS}),
        "barrier_hits": Metric(
            "Unforeseen errors stopped at a connection's barrier: 0 in normal life.",
            {"place": ("connection", "http", "refusal")},
        ),
        "messages_published": Metric(
            "Messages accepted from clients and backends.", {"transport": ("websocket", "device", "http")}
        ),
        "messages_delivered": Metric("Messages put into the queue of a connection."),
        "overflows": Metric(
            "Connections whose queue was full, by what their topic's policy did.",
            {"policy": tuple(policy.value for policy in Overflow)},
        ),
        "duplicates_dropped": Metric("Messages that had arrived before, as a retry or a reconnect brings them."),
        "malformed_arrivals": Metric("Messages from the broker that nobody here understands."),
        "repairs": Metric("Topics whose messages were compared with the history and completed from it."),
        "gaps": Metric("Losses told to the subscribers of a topic, by reason.", {"reason": ("expired", "epoch")}),
        "heartbeats_lost": Metric("Connections closed because nothing was heard of their client any more."),
        "service_restarts": Metric("Restarts of a service after a failure.", {"service": _SERVICES}),
        "token_refusals": Metric("Tokens that were not accepted."),
        "rate_limited": Metric("Requests and floods stopped by a token bucket.", {"kind": ("requests", "flood")}),
        "log_lines_left_out": Metric("Repeated warnings and errors that the log left out."),
    }
)

GAUGES: Mapping[str, Metric] = MappingProxyType(
    {
        "connections": Metric("Connections open now."),
        "topics": Metric("Topics with a subscriber on this node."),
        "sessions": Metric("Sessions of connected clients."),
        "tasks": Metric("Tasks that run in the node: a few, and two or three for each connection."),
    }
)

HISTOGRAMS: Mapping[str, Metric] = MappingProxyType(
    {
        "delivery_latency_seconds": Metric(
            "From when a message was accepted until it was handed to the sockets of its subscribers, each counted.",
            bounds=_FAST_S,
        ),
    }
)
