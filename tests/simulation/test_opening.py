"""A broker over the simulated Redis does what it does over a real one; the conformance suite asks it the rest."""

from trio.testing import MockClock

from notifyd.broker.base import Retention
from notifyd.broker.redis.broker import RedisBroker
from notifyd.clock import Clock
from notifyd.settings import BrokerSettings, Url
from tests.kit.services import open_services
from tests.recorded_events import RecordedEvents
from tests.simulation.opening import open_simulated
from tests.unit.broker.conformance import Received

KEEP = Retention(10, 60.0)


async def test_a_broker_works_over_it(autojump_clock: MockClock) -> None:
    events, got = RecordedEvents(), Received()
    settings = BrokerSettings(url=Url("redis://unused"))
    async with open_simulated(events) as simulated, open_services() as services:
        broker = RedisBroker(got, settings, node="trial", clock=Clock(), events=events, servers=simulated.servers)
        await broker.start(services)
        await broker.subscribe("a:b", KEEP)
        accepted = await broker.publish("a:b", {"x": 1}, KEEP, key="k")
        again = await broker.publish("a:b", {"x": 1}, KEEP, key="k")
        page = await broker.history("a:b", "earliest", 10, KEEP)
        await broker.close()
    assert again.repeated
    assert again.position == accepted.position == page.top
    assert [message.data for message in got.delivered] == [message.data for message in page.messages] == [{"x": 1}]
