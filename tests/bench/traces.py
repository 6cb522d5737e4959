"""What traces cost a publish where none are configured; and, to know it, where every single message is traced.

The same messages go to the same subscribers in turns: through the hub as a node has it, and through one without a word
about traces. A message is accepted, appended, fanned out, and taken by every subscriber's socket, which throws it away.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from opentelemetry.sdk.trace import TracerProvider

from notifyd.broker.base import Accepted
from notifyd.broker.memory import MemoryBroker
from notifyd.clock import Clock
from notifyd.events import NoEvents
from notifyd.hub.delivery import Delivery
from notifyd.hub.fanout import Fanout
from notifyd.hub.hub import Hub
from notifyd.hub.outbox import JOINED_BYTES, Outbox
from notifyd.hub.recovery import retention_of
from notifyd.hub.registry import Subscriber
from notifyd.model import Notification, SessionId
from notifyd.settings import Settings
from notifyd.telemetry.traces import Traces
from notifyd.tracing import Step, Tracer
from protocol.errors import CloseCode
from protocol.framing import Form
from tests.bench.fanout import DATA, TOPIC
from tests.bench.result import Result, compare
from tests.kit.scripted_sink import Calls

SUBSCRIBERS = 20
BATCH = 100
TARGET = 0.95
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

Publish = Callable[[], Awaitable[Accepted]]


class BareFanout(Fanout):
    """The fan-out before there were traces."""

    def deliver(self, batch: Sequence[Notification]) -> None:
        topics = self._registry.topics
        for notification in batch:
            topic = topics.get(notification.topic)
            if topic is None:
                continue
            if notification.position is not None:
                topic.position = notification.position
            delivery = Delivery.of(notification, topic.policy)
            left_out = self._registry.subscribers.get(notification.origin) if notification.origin else None
            count = self.hand_out(topic, delivery, left_out.outbox if left_out else None)
            if count:
                self._queued.append((notification, count))
                if self._fresh_bytes >= JOINED_BYTES:
                    self.flush()
            if self._topic_counts.is_counted:
                self._topic_counts.deliver(topic.name, count, topic.position)


class BareHub(Hub):
    """The hub before there were traces."""

    async def publish(self, topic: str, data: Any, **fields: Any) -> Accepted:
        accepted = await self.broker.publish(topic, data, retention_of(self._settings.policy_for(topic)), **fields)
        if self.topic_counts.is_counted:
            self.topic_counts.publish(topic, accepted)
        return accepted


class EveryTrace(Traces):
    """Traces without a bound, whose spans nobody takes: what one costs the loop."""

    def _is_too_much(self) -> bool:
        return False


class NullSink:
    """A socket that takes everything at once."""

    has_unsent = False

    def send_now(self, data: bytes | memoryview) -> int:
        return len(data)

    async def wait_writable(self) -> None:
        raise AssertionError("it never blocks")


async def measure(*, quick: bool) -> list[Result]:
    """Publish in turns."""
    rounds = 30 if quick else 150
    traces = EveryTrace(TracerProvider(shutdown_on_exit=False), 0.0, clock=Clock(), events=NoEvents())
    async with _hub(BareHub) as bare, _hub(Hub) as untraced, _hub(Hub, traces) as traced:
        bare.fanout.__class__ = BareFanout
        ways = (_publish_bare(bare), _publish(untraced, None), _publish(traced, TRACE))
        spent = [[await _spent_us(way) for way in ways] for _ in range(rounds)]
    against = f"no code for traces, {SUBSCRIBERS} clients"
    return [
        compare("publish, traces off", "us", against, [(off, bare) for bare, off, _ in spent], target=TARGET),
        compare("publish, every message traced", "us", against, [(on, bare) for bare, _, on in spent]),
    ]


async def _spent_us(publish: Publish) -> float:
    began_s = time.process_time()
    for _ in range(BATCH):
        await publish()
        await trio.lowlevel.checkpoint()  # the fan-out's own task sends
    return (time.process_time() - began_s) / BATCH * 1e6


def _publish_bare(hub: Hub) -> Publish:
    async def publish() -> Accepted:
        return await hub.publish(TOPIC, DATA, sender="ada")

    return publish


def _publish(hub: Hub, trace: str | None) -> Publish:
    async def publish() -> Accepted:
        with hub.tracer.begin(Step.ACCEPT, TOPIC, trace) as step:
            step.tell(transport="device")
            return await hub.publish(TOPIC, DATA, sender="ada", trace=step.trace)

    return publish


@asynccontextmanager
async def _hub(kind: type[Hub], tracer: Tracer | None = None) -> AsyncIterator[Hub]:
    """Run a hub with subscribers."""
    clock = Clock()
    hub = kind(
        Settings.demo(), lambda hub: MemoryBroker(hub, clock=clock), clock=clock, events=NoEvents(), tracer=tracer
    )
    async with trio.open_nursery() as nursery:
        for service in (hub.fanout.run, hub.interest.run, hub.sessions.run):
            await nursery.start(service)
        for number in range(SUBSCRIBERS):
            catch_up = await hub.subscribe(_subscriber(number), TOPIC, "latest")
            catch_up.release(tell_gap=False)
        yield hub
        nursery.cancel_scope.cancel()


class Endless:
    """A connection that nobody ends."""

    def end(self, code: CloseCode, message: str) -> None:
        raise AssertionError(f"{code.name}: {message}")


def _subscriber(number: int) -> Subscriber:
    outbox = Outbox(NullSink(), Form.WEBSOCKET_JSON, 2**20, Calls())
    return Subscriber(SessionId(f"s{number}"), "ada", outbox, client=Endless(), since_ms=0)
