"""Hubs over one real Redis, each as a node has it but without sockets: subscribers made of an outbox and a sink.

async with open_redis_hub(redis_url, redis_prefix, "n1") as one, open_redis_hub(redis_url, redis_prefix, "n2") as two:
    ada = one.subscriber("ada")
    await ada.subscribe("a:b")
    await two.hub.publish("a:b", 1)
    await until(lambda: ada.told("a:b") == [1])
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from notifyd.broker.redis.broker import RedisBroker
from notifyd.clock import Clock
from notifyd.hub.hub import Hub
from notifyd.hub.registry import Subscriber
from notifyd.model import SessionId
from notifyd.settings import BrokerSettings, TopicPolicy, Url
from protocol.errors import CloseCode
from protocol.framing import Form
from protocol.position import Position
from tests.kit.frames import FrameReader
from tests.kit.memory_node import policy, settings
from tests.kit.scripted_sink import ScriptedSink, make_outbox
from tests.kit.services import RunServices, open_services
from tests.recorded_events import RecordedEvents


class RedisListening:
    """A subscriber; `got` is everything that it was told."""

    def __init__(self, hub: Hub, user: str, session: str, form: Form) -> None:
        self.sink = ScriptedSink()
        self.ended: list[CloseCode] = []
        self.got: list[dict[str, Any]] = []
        self._hub = hub
        self._reader = FrameReader(form)
        self.subscriber = Subscriber(
            session=SessionId(session),
            user=user,
            outbox=make_outbox(self.sink, form, 10**7),
            client=self,
            since_ms=0,
        )
        hub.registry.attach(self.subscriber)

    def end(self, code: CloseCode, message: str) -> None:
        self.ended.append(code)

    async def subscribe(self, topic: str, since: Any = "latest") -> Position | None:
        """Subscribe; return the newest position."""
        catch_up = await self._hub.subscribe(self.subscriber, topic, since)
        if not catch_up.release(tell_gap=False):
            await catch_up.run()
        return catch_up.standing.position

    async def leave(self) -> None:
        """End as a connection does."""
        try:
            await self._hub.detach(self.subscriber, "a-1")
        finally:
            self._hub.registry.detach(self.subscriber)

    def read(self) -> list[dict[str, Any]]:
        """Everything that it was told up to now."""
        self._reader.receive(bytes(self.sink.taken))
        self.sink.taken.clear()
        self.got, self._reader.frames[:] = [*self.got, *self._reader.frames], []
        return self.got

    def data(self) -> list[Any]:
        """The data of all messages."""
        return [message["data"] for message in self.read() if message["op"] == "message"]


class RedisHub:
    """A hub, its broker, and where its services run."""

    def __init__(self, hub: Hub, broker: RedisBroker, services: RunServices, events: RecordedEvents) -> None:
        self.hub = hub
        self.broker = broker
        self.services = services
        self.events = events

    def subscriber(self, user: str = "ada", session: str = "s1", form: Form = Form.DEVICE_JSON) -> RedisListening:
        """Attach a subscriber."""
        return RedisListening(self.hub, user, session, form)

    def assert_well(self) -> None:
        """Fail where a service failed, or anything was logged as a bug."""
        lines = [json.dumps(fields, default=str) for *_, fields in self.events.lines]
        assert [line for line in lines if "traceback" in line] == []


@asynccontextmanager
async def open_redis_hub(
    url: str, prefix: str, name: str = "n1", *policies: TopicPolicy, timeout_s: float = 1.0, **broker: Any
) -> AsyncIterator[RedisHub]:
    """Run a hub; every topic is open to all and kept for 1000 messages unless said otherwise."""
    events, brokers, clock = RecordedEvents(), [], Clock()
    broker_settings = BrokerSettings(url=Url(url), prefix=prefix, timeout_s=timeout_s)

    def open_broker(receiver: Any) -> RedisBroker:
        brokers.append(RedisBroker(receiver, broker_settings, node=name, clock=clock, events=events, **broker))
        return brokers[0]

    hub = Hub(settings(topics=(*policies, policy("**"))), open_broker, clock=clock, events=events)
    async with open_services() as services:
        await brokers[0].start(services)
        async with trio.open_nursery() as nursery:
            for service in (hub.fanout.run, hub.interest.run, hub.sessions.run):
                await nursery.start(service)
            yield RedisHub(hub, brokers[0], services, events)
            nursery.cancel_scope.cancel()
        await brokers[0].close()
