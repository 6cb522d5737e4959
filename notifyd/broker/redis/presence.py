"""Who is present, in Redis: a hash of members for each topic, and for each node the set of topics in which it has some.

An entry says on which node the session lives, so that a session which moved is not taken out by the node it left.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import TypeAlias

import msgspec
from redis.typing import EncodableT

from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.envelope import pack_change
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.nodes import NODE_TTL_S
from notifyd.broker.redis.parallel import for_each
from notifyd.broker.redis.records import readable
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers
from protocol.messages import Joined, Left, Member

PRUNED_AT_ONCE = 100
"""Members of a dead node that one script removes: well below a millisecond."""


class MemberEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A member as lua/join.lua writes it.

    It joined at `since_ms` by its node's clock and at `serial` (us) by Redis's; its node last said so at `asserted_ms`.
    `claim` is when its node took the session over.
    """

    node: str
    session: str
    user: str
    since_ms: int
    serial: int
    asserted_ms: int
    announced: bool
    claim: int = 0


Departure: TypeAlias = tuple[str, bytes]
"""A session, and what announces that it is gone; nothing where nobody shall hear."""

_decode = msgspec.msgpack.Decoder(MemberEntry).decode


class RedisPresence:
    """The members of all topics; `node` is where those who join here live. Every method raises BrokerUnavailable.

    `node_ttl_s` is how long a node lives without a heartbeat; `claim_of` tells when this one took a session over.
    """

    def __init__(
        self,
        servers: Servers,
        names: Names,
        node: str,
        *,
        node_ttl_s: float = NODE_TTL_S,
        claim_of: Callable[[str], int] = lambda _session: 0,
    ) -> None:
        self._servers = servers
        self._names = names
        self._node = node
        self._node_ttl_ms = round(node_ttl_s * 1000)
        self._claim_of = claim_of
        self._here: dict[str, set[str]] = {}
        self._join = Script("join", preludes=("time",))
        self._leave = Script("leave", preludes=("time",))

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as present here. One that is already keeps its place; only one that was not is announced."""
        names = self._names
        self._here.setdefault(topic, set()).add(member.session)
        here = names.members(self._node)
        await client_at(self._servers, here).sadd(here, topic)
        joined = Joined(topic=topic, user=member.user, session=member.session)
        arguments: list[EncodableT] = [
            self._node,
            member.session,
            member.user,
            member.since,
            pack_change(joined) if announce else b"",
            names.channel(topic),
            self._verb,
            self._claim_of(member.session),
        ]
        await self._servers.evaluate(self._join, [names.presence(topic)], arguments)

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as gone, and announce it, unless it was not here: unknown, or on another node meanwhile."""
        self._here.get(topic, set()).discard(member.session)
        await self._remove(topic, self._node, [_departure(topic, member.user, member.session, announce=announce)])
        if not self._here.get(topic):
            # Who joins from now on adds the topic again, and is not overtaken by this.
            self._here.pop(topic, None)
            await self._forget(self._node, topic)

    async def members(self, topic: str, alive_nodes: Container[str]) -> list[Member]:
        """Tell who is present on these nodes, in the order they joined."""
        entries = [entry for entry in await self._entries(topic) if entry.node in alive_nodes]
        entries.sort(key=lambda entry: (entry.since_ms, entry.serial))
        return [Member(user=entry.user, session=entry.session, since=entry.since_ms) for entry in entries]

    async def here(self) -> list[tuple[str, Member, bool]]:
        """Tell who stands there as a member on this node: topic, member, and whether the topic is told of changes."""
        members = self._names.members(self._node)
        topics = [topic.decode() for topic in _bytes(await client_at(self._servers, members).smembers(members))]
        found = zip(topics, await for_each(self._entries, topics), strict=True)
        return [
            (topic, Member(user=entry.user, session=entry.session, since=entry.since_ms), entry.announced)
            for topic, entries in found
            for entry in entries
            if entry.node == self._node
        ]

    async def prune(self, node: str) -> bool:
        """Remove all members of a dead node and announce that they left.

        It may be called again, and by several nodes: each member is announced once. False when some are left: they
        joined so lately that the node must live, whatever it seemed.
        """
        members = self._names.members(node)
        topics = _bytes(await client_at(self._servers, members).smembers(members))
        is_done = True
        for topic in sorted(topic.decode(errors="replace") for topic in topics):
            if await self._prune_topic(topic, node):
                await self._forget(node, topic)
            else:
                is_done = False
        return is_done

    async def _prune_topic(self, topic: str, node: str) -> bool:
        entries = [entry for entry in await self._entries(topic) if entry.node == node]
        departures = [_departure(topic, entry.user, entry.session, announce=entry.announced) for entry in entries]
        for start in range(0, len(departures), PRUNED_AT_ONCE):
            batch = departures[start : start + PRUNED_AT_ONCE]
            await self._remove(topic, node, batch, age_ms=self._node_ttl_ms)
        return not entries or all(entry.node != node for entry in await self._entries(topic))

    # --- what is asked of the servers --------------------------------------------------------------------------------

    @property
    def _verb(self) -> str:
        return "SPUBLISH" if self._servers.sharded else "PUBLISH"

    async def _entries(self, topic: str) -> list[MemberEntry]:
        key = self._names.presence(topic)
        return list(readable(_decode, _bytes(await client_at(self._servers, key).hvals(key))))

    async def _remove(self, topic: str, node: str, departures: Sequence[Departure], *, age_ms: int = 0) -> None:
        arguments: list[EncodableT] = [node, age_ms, self._names.channel(topic), self._verb]
        for departure in departures:
            arguments.extend(departure)
        await self._servers.evaluate(self._leave, [self._names.presence(topic)], arguments)

    async def _forget(self, node: str, topic: str) -> None:
        members = self._names.members(node)
        await client_at(self._servers, members).srem(members, topic)


def _bytes(replies: Iterable[bytes | str]) -> list[bytes]:
    """Return replies as what they are here: redis-py's annotations allow for clients that decode."""
    return [reply for reply in replies if isinstance(reply, bytes)]


def _departure(topic: str, user: str, session: str, *, announce: bool) -> Departure:
    return session, pack_change(Left(topic=topic, user=user, session=session)) if announce else b""
