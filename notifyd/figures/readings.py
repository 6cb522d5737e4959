"""Reading off a node how it is: counters become rates, thousands of connections become a few numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from notifyd import __version__
from notifyd.connection.context import Context
from notifyd.figures.messages import BrokerFigures, ByEncoding, Clients, Flow, Latency, NodeReport, NodeState
from notifyd.figures.process import CpuMeter, resident_bytes
from protocol.connecting import ConnectionState
from protocol.framing import Form

ERRORS = (
    "barrier_hits",
    "gaps",
    "heartbeats_lost",
    "malformed_arrivals",
    "overflows",
    "permission_refusals",
    "rate_limited",
    "redis_connections_lost",
    "refusals",
    "service_restarts",
    "token_refusals",
)
"""The counters that tell of something that went wrong, here or at a client."""

RATES = ("messages_published", "messages_delivered", "received_bytes", "sent_bytes")
"""The counters that are told as so much a second."""

SHARES = (0.5, 0.9, 0.99)


class Counts(Protocol):
    """What a node counted; `notifyd.telemetry.Telemetry` has it."""

    def total(self, name: str, **labels: str) -> float:
        """Return a counter's or a gauge's value."""

    def quantiles(self, name: str, shares: Sequence[float]) -> list[float | None]:
        """Tell the quantiles of what a histogram got in the last seconds."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a node was found to be; `lag_s` is of its event loop, `round_trip_s` to the broker and back."""

    state: NodeState
    problems: list[str]
    lag_s: float
    round_trip_s: float | None


class Readings:
    """Reads the figures of one node. Rates are those of the time since the last reading, at first since it was made."""

    def __init__(self, context: Context, counts: Counts, broker_state: Callable[[], ConnectionState]) -> None:
        self._context = context
        self._counts = counts
        self._broker_state = broker_state
        self._started_ms = context.clock.unix_ms()
        self._cpu = CpuMeter()
        self._read_s = context.clock.monotonic_s()
        self._last: Mapping[str, float] = dict.fromkeys(RATES, 0.0)

    def read(self, condition: Condition) -> NodeReport:
        """Read everything now."""
        context, registry = self._context, self._context.hub.registry
        rates = self._rates()
        clients, subscriptions, queue_bytes = self._count_clients()
        return NodeReport(
            node=context.settings.node.name,
            version=__version__,
            started=self._started_ms,
            time=context.clock.unix_ms(),
            state=condition.state,
            problems=condition.problems,
            connections=clients,
            sessions=len(registry.subscribers),
            topics=len(registry.topics),
            subscriptions=subscriptions,
            messages=Flow(rates["messages_published"], rates["messages_delivered"]),
            bytes=Flow(rates["received_bytes"], rates["sent_bytes"]),
            latency_ms=Latency(*map(_to_ms, self._counts.quantiles("delivery_latency_seconds", SHARES))),
            queue_bytes=queue_bytes,
            errors={name: int(self._counts.total(name)) for name in ERRORS},
            loop_lag_ms=round(condition.lag_s * 1000, 3),
            cpu_percent=round(self._cpu.percent(), 1),
            memory_bytes=resident_bytes(),
            broker=self._broker(condition),
        )

    def _rates(self) -> dict[str, float]:
        """Return how much was counted a second since this was asked last."""
        now_s, totals = self._context.clock.monotonic_s(), {name: self._counts.total(name) for name in RATES}
        elapsed_s = now_s - self._read_s
        rates = {
            name: round((total - self._last[name]) / elapsed_s, 1) if elapsed_s > 0 else 0.0
            for name, total in totals.items()
        }
        self._read_s, self._last = now_s, totals
        return rates

    def _count_clients(self) -> tuple[Clients, int, int]:
        """Count open connections by their form, what they subscribe to, and the bytes that wait for them."""
        by_form = [0] * len(Form)
        subscriptions = queue_bytes = 0
        for connection in self._context.connections:
            if connection.is_open:
                outbox = connection.outbox
                by_form[outbox.form] += 1
                queue_bytes += outbox.queued_bytes
                if connection.subscriber is not None:
                    subscriptions += len(connection.subscriber.subscriptions)
        websocket = ByEncoding(by_form[Form.WEBSOCKET_JSON], by_form[Form.WEBSOCKET_MSGPACK])
        device = ByEncoding(by_form[Form.DEVICE_JSON], by_form[Form.DEVICE_MSGPACK])
        return Clients(websocket, device), subscriptions, queue_bytes

    def _broker(self, condition: Condition) -> BrokerFigures:
        return BrokerFigures(
            "redis" if self._context.hub.broker.is_shared else "memory",
            self._broker_state().value,
            _to_ms(condition.round_trip_s),
        )


def _to_ms(duration_s: float | None) -> float | None:
    return None if duration_s is None else round(duration_s * 1000, 3)
