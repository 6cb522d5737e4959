"""Recovery under any interleaving: no hole, nothing twice, in order, and the outbox's share kept.

Hypothesis plays the scheduler: publishes, late deliveries, reads that wait, sockets that take a little, subscribers
that come, go and are cancelled, histories that are trimmed. After each step everything that can run runs.
"""

from collections import defaultdict

import hypothesis.strategies as st
import trio
from hypothesis import given, settings
from trio.testing import wait_all_tasks_blocked

from protocol.position import Position
from tests.kit.hub_kit import HubKit, Listening, open_hub
from tests.kit.memory_node import policy, run_virtual

TOPIC = "a:b"
BUDGET_BYTES = 8000
SUBSCRIBERS = 2

STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 60), st.integers(0, 900)),
    st.tuples(st.just("publish_from"), st.integers(0, SUBSCRIBERS - 1), st.integers(1, 5)),
    st.tuples(st.just("pause"), st.sampled_from(["history", "history answer"])),
    st.tuples(st.just("resume")),
    st.tuples(st.just("hold_deliveries")),
    st.tuples(st.just("deliver"), st.one_of(st.none(), st.integers(1, 20))),
    st.tuples(
        st.just("subscribe"),
        st.integers(0, SUBSCRIBERS - 1),
        st.one_of(st.sampled_from(["earliest", "latest"]), st.integers(0, 100)),
    ),
    st.tuples(st.just("unsubscribe"), st.integers(0, SUBSCRIBERS - 1)),
    st.tuples(st.just("allow"), st.integers(0, SUBSCRIBERS - 1), st.integers(1, 20_000)),
    st.tuples(st.just("stop_reading"), st.integers(0, SUBSCRIBERS - 1)),
    st.tuples(st.just("cancel"), st.integers(0, SUBSCRIBERS - 1)),
)


