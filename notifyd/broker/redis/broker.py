"""The broker that all nodes of a cluster share, over Redis: everything `notifyd.broker.base.Broker` promises.

A message comes in by `publish`, is appended, numbered and sent out by one script in Redis (`history`), arrives on every
node that subscribed (`subscriber`), is put in order (`ordering`) and handed to the hub. Promises: spec/delivery.md.
"""

import itertools
import secrets
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import trio

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import (
    Accepted,
    ConfigurationVersion,
    Page,
    Receiver,
    Retention,
    Scope,
    Services,
    SessionRecord,
)
from notifyd.broker.memory.keys import KEY_TTL_S, Keys, key_name
from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.configurations import TOLD, RedisConfigurations
from notifyd.broker.redis.control import Control
from notifyd.broker.redis.envelope import CHANGE, Arrived, read_change, read_message
from notifyd.broker.redis.history import RedisHistory
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.membership import Membership
from notifyd.broker.redis.nodes import RedisNodes
from notifyd.broker.redis.ordering import Ordering
from notifyd.broker.redis.presence import RedisPresence
from notifyd.broker.redis.revoked import RedisRevocations
from notifyd.broker.redis.session_transfer import SessionTransfer
from notifyd.broker.redis.sessions import RedisSessions
from notifyd.broker.redis.subscriber import ChannelSubscriber
from notifyd.broker.redis.target import parse_target
from notifyd.broker.redis.topology import servers_for
from notifyd.broker.redis.topology.base import Servers
from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable, ConfigurationError
from notifyd.events import Events
from notifyd.model import Notification, SessionId
from notifyd.settings import BrokerSettings
from protocol.messages import Member, Since
from protocol.position import Position

FIRST_CONNECT_S = 2.0
"""How long a node that starts waits for Redis before it serves without it."""

READY_POLL_S = 0.01

LOCAL_KEYS = 100_000
"""Idempotency keys of messages that only this node's clients got, known at once."""


UNDER_WAY = 10_000
"""Messages of this node's own whose way to Redis and back is timed at once: one that never comes back is forgotten."""


