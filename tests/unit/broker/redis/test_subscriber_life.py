"""Any life of a subscriber: wishes that come and go, servers that crash, forget, stall, refuse and give channels away,
callers that are cancelled. When all is well again, what is wanted is subscribed, and nobody missed anything unawares.

The oracle: whoever was told that a channel is subscribed gets each message published from then on, or is told later
that something may be missing, at a time when the channel is subscribed again.
"""

import random
from collections import Counter, defaultdict
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import Phase, given, settings
from redis.exceptions import ResponseError

from notifyd.broker.redis.feed import PROBE_AFTER_S
from notifyd.broker.redis.subscriber import IDLE_FEED_S
from notifyd.errors import BrokerUnavailable
from tests.kit.memory_node import run_virtual
from tests.kit.subscriber_kit import DEADLINE_S, SubscriberKit, open_subscriber

CHANNELS = ("x{s}", "y{s}", "z")
HOMES = ("a", "b")

_channels = st.sampled_from(CHANNELS)
_homes = st.sampled_from(HOMES)
ACTS = st.one_of(
    st.tuples(st.sampled_from(["subscribe", "subscribe", "want", "unsubscribe", "cancel"]), _channels),
    st.tuples(st.sampled_from(["subscribe", "subscribe", "want", "unsubscribe", "cancel"]), _channels),
    st.tuples(st.just("move"), _channels, _homes, st.booleans()),
    st.tuples(st.just("mislead"), _channels, _homes),
    st.tuples(st.sampled_from(["crash", "restart", "cut", "stall", "go_on", "forget"]), _homes),
    st.tuples(st.sampled_from(["refuse", "fill"]), _homes, st.booleans()),
    st.tuples(st.just("lose_table"), st.booleans()),
)
PAUSES_S = st.sampled_from([0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, IDLE_FEED_S])
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]  # explaining takes too long
STEPS = st.tuples(ACTS, PAUSES_S)
"""Something happens, a message is published on every channel, and some time passes."""


