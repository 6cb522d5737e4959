"""A hub without connections: subscribers made of an outbox over a scripted sink, and a broker under script.

async with open_hub() as hub_kit:
    ada = hub_kit.subscriber("ada")
    await ada.subscribe("a:b", since="earliest")       # as a connection does it, replay included
    await hub_kit.publish("a:b")
    assert ada.told("a:b") == [1]                      # offsets, and gaps as pairs
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any, Literal

import trio
from trio.testing import wait_all_tasks_blocked

from notifyd.broker.base import Receiver
from notifyd.errors import StreamBroken
from notifyd.hub.hub import Hub
from notifyd.hub.recovery import CatchUp
from notifyd.hub.registry import Subscriber
from notifyd.model import SessionId
from notifyd.settings import Settings, TopicPolicy
from protocol.errors import CloseCode
from protocol.framing import Form
from protocol.position import Position
from tests.kit.frames import FrameReader
from tests.kit.memory_node import policy, settings, virtual_clock
from tests.kit.recorded_tracer import RecordedTracer
from tests.kit.scripted_broker import ScriptedBroker
from tests.kit.scripted_sink import ScriptedSink, make_outbox
from tests.recorded_events import RecordedEvents


class Listening:
    """A subscriber and what its peer got."""

    def __init__(self, hub_kit: "HubKit", user: str, session: str, form: Form, budget_bytes: int) -> None:
        self._kit = hub_kit
        self._reader = FrameReader(form)
        self.sink = ScriptedSink()
        self.outbox = make_outbox(self.sink, form, budget_bytes, start_writer=self._start_writer)
        self.ended: list[CloseCode] = []
        self.subscriber = Subscriber(
            session=SessionId(session),
            user=user,
            outbox=self.outbox,
            client=self,
            since_ms=0,
        )
        hub_kit.hub.registry.attach(self.subscriber)

    def end(self, code: CloseCode, message: str) -> None:
        self.ended.append(code)

    async def subscribe(
        self, topic: str, since: Position | Literal["earliest", "latest"] = "latest", *, tell_gap: bool = False
    ) -> CatchUp:
        """Subscribe, and let the replay run."""
        catch_up = await self._kit.hub.subscribe(self.subscriber, topic, since)
        if not catch_up.release(tell_gap=tell_gap):
            self._kit.nursery.start_soon(catch_up.run)
        return catch_up

    async def unsubscribe(self, topic: str) -> bool:
        return await self._kit.hub.unsubscribe(self.subscriber, topic)

    async def leave(self) -> None:
        """End as a connection does."""
        await self._kit.hub.detach(self.subscriber, "a-1")
        self._kit.hub.registry.detach(self.subscriber)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Everything the peer got."""
        self._reader.receive(bytes(self.sink.taken))
        self.sink.taken.clear()
        return self._reader.frames

    def told(self, topic: str) -> list[object]:
        """What the peer knows of a topic: offsets, and gaps as pairs; "joined" and "left" by their word."""
        own = [message for message in self.messages if message["topic"] == topic]
        return [(one["from"], one["to"]) if one["op"] == "gap" else one.get("offset", one["op"]) for one in own]

    async def drain(self) -> None:
        """Let the sink take everything, and wait until all has come to rest."""
        self.sink.allow(10**9)
        await wait_all_tasks_blocked()

    def _start_writer(self) -> None:
        self._kit.nursery.start_soon(self._write)

    async def _write(self) -> None:
        with suppress(StreamBroken):
            await self.outbox.drain(inf)


class HubKit:
    """The hub and what it stands on."""

    def __init__(self, node_settings: Settings) -> None:
        self.events = RecordedEvents()
        self.tracer = RecordedTracer()
        self.brokers: list[ScriptedBroker] = []
        clock = virtual_clock()

        def open_broker(receiver: Receiver) -> ScriptedBroker:
            self.brokers.append(ScriptedBroker(receiver, clock=clock))
            return self.brokers[0]

        self.hub = Hub(node_settings, open_broker, clock=clock, events=self.events, tracer=self.tracer)
        self.nursery: trio.Nursery
        self._sessions = 0

    @property
    def broker(self) -> ScriptedBroker:
        return self.brokers[0]

    def subscriber(
        self, user: str = "ada", session: str | None = None, *, form: Form = Form.DEVICE_JSON, budget_bytes: int = 10**6
    ) -> Listening:
        """Attach a subscriber."""
        self._sessions += 1
        return Listening(self, user, session or f"s{self._sessions}", form, budget_bytes)

    async def publish(self, topic: str, count: int = 1, size: int = 0, **fields: Any) -> None:
        """Publish messages, each with `size` characters, and let them leave."""
        for _ in range(count):
            await self.hub.publish(topic, "x" * size, **fields)
        self.hub.fanout.flush()


@asynccontextmanager
async def open_hub(*policies: TopicPolicy) -> AsyncIterator[HubKit]:
    """Run a hub with its services, every topic open to all and kept for 1000 messages unless said otherwise."""
    hub_kit = HubKit(settings(topics=(*policies, policy("**"))))
    async with trio.open_nursery() as hub_kit.nursery:
        for service in (hub_kit.hub.fanout.run, hub_kit.hub.interest.run, hub_kit.hub.sessions.run):
            await hub_kit.nursery.start(service)
        yield hub_kit
        hub_kit.nursery.cancel_scope.cancel()
