"""One pub/sub connection to one server: what is subscribed there is kept equal to what is wanted there.

One task asks the server, so that commands about one channel never overlap; what others want meanwhile waits in the
books (`channels.py`) and goes out together. Another task sees that the way from a publish to here is open.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol
from uuid import uuid4

import trio
from redis.crc import key_slot
from redis.exceptions import AskError, RedisError

from notifyd.broker.redis.channels import Channels
from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.link import Link
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable, first_of
from notifyd.events import Events
from protocol.backoff import Backoff

BATCH_CHANNELS = 500
"""Channels asked for at once: some 50 KB of command and of confirmations, a few milliseconds of both sides' time."""

PROBE_AFTER_S = 3.0
"""Silence after which the way from a publish to this feed is tried, in seconds."""

ASK_AGAIN_CAP_S = 2.0
"""The longest pause before a server is asked again for what it refused, in seconds. The first is 0.1 s."""

ChannelMessage = tuple[str, bytes]
"""A channel and what was published on it."""


class FeedOwner(Protocol):
    """Whom a feed tells. All of it is synchronous and never raises."""

    names: dict[bytes, str]
    """The wanted channels by their bytes; messages on others are dropped."""

    def on_messages(self, messages: Sequence[ChannelMessage]) -> None:
        """Take what arrived together, in order."""

    def confirmed(self, feed: "ChannelFeed", channels: Sequence[str]) -> None:
        """Take note that the server subscribed these channels."""

    def refused(self, feed: "ChannelFeed", channels: Sequence[str], failure: BrokerUnavailable) -> None:
        """Take note that the server did not; it is asked again."""

    def moved(self, feed: "ChannelFeed", channels: Sequence[str]) -> None:
        """Take note that these channels live on another server by now."""

    def lost(self, feed: "ChannelFeed") -> None:
        """Take note that the connection is gone; it is made again."""