class RedisBroker:
    """A `notifyd.broker.base.Broker` shared by all nodes with the same Redis and prefix.

    While Redis is away what needs it raises BrokerUnavailable, at once where that is known already. Raises
    ConfigurationError where `settings.url` cannot be used.
    """

    is_shared = True

    def __init__(
        self,
        receiver: Receiver,
        settings: BrokerSettings,
        *,
        node: str,
        clock: Clock,
        events: Events,
        servers: Servers | None = None,
        key_ttl_s: float = KEY_TTL_S,
    ) -> None:
        self.node = f"{node}:{secrets.token_hex(4)}"
        self._receiver = receiver
        self._clock = clock
        self._events = events
        self._names = names = Names(settings.prefix)
        self._servers = servers = servers or open_servers(settings, node, events)
        self._history = RedisHistory(servers, names, self.node, key_ttl_s=key_ttl_s, replicas=settings.replicas)
        self._ordering = Ordering(receiver, self._history.read, self._history.renew, events)
        self._subscriber = ChannelSubscriber(
            servers,
            deadline_s=settings.timeout_s,
            probe_channel=f"{names.control_of(self.node)}:probe",
            on_messages=self._take,
            on_restored=self._recheck,
            events=events,
        )
        self._control = Control(self._subscriber, servers, names, self.node, events=events)
        self._revocations = RedisRevocations(servers, names)
        self._configurations = RedisConfigurations(servers, names, self.node, receiver, events)
        sessions = RedisSessions(servers, names, self.node)
        self._membership = Membership(
            RedisNodes(servers, names, self.node),
            RedisPresence(servers, names, self.node, claim_of=sessions.claim),
            self._revocations,
            receiver,
            events,
        )
        self._sessions = SessionTransfer(sessions, self._control, self._membership, receiver)
        servers.on_up(self._reach_again)
        self._sequence = itertools.count(1)
        self._local_keys = Keys(LOCAL_KEYS)
        self._control.handlers["revoke"] = self._revoke_here
        self._control.handlers[TOLD] = self._missed_configuration
        self._control.handlers["watched"] = self._watched_elsewhere
        self._topics: dict[str, str] = {}
        self._received_s: dict[int, float] = {}

    # --- its life ----------------------------------------------------------------------------------------------------

    async def start(self, services: Services) -> None:
        """Connect, as services. Returns once Redis answers, or after a moment without it."""
        await self._servers.start(services)
        await self._subscriber.start(services)
        await self._control.start(services)
        await services.start("ordering", self._ordering.run)
        await services.start("membership", self._membership.run)
        await services.start("configuration", self._configurations.run)
        with trio.move_on_after(FIRST_CONNECT_S):
            while not self._is_ready:  # noqa: ASYNC110 - the states of several parts
                await trio.sleep(READY_POLL_S)

    @property
    def _is_ready(self) -> bool:
        is_informed = self._membership.is_informed and self._configurations.is_informed
        return is_informed and not self._servers.problems() and not self._subscriber.problems()

    async def close(self) -> None:
        """Leave the cluster, if Redis can be told; see Broker."""
        try:
            await self._membership.say_goodbye()
        except BrokerUnavailable as failure:
            self._events.log("info", "goodbye_not_said", error=str(failure))

    async def problems(self) -> list[str]:
        """Tell what is away; asks Redis where nothing is known to be."""
        problems = self._servers.problems() + self._subscriber.problems()
        if not problems:
            try:
                await client_at(self._servers, self._names.nodes()).exists(self._names.nodes())
                problems = [] if self._membership.problem is None else [self._membership.problem]
            except BrokerUnavailable as failure:
                problems = [str(failure)]
        return [f"the broker: {problem}" for problem in problems]

    # --- messages ----------------------------------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        data: Any,
        retention: Retention,
        *,
        key: str | None = None,
        sender: str | None = None,
        origin: SessionId | None = None,
        trace: str | None = None,
    ) -> Accepted:
        """Accept a message; see Broker. Without history, one that Redis cannot be given reaches this node's clients."""
        sequence = next(self._sequence)
        local = None if key is None or retention.history else key_name(topic, key)
        if local is not None and self._local_keys.knows(local, self._clock.monotonic_s()):
            return Accepted(None, scope="node", repeated=True)
        self._note_received(topic, sequence)
        try:
            accepted = await self._history.publish(
                topic, data, retention, key=key, sender=sender, origin=origin, trace=trace, sequence=sequence
            )
            if accepted.repeated:
                self._received_s.pop(sequence, None)  # nothing comes back
            return accepted
        except BrokerUnavailable:
            if retention.history:
                raise
        received_s = self._received_s.pop(sequence, None)
        if local is not None:
            now_s = self._clock.monotonic_s()
            if self._local_keys.knows(local, now_s):  # another one with this key was under way at the same time
                self._ordering.leave_out(self.node, sequence)
                return Accepted(None, scope="node", repeated=True)
            if len(self._local_keys) < LOCAL_KEYS:
                self._local_keys.remember(local, None, now_s)
        notification = Notification(topic, data, self._clock.unix_ms(), None, sender, origin, trace, received_s)
        self._ordering.deliver_here(notification, self.node, sequence)
        return Accepted(None, scope="node")

    async def subscribe(self, topic: str, retention: Retention) -> Scope:
        """Want a topic's messages; see Broker."""
        channel = self._names.channel(topic)
        self._topics[channel] = topic
        self._ordering.follow(topic, retention)
        try:
            await self._subscriber.subscribe(channel)
        except BrokerUnavailable:
            if retention.history:
                raise
            return "node"
        return None

    async def unsubscribe(self, topic: str) -> None:
        """Want them no longer; see Broker."""
        channel = self._names.channel(topic)
        self._ordering.forget(topic)
        self._topics.pop(channel, None)
        await self._subscriber.unsubscribe(channel)

    async def history(self, topic: str, since: Since, limit: int, retention: Retention) -> Page:
        """Read what is kept; see Broker."""
        page = await self._history.read(topic, since, limit, retention)
        self._ordering.note_top(topic, page.top)
        return page

    async def topics(self) -> dict[str, Position | None]:
        """Tell the topics that this node subscribes to, and all that have positions."""
        known: dict[str, Position | None] = dict.fromkeys(self._topics.values())
        known.update(await self._history.topics())
        return known

    def _take(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Read what arrived together: messages are put in order together, changes of presence go out as they are."""
        arrivals: list[Arrived] = []
        topics = self._topics
        for channel, payload in messages:
            topic = topics.get(channel)
            if topic is None:
                self._control.take(channel, payload)
                continue
            try:
                if payload[:1] == CHANGE:
                    self._receiver.announce(read_change(topic, payload))
                else:
                    arrivals.append(self._with_received(read_message(topic, payload)))
            except ValueError as error:
                self._events.count("malformed_arrivals")
                self._events.log("warning", "malformed_arrival", error=str(error))
        self._ordering.take(arrivals)

    def _note_received(self, topic: str, sequence: int) -> None:
        """Keep, by this node's own clock, when a message came that will come back here: its latency is told by that."""
        if self._names.channel(topic) in self._topics:
            if len(self._received_s) >= UNDER_WAY:
                del self._received_s[next(iter(self._received_s))]
            self._received_s[sequence] = self._clock.monotonic_s()

    def _with_received(self, arrived: Arrived) -> Arrived:
        received_s = self._received_s.pop(arrived.sequence, None) if arrived.node == self.node else None
        if received_s is None:
            return arrived
        notification = msgspec.structs.replace(arrived.notification, received_s=received_s)
        return Arrived(notification, arrived.node, arrived.sequence)

    def _reach_again(self) -> None:
        """Commands reach a server again, perhaps another one: what was read meanwhile, or stands there, may be old."""
        self._ordering.recheck([*self._topics.values()])
        self._membership.missed()
        self._configurations.missed()

    def _recheck(self, channels: Sequence[str]) -> None:
        if self._names.control() in channels:
            self._membership.missed()
            self._configurations.missed()
            self._receiver.missed_takeovers()
        self._ordering.recheck(topic for channel in channels if (topic := self._topics.get(channel)) is not None)

    # --- presence ----------------------------------------------------------------------------------------------------

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as present; see Broker."""
        await self._membership.join(topic, member, announce=announce)

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as gone; see Broker."""
        await self._membership.leave(topic, member, announce=announce)

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is present on any node that lives."""
        return await self._membership.members(topic)

    # --- sessions, and what concerns all nodes -----------------------------------------------------------------------

    async def load_session(self, session: SessionId, user: str) -> SessionRecord | None:
        """Take a session over, from the node that has it or from the store; see Broker."""
        return await self._sessions.load(session, user)

    async def save_session(self, record: SessionRecord, ttl_s: float) -> bool:
        """Keep a session; see Broker."""
        return await self._sessions.save(record, ttl_s)

    async def end_session(self, session: SessionId) -> bool:
        """Disconnect a session on whichever node it lives; see Broker."""
        return await self._sessions.end(session)

    async def revoke(self, revocation: Revocation) -> None:
        """Refuse tokens on all nodes, later ones included; see Broker."""
        self._receiver.revoke_here(revocation)
        await self._revocations.add(revocation)
        await self._control.tell(None, {"op": "revoke", "revocation": msgspec.to_builtins(revocation)})

    async def tell_watched(self, topics: Collection[str]) -> None:
        """Tell every other node what this one's clients watch; see Broker."""
        await self._control.tell(None, {"op": "watched", "topics": sorted(topics)})

    def _watched_elsewhere(self, message: dict[str, Any]) -> None:
        self._receiver.watched_elsewhere(msgspec.convert(message["topics"], list[str]))

    def _revoke_here(self, message: dict[str, Any]) -> None:
        self._receiver.revoke_here(msgspec.convert(message["revocation"], Revocation))

    def _missed_configuration(self, _told: dict[str, Any]) -> None:
        self._configurations.missed()

    async def configurations(self, limit: int) -> list[ConfigurationVersion]:
        """Tell the newest versions of the configuration; see Broker."""
        return await self._configurations.newest(limit)

    async def configure(self, version: ConfigurationVersion) -> bool:
        """Let a version hold on all nodes, later ones included; see Broker."""
        return await self._configurations.add(version)


def open_servers(settings: BrokerSettings, node: str, events: Events) -> Servers:
    """Make the servers that `settings` name. Raises ConfigurationError where they cannot be."""
    try:
        target = parse_target(settings.url.reveal())
        return servers_for(target, deadline_s=settings.timeout_s, name=f"notifyd:{node}", events=events)
    except ValueError as error:
        raise ConfigurationError("configuration", "broker.url", str(error).removeprefix("broker.url: ")) from None
