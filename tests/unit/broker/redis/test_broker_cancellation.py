"""Everything a hub asks of Redis, cancelled at every step it takes: nothing stays behind, and the next use works."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import Retention, SessionRecord
from notifyd.broker.redis import membership
from notifyd.broker.redis.keys import Names
from notifyd.hub import interest
from notifyd.model import SessionId
from protocol.messages import Member
from protocol.position import Position
from tests.kit.checkpoints import at_step
from tests.kit.memory_node import policy
from tests.kit.redis_hub import RedisHub, RedisListening, open_redis_hub
from tests.kit.redis_process import RedisServer
from tests.kit.until import until

pytestmark = pytest.mark.guard(60)

SEEN = policy("**", joins=True)
KEPT = Retention(100, 60.0)
LIVE = Retention(0, 60.0)
ADA = Member(user="ada", session="s1", since=1)
FARTHEST = 200


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest, "LINGER_S", 0.02)
    monkeypatch.setattr(membership, "GRACE_S", 0.05)


async def cancelled_at(step: int | None, work: Callable[[], Awaitable[object]]) -> bool:
    """Do something in a task of its own, cancelled at a step of it; False when it has no such step."""
    scope = trio.CancelScope()
    task: trio.lowlevel.Task | None = None

    async def run() -> None:
        nonlocal task
        task = trio.lowlevel.current_task()
        with scope:
            await trio.lowlevel.checkpoint()
            await work()

    def cancel(_task: trio.lowlevel.Task) -> bool:
        scope.cancel()
        return True

    def concerns(other: trio.lowlevel.Task | None) -> bool:
        while other is not None and other is not task:
            other = other.parent_nursery.parent_task if other.parent_nursery is not None else None
        return other is not None

    with at_step(concerns, step, cancel) as steps:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
    return steps.acted


def channels(server: RedisServer, prefix: str) -> set[str]:
    """The topics' channels that anybody is subscribed to."""
    return set(server.cli("PUBSUB", "CHANNELS", f"{prefix}:channel:*"))


def in_flight(hub: RedisHub) -> int:
    link = hub.broker._servers._server.link  # type: ignore[attr-defined]
    feeds = hub.broker._subscriber._feeds.values()
    return int(link.commands_in_flight + sum(feed._link.commands_in_flight for feed in feeds))


async def assert_at_rest(hub: RedisHub, server: RedisServer, prefix: str) -> None:
    """Nobody is subscribed, present or waiting; the books are empty."""
    broker = hub.broker
    await until(lambda: not broker._membership._pending and not hub.hub.interest._idle, 5)
    await until(lambda: not channels(server, prefix), 5)
    assert not broker._control._questions
    assert not broker._subscriber._answers
    assert not broker._subscriber._fresh
    assert not broker._topics
    assert not len(broker._ordering)
    assert not broker._membership._here
    assert not broker._membership._writing
    assert not hub.hub.registry.topics
    assert not hub.hub.interest._subscribed
    assert not hub.hub.interest._locks
    assert server.cli("KEYS", f"{prefix}:presence:*") == []
    assert server.cli("KEYS", f"{prefix}:members:*") == []
    await until(lambda: in_flight(hub) == 0, 5)


BROKER_CALLS: dict[str, Callable[[RedisHub], Awaitable[Any]]] = {
    "publish": lambda hub: hub.broker.publish("a:b", 1, KEPT, key="k"),
    "publish without history": lambda hub: hub.broker.publish("live:a", 1, LIVE, key="k"),
    "subscribe": lambda hub: hub.broker.subscribe("a:b", KEPT),
    "subscribe without history": lambda hub: hub.broker.subscribe("live:a", LIVE),
    "history": lambda hub: hub.broker.history("a:b", "earliest", 10, KEPT),
    "join": lambda hub: hub.broker.join("a:b", ADA, announce=True),
    "presence": lambda hub: hub.broker.presence("a:b"),
    "topics": lambda hub: hub.broker.topics(),
    "load": lambda hub: hub.broker.load_session(SessionId("other"), "ada"),
    "save": lambda hub: hub.broker.save_session(SessionRecord(SessionId("s1"), "ada", {"a:b": None}), 60.0),
    "end": lambda hub: hub.broker.end_session(SessionId("other")),
    "end unknown": lambda hub: hub.broker.end_session(SessionId("nobody")),
    "revoke": lambda hub: hub.broker.revoke(Revocation(until_s=2e9, token_id="j")),
    "tell_watched": lambda hub: hub.broker.tell_watched(["$sys:tree"]),
    "problems": lambda hub: hub.broker.problems(),
}