class Model:
    """What was published, and for each subscriber from where on it must have everything."""

    def __init__(self, hub_kit: HubKit, listening: list[Listening], *, trims: bool) -> None:
        self.kit = hub_kit
        self.listening = listening
        self.trims = trims
        self.published = 0
        self.own: dict[int, set[int]] = defaultdict(set)
        self.expected: dict[int, int | None] = {}
        self.scopes: dict[int, trio.CancelScope] = {}

    async def step(self, name: str, *args: object) -> None:
        await getattr(self, name)(*args)
        await wait_all_tasks_blocked()
        for one in self.listening:
            live = one.subscriber.subscriptions.get(TOPIC)
            if live is not None and not live.live and not live.replayed:
                assert one.outbox.queued_bytes <= BUDGET_BYTES

    async def publish(self, count: int, size: int) -> None:
        await self.kit.publish(TOPIC, count, size)
        self.published += count

    async def publish_from(self, number: int, count: int) -> None:
        """Publish without an echo: from its subscription on this one does not get it."""
        one = self.listening[number]
        await self.kit.publish(TOPIC, count, origin=one.subscriber.session)
        if TOPIC in one.subscriber.subscriptions:
            self.own[number] |= {*range(self.published + 1, self.published + count + 1)}
        self.published += count

    async def pause(self, name: str) -> None:
        self.kit.broker.pause(name)

    async def resume(self) -> None:
        self.kit.broker.resume("history", "history answer")

    async def hold_deliveries(self) -> None:
        self.kit.broker.hold_deliveries()

    async def deliver(self, count: int | None) -> None:
        self.kit.broker.deliver_held(count)
        self.kit.hub.fanout.flush()

    async def subscribe(self, number: int, since: str | int) -> None:
        one = self.listening[number]
        if TOPIC in one.subscriber.subscriptions:
            return
        position = since
        if isinstance(since, int):
            since = min(since, self.published)
            epoch = (await self.kit.broker._broker.history(TOPIC, "latest", 1, _retention())).top.epoch
            position = Position(epoch, since)
        self.listening[number].messages.clear()
        self.own[number].clear()
        self.expected[number] = None
        self.scopes[number] = trio.CancelScope()
        self.kit.nursery.start_soon(self._subscribe, number, position)

    async def _subscribe(self, number: int, since: object) -> None:
        with self.scopes[number]:
            catch_up = await self.kit.hub.subscribe(self.listening[number].subscriber, TOPIC, since)
            standing = catch_up.standing
            first = since.offset if isinstance(since, Position) and standing.recovered else standing.position.offset
            if since == "earliest":
                first = min((m.position.offset for m in catch_up._replay.page.messages), default=first + 1) - 1
            self.expected[number] = first
            self.own[number] = {offset for offset in self.own[number] if offset > standing.position.offset}
            if not catch_up.release(tell_gap=False):
                await catch_up.run()

    async def unsubscribe(self, number: int) -> None:
        if self.expected.get(number) is not None:
            await self.listening[number].unsubscribe(TOPIC)
            await self.check_prefix(number)
            self.expected[number] = None

    async def cancel(self, number: int) -> None:
        """As when the connection ends: its tasks are cancelled, then it leaves."""
        if number in self.scopes:
            self.scopes[number].cancel()
            await wait_all_tasks_blocked()
            await self.unsubscribe(number)
            self.listening[number].subscriber.subscriptions.pop(TOPIC, None)

    async def allow(self, number: int, room_bytes: int) -> None:
        self.listening[number].sink.allow(room_bytes)

    async def stop_reading(self, number: int) -> None:
        self.listening[number].sink.room_bytes = 0

    async def check_prefix(self, number: int) -> None:
        """What was told so far leaves nothing out; nothing more comes of an ended subscription once it has drained."""
        one = self.listening[number]
        await one.drain()
        self.follow(number)
        one.messages.clear()

    def follow(self, number: int) -> int:
        """Go through what a subscriber was told; return how far it reaches."""
        reached = self.expected[number]
        assert reached is not None
        for told in self.listening[number].told(TOPIC):
            first, last = told if isinstance(told, tuple) else (told, told)
            assert not isinstance(told, tuple) or self.may_have_gaps(number), "a gap without a reason"
            between = {*range(reached + 1, first)}
            assert between <= self.own[number], f"{between - self.own[number]} left out before {first}"
            assert first > reached, f"{first} after {reached}"
            assert isinstance(told, tuple) or told not in self.own[number], "its own, without an echo"
            reached = last
        return reached

    def may_have_gaps(self, number: int) -> bool:
        return self.trims or bool(self.listening[number].outbox.calls.overflows)

    async def finish(self) -> None:
        """Let everything go on, and see that every subscriber has all that is its due."""
        await self.resume()
        await self.deliver(None)
        for one in self.listening:
            await one.drain()
        for _ in range(30):
            await wait_all_tasks_blocked()
        for number, one in enumerate(self.listening):
            if self.expected.get(number) is not None:
                reached = self.follow(number)
                assert {*range(reached + 1, self.published + 1)} <= self.own[number]
                assert one.outbox.queued_bytes == 0
                subscription = one.subscriber.subscriptions[TOPIC]
                assert subscription.live or subscription.replayed


def _retention() -> object:
    from notifyd.hub.recovery import retention_of

    return retention_of(policy(TOPIC))


async def play(kept: int, history: int, steps: list[tuple[object, ...]]) -> None:
    async with open_hub(policy(TOPIC, history=history, overflow="gap")) as hub_kit:
        listening = [hub_kit.subscriber(budget_bytes=BUDGET_BYTES) for _ in range(SUBSCRIBERS)]
        model = Model(hub_kit, listening, trims=history < 1000)
        await model.publish(kept, 50)
        for name, *args in steps:
            await model.step(str(name), *args)
        await model.finish()


@settings(max_examples=4 * settings().max_examples)
@given(st.integers(0, 250), st.sampled_from([1000, 1000, 30]), st.lists(STEPS, min_size=6, max_size=40))
def test_no_interleaving_loses_or_doubles_anything(kept: int, history: int, steps: list[tuple[object, ...]]) -> None:
    run_virtual(play, kept, history, steps)