class ChannelFeed:
    """The channels of one server. `run` is a service: one connection, from dialling it to its loss.

    `away` says why nothing can be subscribed now: None while it can, and before the first attempt has failed.
    `refusal` is the last refusal since everything wanted was confirmed.
    """

    def __init__(self, home: str, servers: Servers, owner: FeedOwner, *, deadline_s: float, events: Events) -> None:
        self.home = home
        self.channels = Channels()
        self.away: str | None = None
        self.refusal: str | None = None
        self.probe_channel: str | None = None
        self._servers = servers
        self._owner = owner
        self._deadline_s = deadline_s
        self._events = events
        self._link: Link = servers.open_feed(home, self._take)
        self._is_sharded = servers.sharded
        self._message = b"message"
        self._wake = trio.Event()
        self._backoff = Backoff(cap_s=ASK_AGAIN_CAP_S, spread=0.5)
        self._retry_at_s = inf
        self._heard_at_s = -inf
        self._heard: trio.Event | None = None

    def want(self, channel: str) -> None:
        """Subscribe a channel as soon as possible, and keep it subscribed."""
        self.channels.want(channel)
        self._wake.set()

    def unwant(self, channel: str) -> None:
        """Unsubscribe a channel as soon as possible."""
        self.channels.unwant(channel)
        self._wake.set()

    def probe_on(self, channel: str | None) -> None:
        """Probe through this channel, which lives on this server; None: there is none now."""
        if channel != self.probe_channel:
            if self.probe_channel is not None:
                self.unwant(self.probe_channel)
            if channel is not None:
                self.want(channel)
            self.probe_channel = channel

    def speak(self, *, sharded: bool) -> None:
        """Subscribe channels of shards, or plain ones: as everybody publishes now."""
        if sharded != self._is_sharded:
            self._is_sharded = sharded
            self._link.drop(f"channels are {'' if sharded else 'not '}those of shards now")

    def problem(self) -> str:
        """Tell what is wrong here; "" when nothing is."""
        if not self.is_up:
            return f"no messages from {self.home}: {self.away or 'connecting'}"
        return self.refusal or ""

    @property
    def is_up(self) -> bool:
        """Whether the connection is well, as far as is known."""
        return self._link.is_up

    @property
    def is_idle(self) -> bool:
        """Whether nothing is wanted of this server."""
        return len(self.channels.wanted) == (self.probe_channel is not None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, subscribe what is wanted and serve; raises LinkLost. Serves once all has been asked for."""
        why = "was stopped"
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._link.run)
                self.away = None
                self._message = b"smessage" if self._is_sharded else b"message"
                nursery.start_soon(self._probe)
                await self._reconcile(task_status)
        except* Exception as group:
            why = str(first_of(group))
            raise
        finally:
            self.away = why
            self.channels.lose()
            self._owner.lost(self)

    # --- what the server sends ---------------------------------------------------------------------------------------

    def _take(self, pushes: list[list[Any]]) -> None:
        """Hand over the messages of one read. The hot path: one comparison, one look-up and one pair a message."""
        names, message = self._owner.names, self._message
        messages = [(name, push[2]) for push in pushes if push[0] == message and (name := names.get(push[1]))]
        if messages:
            self._hear()
            self._owner.on_messages(messages)
        if len(messages) != len(pushes):
            self._take_rest(pushes)

    def _take_rest(self, pushes: list[list[Any]]) -> None:
        for kind, channel, *_ in pushes:
            if kind == self._message:
                self._hear()  # a probe, or what was on its way when nobody wanted it any more
            elif kind in {b"sunsubscribe", b"unsubscribe"} and channel is not None:
                self.channels.revoke(channel.decode())
                self._wake.set()

    def _hear(self) -> None:
        self._heard_at_s = trio.current_time()
        if self._heard is not None:
            self._heard.set()

    # --- asking the server -------------------------------------------------------------------------------------------

    async def _reconcile(self, task_status: trio.TaskStatus[None]) -> None:
        """Ask for what is missing, then to end what is too much, whenever there is some. Never returns."""
        while True:
            self._wake = trio.Event()
            while self.channels.has_work:
                await self._ask_all(self.channels.take_missing(BATCH_CHANNELS), self._subscribe)
                await self._ask_all(self.channels.take_surplus(BATCH_CHANNELS), self._unsubscribe)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            if not self.channels.has_put_off:
                self._retry_at_s, self.refusal = inf, None
                self._backoff.reset()
            with trio.move_on_at(self._retry_at_s):
                await self._wake.wait()
            if trio.current_time() >= self._retry_at_s:
                self._retry_at_s = inf
                self.channels.retry()

    async def _ask_all(self, batch: list[str], ask: Callable[[list[str]], Any]) -> None:
        """Ask about a batch: in one command, or where only channels of one slot go into one, in several at once."""
        if not self._is_sharded or len(batch) < 2:
            if batch:
                await ask(batch)
            return
        by_slot = defaultdict(list)
        for channel in batch:
            by_slot[key_slot(channel.encode())].append(channel)
        async with trio.open_nursery() as nursery:
            for channels in by_slot.values():
                nursery.start_soon(ask, channels)

    async def _subscribe(self, channels: list[str]) -> None:
        try:
            await self._link.subscribe("SSUBSCRIBE" if self._is_sharded else "SUBSCRIBE", channels)
        except BrokerUnavailable:
            self.channels.put_off(channels)
            self._retry_later()
        except AskError:  # MOVED too
            self.channels.refuse(channels)
            self._retry_later()
            self._owner.moved(self, channels)
        except RedisError as error:
            self._note_refusal(channels, f"{self.home} refuses to subscribe: {error}")
        else:
            self._owner.confirmed(self, self.channels.confirm(channels))

    async def _unsubscribe(self, channels: list[str]) -> None:
        try:
            await self._link.subscribe("SUNSUBSCRIBE" if self._is_sharded else "UNSUBSCRIBE", channels)
        except BrokerUnavailable:
            self.channels.put_off(channels)
            self._retry_later()
        except RedisError:
            self.channels.release(channels)  # it carries them no more: they have moved
        else:
            self.channels.release(channels)

    def _note_refusal(self, channels: list[str], reason: str) -> None:
        if self.refusal is None:
            self._events.log("warning", "subscribe_refused", server=self.home, error=reason)
        self.refusal = reason
        self.channels.refuse(channels)
        self._retry_later()
        self._owner.refused(self, channels, BrokerUnavailable(reason))

    def _retry_later(self) -> None:
        """Take up again what was put off, after a pause that grows with the refusals in a row."""
        if self._retry_at_s == inf:
            self._retry_at_s = trio.current_time() + self._backoff.next_delay_s()

    # --- the probe ---------------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Publish something to oneself when nothing was heard for a while; end a connection on which it does not come.

        A PING would not do: it is answered also by a server that nobody publishes to any more, or that has forgotten
        the subscriptions.
        """
        self._hear()
        while True:
            await trio.sleep_until(self._heard_at_s + PROBE_AFTER_S)
            if trio.current_time() < self._heard_at_s + PROBE_AFTER_S:
                continue
            if not await self._is_heard():
                self._link.drop(f"{self.home} published a probe, but it did not come within {self._deadline_s:g} s")
                return

    async def _is_heard(self) -> bool:
        """Publish a probe and wait for anything to arrive. True also where nothing could be published."""
        channel = self.probe_channel
        if channel is None or channel not in self.channels.confirmed:
            self._heard_at_s = trio.current_time()
            return True
        self._heard = trio.Event()
        try:
            client = client_at(self._servers, channel)
            publish = client.spublish if self._is_sharded else client.publish
            await publish(channel, uuid4().bytes)
            with trio.move_on_after(self._deadline_s):
                await self._heard.wait()
            return self._heard.is_set()
        except BrokerUnavailable:
            self._heard_at_s = trio.current_time()
            return True
        finally:
            self._heard = None