class Life:
    """Plays steps, and remembers what was promised. Time of day: how many things have happened so far."""

    def __init__(self, kit: SubscriberKit, nursery: trio.Nursery) -> None:
        self.kit = kit
        self.nursery = nursery
        self.wanted: set[str] = set()
        self.promised: set[str] = set()
        self.owed: dict[str, set[bytes]] = defaultdict(set)
        self.scopes: dict[str, list[trio.CancelScope]] = defaultdict(list)
        self.wishes: Counter[str] = Counter()
        self.unsure: set[str] = set()
        """Wanted, and nobody was told that it is subscribed."""
        self.told: Counter[str] = Counter()
        self.published = 0
        kit.subscriber.on_messages = self.take
        kit.subscriber._on_restored = self.restore

    def take(self, messages: list[tuple[str, bytes]]) -> None:
        for channel, payload in messages:
            assert channel in self.wanted, "a message nobody wants"
            self.owed[channel].discard(payload)

    def restore(self, channels: list[str]) -> None:
        assert len({*channels}) == len(channels)
        for channel in channels:
            assert self.kit.subscriber.is_subscribed(channel)
            self.owed[channel].clear()
            self.unsure.discard(channel)
            self.told[channel] += 1

    def subscribe(self, channel: str) -> None:
        scope = trio.CancelScope()
        self.scopes[channel].append(scope)
        self.nursery.start_soon(self._subscribe, channel, scope)

    async def _subscribe(self, channel: str, scope: trio.CancelScope) -> None:
        self.wanted.add(channel)
        wish, told = self.wishes[channel], self.told[channel]
        with scope:
            began_s = trio.current_time()
            try:
                await self.kit.subscriber.subscribe(channel)
            except (BrokerUnavailable, trio.Cancelled) as error:
                if wish == self.wishes[channel] and channel not in self.promised and not self.is_told(channel, told):
                    self.unsure.add(channel)
                if isinstance(error, trio.Cancelled):
                    raise
            else:
                if wish == self.wishes[channel]:
                    self.promised.add(channel)
                    self.unsure.discard(channel)
            assert trio.current_time() - began_s <= DEADLINE_S + 1e-6
        self.scopes[channel].remove(scope)

    def is_told(self, channel: str, before: int) -> bool:
        """Whether it was told since that the channel is subscribed, and it still is."""
        return self.told[channel] > before and self.kit.subscriber.is_subscribed(channel)

    def want(self, channel: str) -> None:
        if not self.kit.subscriber.is_subscribed(channel):
            self.unsure.add(channel)
        self.wanted.add(channel)
        self.kit.subscriber.want(channel)

    async def unsubscribe(self, channel: str) -> None:
        self.wishes[channel] += 1
        self.wanted.discard(channel)
        self.promised.discard(channel)
        self.unsure.discard(channel)
        self.owed[channel].clear()
        self.cancel(channel)
        await self.kit.subscriber.unsubscribe(channel)

    def cancel(self, channel: str) -> None:
        for scope in self.scopes[channel]:
            scope.cancel()

    def publish(self, channel: str) -> None:
        self.published += 1
        payload = b"%d" % self.published
        if channel in self.promised:
            self.owed[channel].add(payload)
        self.kit.servers.publish(channel, payload)

    def move(self, channel: str, home: str, told: bool) -> None:
        self.kit.servers.move(channel, home, told=told)

    def mislead(self, channel: str, home: str) -> None:
        """Let everybody believe that a channel lives elsewhere."""
        if self.kit.servers.sharded:
            self.kit.servers.table[self.kit.servers.slot(channel)] = home
            self.kit.servers.change()

    def refuse(self, home: str, refuses: bool) -> None:
        self.kit.servers.nodes[home].refusal = ResponseError("NOPERM no permissions") if refuses else None

    def fill(self, home: str, is_full: bool) -> None:
        self.kit.servers.nodes[home].is_full = is_full

    def lose_table(self, lost: bool) -> None:
        self.kit.servers.lost_table = lost
        if not lost:
            self.kit.servers.change()

    async def step(self, act: tuple[Any, ...], pause_s: float) -> None:
        name, *about = act
        if hasattr(self, name):
            outcome = getattr(self, name)(*about)
            if outcome is not None:
                await outcome
        else:
            getattr(self.kit.servers.nodes[about[0]], name)()
        for channel in CHANNELS:
            self.publish(channel)
        await trio.sleep(pause_s)

    async def heal(self) -> None:
        servers = self.kit.servers
        servers.lost_table = False
        for node in servers.nodes.values():
            node.restart()
            node.go_on()
            node.refusal = None
            node.is_full = False
        if not servers.sharded:  # else servers say who has moved away
            for channel in CHANNELS:
                servers.learn(channel)
        # The longest backoff, then silence long enough for a probe to find out what was forgotten, and again.
        await trio.sleep(2 * (2.5 + PROBE_AFTER_S + DEADLINE_S) + IDLE_FEED_S + 3)

    def check(self) -> None:
        subscriber = self.kit.subscriber
        for home in HOMES:
            lives_here = {channel for channel in self.wanted if self.kit.servers.true_home(channel) == home}
            assert self.kit.subscribed(home) == lives_here, home
        assert {channel for channel in CHANNELS if subscriber.is_subscribed(channel)} == self.wanted
        assert {channel: owed for channel, owed in self.owed.items() if owed} == {}
        assert self.unsure == set()
        assert subscriber.problems() == []

    def check_nothing_leaks(self) -> None:
        subscriber = self.kit.subscriber
        assert subscriber._answers == subscriber._leaving == subscriber._unplaced == subscriber._doubtful == {}
        assert subscriber._fresh == set()
        assert {*subscriber._homes} == {*subscriber.names.values()} == self.wanted
        homes = {self.kit.servers.true_home(channel) for channel in self.wanted}
        assert {*subscriber._feeds} == {home for home, node in self.kit.servers.nodes.items() if node.links} == homes
        for feed in subscriber._feeds.values():
            books = feed.channels
            assert books.confirmed == books._held == {*books.wanted}
            assert not books.has_work
            assert not books.has_put_off
            assert books._asked == books._revoked == set()


async def play(sharded: bool, seed: int, pace_s: float, steps: list[tuple[tuple[Any, ...], float]]) -> None:
    dice = random.Random(seed)

    def delay_s() -> float:
        return dice.random() * pace_s

    async with open_subscriber(*HOMES, sharded=sharded, delay_s=delay_s) as kit, trio.open_nursery() as nursery:
        life = Life(kit, nursery)
        for channel in CHANNELS:
            await life.step(("subscribe", channel), 0.3)
        for act, pause_s in steps:
            await life.step(act, pause_s)
        await life.heal()
        life.check()
        for channel in CHANNELS:
            life.publish(channel)
        await trio.sleep(0.5)
        life.check()
        life.check_nothing_leaks()


@settings(max_examples=6 * settings().max_examples, phases=PHASES)
@given(
    sharded=st.booleans(),
    seed=st.integers(0, 10),
    pace_s=st.sampled_from([0.0, 0.01, 0.1]),
    steps=st.lists(STEPS, min_size=10, max_size=30),
)
def test_when_all_is_well_again_what_is_wanted_is_subscribed_and_nobody_missed_anything_unawares(
    sharded: bool, seed: int, pace_s: float, steps: list[tuple[tuple[Any, ...], float]]
) -> None:
    run_virtual(play, sharded, seed, pace_s, steps)
