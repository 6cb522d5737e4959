"""Every number a node tells about itself, as data: the one place where metrics are declared.

On `/metrics` a counter stands as `notifyd_<name>_total`, a gauge or a histogram as `notifyd_<name>`. The values of
labels are fixed sets: never a user, a session, a topic or anything else that a client can choose. Every series is there
from the start, with 0: an alert can be written for what has not happened yet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from operator import add
from types import MappingProxyType
from typing import Literal, TypeAlias

from notifyd.settings import Overflow
from protocol.connecting import ConnectionState
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


@dataclass(frozen=True, slots=True)
class ProcessMetric:
    """A number of the process, by the name that all exporters for Prometheus give it."""

    help: str
    combine: Callable[[float, float], float] = add
    is_counter: bool = False


_TRANSPORTS = {"transport": ("websocket", "device")}

_FORMS = {**_TRANSPORTS, "encoding": ("json", "msgpack")}

_FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a tenth of a millisecond, which is an idle node's work, to what nobody should wait."""

_SLOW_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a local network to a satellite and a device that was half asleep."""

_REFUSALS = (
    "bad_request",
    "connection_limit",
    "crowd",
    "forbidden",
    "handshake_timeout",
    "head_too_large",
    "method_not_allowed",
    "not_found",
    "proxy_header",
    "unauthorized",
    "upgrade_required",
)

_TOKEN_REASONS = (
    "audience",
    "expired",
    "issuer",
    "malformed",
    "missing",
    "not_yet_valid",
    "revoked",
    "signature",
)

SERVICES = (
    "configuration",
    "control",
    "device",
    "fanout",
    "feed",
    "figures",
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
"""The kinds of services that the tree of supervision has; `other` is also for what runs in none."""

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
        "messages_delivered": Metric("Messages of topics put into the queue of a subscriber, those replayed left out."),
        "messages_received": Metric("Messages that clients sent: requests of every kind, no heartbeats.", _FORMS),
        "received_bytes": Metric("Bytes of the messages that clients sent: their payloads.", _FORMS),
        "messages_sent": Metric("Messages put into the queues of clients: of topics, replies and notices.", _FORMS),
        "sent_bytes": Metric("Bytes of the messages put into the queues of clients: their frames.", _FORMS),
        "overflows": Metric(
            "Connections whose queue was full, by what their topic's policy did.",
            {"policy": tuple(policy.value for policy in Overflow)},
        ),
        "duplicates_dropped": Metric("Messages that had arrived before, as a retry or a reconnect brings them."),
        "malformed_arrivals": Metric("Messages from the broker that nobody here understands."),
        "repairs": Metric("Topics whose messages were compared with the history and completed from it."),
        "gaps": Metric(
            "Gaps told to a client: offsets that it will not get.", {"reason": ("slow", "expired", "epoch")}
        ),
        "recoveries": Metric(
            "Subscriptions that asked for the past, by whether all of it was there.",
            {"outcome": ("complete", "incomplete")},
        ),
        "messages_replayed": Metric("Messages of the past put into the queue of a subscriber that catches up."),
        "resumes": Metric(
            "Sessions that a client asked to resume, by whether they were there.", {"outcome": ("resumed", "unknown")}
        ),
        "heartbeats_lost": Metric("Connections closed because nothing was heard of their client any more."),
        "service_restarts": Metric("Restarts of a service after a failure.", {"service": SERVICES}),
        "loop_held_seconds": Metric(
            "Time in which one step of a task held the event loop for longer than 0.05 s, by the service it runs in.",
            {"service": SERVICES},
        ),
        "token_refusals": Metric("Tokens that were not accepted.", {"reason": _TOKEN_REASONS}),
        "permission_refusals": Metric(
            "Requests of somebody who may not: topics that a token does not allow, HTTP without an API key.",
            {"operation": ("publish", "subscribe", "http")},
        ),
        "rate_limited": Metric("Requests and floods stopped by a token bucket.", {"kind": ("requests", "flood")}),
        "redis_connections_lost": Metric("Connections to Redis that ended."),
        "redis_reconnects": Metric("Connections to Redis that were made again after one had ended."),
        "spans_left_out": Metric(
            "Steps of sampled traces that were not kept, by what was too much.", {"reason": ("collector", "rate")}
        ),
        "spans_lost": Metric("Spans that the collector of traces did not take."),
        "log_lines": Metric("Lines written to the log.", {"level": ("debug", "info", "warning", "error")}),
        "log_lines_left_out": Metric("Repeated warnings, errors and lines about connections that the log left out."),
    }
)

GAUGES: Mapping[str, Metric] = MappingProxyType(
    {
        "connections": Metric("Connections open now, the handshake of whose transport is done.", _FORMS),
        "connections_opening": Metric("Connections in the handshake of their transport."),
        "queue_bytes": Metric("Bytes that wait for slow clients in the queues of all connections."),
        "topics": Metric("Topics with a subscriber on this node."),
        "sessions": Metric("Sessions of connected clients."),
        "tasks": Metric("Tasks that run in the node: a few, and two or three for each connection."),
        "broker_state": Metric(
            "1 for the state that the broker and all links to it are in, 0 for the others.",
            {"state": tuple(state.value for state in ConnectionState)},
        ),
        "draining": Metric("1 while the node lets its clients go and takes no new ones."),
        "loop_lag_max_seconds": Metric("The longest round of the event loop in the last 15 s.", combine="max"),
        "workers": Metric(
            "Processes of the node, by whether their figures could be had for this scrape.",
            {"state": ("answering", "silent")},
        ),
    }
)

HISTOGRAMS: Mapping[str, Metric] = MappingProxyType(
    {
        "delivery_latency_seconds": Metric(
            "From when a message was accepted until it was handed to the sockets of its subscribers, each counted.",
            bounds=_FAST_S,
        ),
        "fanout_seconds": Metric(
            "From when the first message of a batch was queued until all subscribers' sockets had been given it.",
            bounds=_FAST_S,
        ),
        "round_trip_seconds": Metric("Round trips of heartbeats from the node to a client.", _TRANSPORTS, _SLOW_S),
        "redis_command_seconds": Metric(
            "From when commands were queued until Redis answered: those written together count as the first of them.",
            bounds=_FAST_S,
        ),
        "loop_lag_seconds": Metric(
            "Rounds of the event loop: how long who becomes ready meanwhile has to wait.", bounds=_FAST_S
        ),
    }
)

PROCESS: Mapping[str, ProcessMetric] = MappingProxyType(
    {
        "process_cpu_seconds_total": ProcessMetric("CPU time, user and system.", is_counter=True),
        "process_resident_memory_bytes": ProcessMetric("Memory in use; what processes share counts for each."),
        "process_virtual_memory_bytes": ProcessMetric("Address space in use."),
        "process_open_fds": ProcessMetric("Open file descriptors: one a connection, and a few."),
        "process_max_fds": ProcessMetric("File descriptors that may be open."),
        "process_start_time_seconds": ProcessMetric("When it was started, in Unix time; the oldest worker.", min),
    }
)
