"""This node's subscriptions at Redis: kept equal to what is wanted, whatever becomes of servers and connections.

Each channel has a home, the server whose feed carries it. A feed looks after its own channels (`feed.py`); here is
decided which channel is on which feed: again whenever homes may have moved. Feeds are launched and stopped here too.
"""

from collections.abc import Callable, Sequence
from itertools import chain

import trio

from notifyd.broker.base import Services
from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.feed import ChannelFeed, ChannelMessage
from notifyd.broker.redis.lag import own_lag_s
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events

PLAN_AGAIN_S = 0.05
"""Least time between two plans, in seconds: a plan of 50,000 channels takes about as long."""

UNPLACED_S = 1.0
"""How often it is looked for a server for the channels that have none, in seconds."""

IDLE_FEED_S = 10.0
"""How long a connection stays that carries no channel, in seconds."""

PLAN_CHANNELS = 500
"""Channels that are placed before other tasks have their turn."""

PROBE_CHANNELS = 2_000
"""Names tried for a probe channel that lives on a certain server: enough for one of a hundred masters."""


class ChannelSubscriber:
    """Keeps this node's channels subscribed.

    `on_messages` gets what arrives, by reads and in order. `on_restored` gets channels on which something may have been
    missed, once they are subscribed again. Both are synchronous and must not raise.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        deadline_s: float,
        probe_channel: str,
        on_messages: Callable[[Sequence[ChannelMessage]], None],
        on_restored: Callable[[Sequence[str]], None],
        events: Events,
    ) -> None:
        self.names: dict[bytes, str] = {}
        self.on_messages = on_messages
        self._on_restored = on_restored
        self._servers = servers
        self._deadline_s = deadline_s
        self._probe_channel = probe_channel.replace("{", "").replace("}", "")  # a number between braces decides
        self._events = events
        self._services: Services | None = None
        self._homes: dict[str, ChannelFeed | None] = {}
        self._unplaced: dict[str, None] = {}
        self._unplaced_why = "they are new"
        self._leaving: dict[str, ChannelFeed] = {}
        self._fresh: set[str] = set()
        self._answers: dict[str, _Answer] = {}
        self._feeds: dict[str, ChannelFeed] = {}
        self._idle_since_s: dict[str, float] = {}
        self._doubtful: dict[str, ChannelFeed] = {}
        self._stale = False
        self._wake = trio.Event()

    async def start(self, services: Services) -> None:
        """Begin to look after the channels, as a service; each server's connection becomes one too."""
        self._services = services
        self._servers.on_change(self._replan)
        await services.start("subscriber", self.run)

    def want(self, channel: str) -> None:
        """Want a channel from now on, and wait for nothing: `on_restored` tells when it is subscribed."""
        if channel not in self._homes:
            self._add(channel)

    async def subscribe(self, channel: str) -> None:
        """Want a channel from now on; return once the server confirmed it, of which `on_restored` is not told then.

        Raises BrokerUnavailable: at once while the server is known to be away, else after `deadline_s`. The channel is
        wanted all the same then, as it is when this is cancelled: `on_restored` tells when it is subscribed.
        """
        if channel not in self._homes:
            self._fresh.add(channel)
            self._add(channel)
        try:
            await trio.lowlevel.checkpoint()
            if not self.is_subscribed(channel):
                await self._confirmation(channel)
        except BaseException:
            if channel in self._fresh:
                self._fresh.discard(channel)
            elif self.is_subscribed(channel):  # confirmed at the very moment at which this was cancelled
                self._on_restored([channel])
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Want a channel no longer; nothing of it is handed over from now on. The server is told soon. Never raises."""
        if channel in self._homes:
            self._remove(channel)
        await trio.lowlevel.checkpoint()

    def is_subscribed(self, channel: str) -> bool:
        """Whether the server confirmed the channel, and its connection has been well since."""
        feed = self._homes.get(channel)
        return feed is not None and feed.is_up and channel in feed.channels.confirmed

    def problems(self) -> list[str]:
        """Tell, in words, what keeps wanted channels from being subscribed; nothing when all can be."""
        feeds = [problem for feed in self._feeds.values() if not feed.is_idle and (problem := feed.problem())]
        if self._unplaced:
            feeds.append(f"{len(self._unplaced)} channels have no server yet: {self._unplaced_why}")
        return feeds

    # --- wanting -----------------------------------------------------------------------------------------------------

    def _add(self, channel: str) -> None:
        self.names[channel.encode()] = channel
        self._homes[channel] = None
        self._unplaced[channel] = None
        feed = self._feed_of(channel)
        if feed is not None:
            self._place(channel, feed)
        else:
            self._wake.set()

    def _remove(self, channel: str) -> None:
        feed = self._homes.pop(channel)
        del self.names[channel.encode()]
        self._unplaced.pop(channel, None)
        self._fresh.discard(channel)
        for carrier in (feed, self._leaving.pop(channel, None)):
            if carrier is not None:
                self._let_go(channel, carrier)
        self._answer(channel, _unwanted(channel))

    def _let_go(self, channel: str, feed: ChannelFeed) -> None:
        feed.unwant(channel)
        if feed.is_idle:
            self._wake.set()

    async def _confirmation(self, channel: str) -> None:
        """Wait until a channel is confirmed, or it is known that it cannot be."""
        feed = self._homes.get(channel)
        if channel not in self._homes:
            raise _unwanted(channel)
        if feed is None:
            self._servers.feed_home(channel)
        elif feed.away is not None:
            raise _unavailable(feed)
        answer = self._answers.setdefault(channel, _Answer())
        answer.waiting += 1
        try:
            with trio.move_on_after(self._deadline_s):
                await answer.given.wait()
            if not answer.given.is_set():  # the answer may have come, and lie unread
                with trio.move_on_after(await own_lag_s()):
                    await answer.given.wait()
            if not answer.given.is_set():
                raise BrokerUnavailable(f"{channel} was not confirmed within {self._deadline_s:g} s")
            if answer.failure is not None:
                raise BrokerUnavailable(str(answer.failure), answer.failure.retry_after_s)
        finally:
            answer.waiting -= 1
            if not answer.waiting and self._answers.get(channel) is answer:
                del self._answers[channel]

    def _answer(self, channel: str, failure: BrokerUnavailable | None = None) -> None:
        answer = self._answers.pop(channel, None)
        if answer is not None:
            answer.failure = failure
            answer.given.set()

    # --- what feeds tell (FeedOwner) ---------------------------------------------------------------------------------

    def confirmed(self, feed: ChannelFeed, channels: Sequence[str]) -> None:
        """Tell who waits for these channels; where something may have been missed, tell that."""
        restored = []
        for channel in channels:
            if self._homes.get(channel) is feed:
                leaving = self._leaving.pop(channel, None)
                if leaving is not None:
                    self._let_go(channel, leaving)
                if channel in self._fresh:
                    self._fresh.discard(channel)
                else:
                    restored.append(channel)
                self._answer(channel)
        if restored:
            self._on_restored(restored)

    def refused(self, feed: ChannelFeed, channels: Sequence[str], failure: BrokerUnavailable) -> None:
        """Tell who waits for these channels."""
        for channel in channels:
            if self._homes.get(channel) is feed:
                self._answer(channel, failure)

    def moved(self, feed: ChannelFeed, channels: Sequence[str]) -> None:
        """Find out where these channels live now."""
        for channel in channels:
            if self._leaving.get(channel) is feed:
                del self._leaving[channel]
                self._let_go(channel, feed)
            else:
                self._doubtful[channel] = feed
        self._wake.set()

    def lost(self, feed: ChannelFeed) -> None:
        """Tell who waits for a channel of this feed; hold on to nothing there that is moving away."""
        for channel in [channel for channel, old in self._leaving.items() if old is feed]:
            del self._leaving[channel]
            self._let_go(channel, feed)
        for channel in [channel for channel in self._answers if self._homes.get(channel) is feed]:
            self._answer(channel, _unavailable(feed))

    # --- planning ----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Plan whenever there is a reason to, until cancelled."""
        task_status.started()
        while True:
            self._wake = trio.Event()
            await self._learn_homes()
            await self._plan()
            await self._stop_idle_feeds()
            await trio.sleep(PLAN_AGAIN_S)
            with trio.move_on_after(self._patience_s()):
                await self._wake.wait()

    def _patience_s(self) -> float:
        return UNPLACED_S if self._unplaced or self._stale else IDLE_FEED_S if self._idle_since_s else float("inf")

    def _replan(self) -> None:
        self._stale = True
        self._wake.set()

    async def _learn_homes(self) -> None:
        """Ask for a key of each channel that a server said it has no more: so the servers learn of the move too."""
        doubtful, self._doubtful = self._doubtful, {}
        for channel, feed in doubtful.items():
            try:
                if self._servers.feed_home(channel) == feed.home:
                    await client_at(self._servers, channel).exists(channel)
            except BrokerUnavailable:
                break  # asked again when the feed is refused again
        if doubtful:
            self._stale = True

    async def _plan(self) -> None:
        """Place all channels anew when homes may have moved, else those that have no home."""
        was_stale, self._stale = self._stale, False
        if was_stale:
            self._review_feeds()
        channels = [*self._homes] if was_stale else [*self._unplaced]
        for number, channel in enumerate(channels):
            if number % PLAN_CHANNELS == PLAN_CHANNELS - 1:
                await trio.lowlevel.checkpoint()
            if channel in self._homes:
                feed = self._feed_of(channel, opening=True)
                if feed is not None:
                    self._place(channel, feed)
                elif was_stale:
                    self._stale = True  # its home is unknown just now: looked for again

    def _feed_of(self, channel: str, *, opening: bool = False) -> ChannelFeed | None:
        """Return the feed of a channel's home; None where the home is unknown, or has none yet."""
        try:
            home = self._servers.feed_home(channel)
            return self._feeds.get(home) or (self._open(home) if opening else None)
        except BrokerUnavailable as failure:
            self._unplaced_why = str(failure)
            if channel in self._unplaced:
                self._answer(channel, failure)
            return None

    def _place(self, channel: str, feed: ChannelFeed) -> None:
        """Let a feed carry a channel. One that carried it so far does so until the new one is confirmed."""
        self._unplaced.pop(channel, None)
        old = self._homes[channel]
        if old is feed:
            return
        self._homes[channel] = feed
        leaving = self._leaving.get(channel)
        if old is not None:
            if leaving is None and channel in old.channels.confirmed:
                self._leaving[channel] = old
            else:
                self._let_go(channel, old)
        if leaving is feed:
            del self._leaving[channel]
        else:
            feed.want(channel)
        if channel in feed.channels.confirmed:  # it is back before the server heard that it was to go
            self.confirmed(feed, [channel])

    # --- feeds -------------------------------------------------------------------------------------------------------

    def _open(self, home: str) -> ChannelFeed | None:
        if self._services is None:
            return None
        feed = ChannelFeed(home, self._servers, self, deadline_s=self._deadline_s, events=self._events)
        feed.probe_on(self._probe_channel_of(home))
        self._feeds[home] = feed
        self._services.launch(f"feed {home}", feed.run)
        return feed

    async def _stop_idle_feeds(self) -> None:
        now_s = trio.current_time()
        for home, feed in [*self._feeds.items()]:
            if not feed.is_idle:
                self._idle_since_s.pop(home, None)
            elif now_s - self._idle_since_s.setdefault(home, now_s) >= IDLE_FEED_S:
                del self._feeds[home], self._idle_since_s[home]
                assert self._services is not None
                await self._services.stop(f"feed {home}")

    def _review_feeds(self) -> None:
        """Let every feed probe through a channel that lives on its server, and speak of channels as all do now."""
        for home, feed in self._feeds.items():
            feed.speak(sharded=self._servers.sharded)
            feed.probe_on(self._probe_channel_of(home, feed.probe_channel))

    def _probe_channel_of(self, home: str, present: str | None = None) -> str | None:
        """Return a channel that lives on this server, the present one where it may still do so; None: there is none."""
        numbered = (f"{self._probe_channel}:{{{number}}}" for number in range(PROBE_CHANNELS))
        first = self._probe_channel if present is None else present
        try:
            return next((name for name in chain([first], numbered) if self._servers.feed_home(name) == home), None)
        except BrokerUnavailable:
            return present


class _Answer:
    """What became of a channel that somebody waits for."""

    __slots__ = ("failure", "given", "waiting")

    def __init__(self) -> None:
        self.given = trio.Event()
        self.failure: BrokerUnavailable | None = None
        self.waiting = 0


def _unavailable(feed: ChannelFeed) -> BrokerUnavailable:
    return BrokerUnavailable(f"no messages from {feed.home}: {feed.away}")


def _unwanted(channel: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"{channel} was unsubscribed meanwhile")
