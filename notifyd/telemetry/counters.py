"""Every number a node tells about itself, as data: the one place where metrics are declared.

On `/metrics` a counter stands as `notifyd_<name>_total`, a gauge as `notifyd_<name>`. The values of labels come from
fixed sets: never a user, a session, a topic or anything else that a client can choose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number means, and the names of its labels in their order."""

    help: str
    labels: tuple[str, ...] = ()


COUNTERS: Mapping[str, Metric] = MappingProxyType(
    {
        "connections_opened": Metric("Connections accepted, handshakes included.", ("transport",)),
        "connections_closed": Metric("Connections ended, by the word for their close code.", ("transport", "reason")),
        "refusals": Metric("Connections refused before they were served.", ("reason",)),
        "barrier_hits": Metric("Unforeseen errors stopped at a connection's barrier: 0 in normal life.", ("place",)),
        "messages_published": Metric("Messages accepted from clients and backends.", ("transport",)),
        "messages_delivered": Metric("Messages put into the queue of a connection."),
        "overflows": Metric("Connections whose queue was full, by what their topic's policy did.", ("policy",)),
        "duplicates_dropped": Metric("Messages that had arrived before, as a retry or a reconnect brings them."),
        "malformed_arrivals": Metric("Messages from the broker that nobody here understands."),
        "repairs": Metric("Topics whose messages were compared with the history and completed from it."),
        "gaps": Metric("Losses told to the subscribers of a topic, by reason.", ("reason",)),
        "heartbeats_lost": Metric("Connections closed because nothing was heard of their client any more."),
        "service_restarts": Metric("Restarts of a service after a failure.", ("service",)),
        "token_refusals": Metric("Tokens that were not accepted."),
        "rate_limited": Metric("Requests and floods stopped by a token bucket.", ("kind",)),
        "spans_left_out": Metric("Steps of sampled traces that were not kept, by what was too much.", ("reason",)),
        "spans_lost": Metric("Spans that the collector of traces did not take."),
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