@pytest.mark.parametrize("what", BROKER_CALLS)
async def test_what_a_broker_is_asked(what: str, redis_server: RedisServer, redis_url: str, redis_prefix: str) -> None:
    call = BROKER_CALLS[what]
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", SEEN) as one,
        open_redis_hub(redis_url, redis_prefix, "n2", SEEN) as two,
    ):
        broker = one.broker
        for step in range(FARTHEST):
            await two.broker.save_session(SessionRecord(SessionId("other"), "ada", {"a:b": Position("e", 1)}), 60.0)
            acted = await cancelled_at(step, lambda: call(one))
            for topic in ("a:b", "live:a"):
                await broker.unsubscribe(topic)
            await broker.leave("a:b", ADA, announce=True)
            await assert_at_rest(one, redis_server, redis_prefix)
            await call(one)
            for topic in ("a:b", "live:a"):
                await broker.unsubscribe(topic)
            await broker.leave("a:b", ADA, announce=True)
            redis_server.cli("DEL", Names(redis_prefix).session("other"))
            if not acted:
                break
        else:
            raise AssertionError("it has no end")
        await assert_at_rest(one, redis_server, redis_prefix)
        for hub in (one, two):
            assert hub.services.failures == {}


HUB_CALLS = ("subscribe", "subscribe from earliest", "unsubscribe", "leave", "resume", "resume elsewhere")


@pytest.mark.parametrize("what", HUB_CALLS)
async def test_what_a_hub_is_asked(what: str, redis_server: RedisServer, redis_url: str, redis_prefix: str) -> None:
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", SEEN) as one,
        open_redis_hub(redis_url, redis_prefix, "n2", SEEN) as two,
    ):
        for step in range(FARTHEST):
            for number in range(3):
                await one.hub.publish("a:1", number)
            acted = await _lived_until(step, what, one, two, f"s{step}")
            for hub in (one, two):
                await assert_at_rest(hub, redis_server, redis_prefix)
            if not acted:
                break
        else:
            raise AssertionError("it has no end")
        last = one.subscriber("ada", "last")
        await last.subscribe("a:1")
        assert [member.session for member in await two.hub.presence("a:1")] == ["last"]
        await two.hub.publish("a:1", "end")
        await until(lambda: last.data() == ["end"])
        await last.leave()
        for hub in (one, two):
            assert hub.services.failures == {}


async def _lived_until(step: int, what: str, one: RedisHub, two: RedisHub, session: str) -> bool:
    """Let a session live up to a certain step of something it does, and end then; False when there is no such step."""
    ada = one.subscriber("ada", session)
    successors: list[RedisListening] = []

    async def resume(hub: RedisHub) -> None:
        record = await hub.hub.resume(session, "ada")
        if record is not None:
            successors.append(hub.subscriber("ada", session))
            successors[0].subscriber.restoring = dict(record.positions)
            for topic, position in record.positions.items():
                await successors[0].subscribe(topic, position or "latest")
            await hub.hub.restored(successors[0].subscriber)

    for topic in ("a:1", "a:2"):
        await ada.subscribe(topic)
    await trio.sleep(0.11 if what == "resume elsewhere" else 0)
    acts: dict[str, Callable[[], Awaitable[Any]]] = {
        "subscribe": lambda: ada.subscribe("a:3"),
        "subscribe from earliest": lambda: ada.subscribe("a:3", "earliest"),
        "unsubscribe": lambda: one.hub.unsubscribe(ada.subscriber, "a:1"),
        "leave": ada.leave,
        "resume": lambda: resume(one),
        "resume elsewhere": lambda: resume(two),
    }
    acted = await cancelled_at(step, acts[what])
    for listener in (ada, *successors):
        await listener.leave()
    return acted
