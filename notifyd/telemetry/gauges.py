"""What of a node's state is shown as numbers, asked for whenever somebody reads them."""

from collections.abc import Callable

import trio

from notifyd.connection.context import Context
from notifyd.hub.traffic import by_labels, labels_of
from notifyd.telemetry.catalogue import Series
from notifyd.telemetry.loop_lag import LoopLag
from notifyd.telemetry.telemetry import Telemetry
from protocol.connecting import ConnectionState


def show_state(
    telemetry: Telemetry,
    context: Context,
    lag: LoopLag,
    *,
    broker_state: Callable[[], ConnectionState],
    is_draining: Callable[[], bool],
) -> None:
    """Let telemetry ask a node for its state, and for what it counts by itself."""
    hub, traffic = context.hub, context.hub.traffic
    telemetry.show("connections", lambda: _connections_by_form(context))
    telemetry.show("connections_opening", lambda: sum(not connection.is_open for connection in context.connections))
    telemetry.show("queue_bytes", lambda: _queued_bytes(context))
    telemetry.show("topics", lambda: len(hub.registry.topics))
    telemetry.show("sessions", lambda: len(hub.registry.subscribers))
    telemetry.show("tasks", lambda: trio.lowlevel.current_statistics().tasks_living)
    telemetry.show("broker_state", lambda: {(broker_state().value,): 1})
    telemetry.show("draining", lambda: int(is_draining()))
    telemetry.show("loop_lag_max_seconds", lambda: lag.worst_s)
    telemetry.show("loop_held_seconds", lambda: lag.held_s)
    telemetry.show("messages_received", lambda: by_labels(traffic.messages_in))
    telemetry.show("received_bytes", lambda: by_labels(traffic.bytes_in))
    telemetry.show("messages_sent", lambda: by_labels(traffic.messages_out))
    telemetry.show("sent_bytes", lambda: by_labels(traffic.bytes_out))


def _connections_by_form(context: Context) -> dict[Series, float]:
    counts: dict[Series, float] = {}
    for connection in context.connections:
        if connection.is_open:
            series = labels_of(connection.outbox.form)
            counts[series] = counts.get(series, 0) + 1
    return counts


def _queued_bytes(context: Context) -> int:
    return sum(connection.outbox.queued_bytes for connection in context.connections if connection.is_open)
