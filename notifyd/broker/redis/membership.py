"""This node among the others: its heartbeat, who is present on it, and what is left of nodes that died.

What should stand in Redis is kept here and made to stand there: at once while it can be reached, and again after it was
away or has lost its data.
"""

from dataclasses import dataclass
from math import inf
from typing import TypeAlias

import trio

from notifyd.broker.base import Receiver
from notifyd.broker.redis.nodes import HEARTBEAT_S, NODE_TTL_S, RedisNodes
from notifyd.broker.redis.parallel import for_each
from notifyd.broker.redis.presence import RedisPresence
from notifyd.broker.redis.revoked import RedisRevocations
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from notifyd.model import SessionId
from protocol.messages import Member

RETRY_S = 1.0
"""How soon it is tried again what could not be written."""

GRACE_S = 3.0
"""A session that went to another node has joined its topics there by then; to leave sooner would look like going."""

PRUNE_AFTER_S = 2 * NODE_TTL_S
"""A node does not judge others before it has been connected for so long: they may be on their way back, as it was."""

MemberPlace: TypeAlias = tuple[str, str]
"""A topic, and a session in it."""


@dataclass(slots=True)
class Wish:
    """What should stand in Redis about a session in a topic, from `due_s` on."""

    member: Member
    announce: bool
    present: bool
    due_s: float = 0.0


class Membership:
    """The members of this node and the nodes of the cluster. `run` is a service."""

    def __init__(
        self,
        nodes: RedisNodes,
        presence: RedisPresence,
        revocations: RedisRevocations,
        receiver: Receiver,
        events: Events,
    ) -> None:
        self._nodes = nodes
        self._presence = presence
        self._revocations = revocations
        self._receiver = receiver
        self._events = events
        self._here: dict[MemberPlace, Wish] = {}
        self._pending: dict[MemberPlace, Wish] = {}
        self._given_up: dict[SessionId, float] = {}
        self._connected_since_s = inf
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._here) + len(self._pending)

    # --- presence ----------------------------------------------------------------------------------------------------

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as present. Never raises; what cannot be written now is written later."""
        place = (topic, member.session)
        self._here[place] = wish = Wish(member, announce, present=True)
        await self._fulfil_now(place, wish)

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as gone, likewise; one that another node has taken over, a little later."""
        place = (topic, member.session)
        self._here.pop(place, None)
        wish = Wish(member, announce, present=False)
        if member.session in self._given_up:
            wish.due_s = trio.current_time() + GRACE_S
            self._pending[place] = wish
            self._wake.set()
            await trio.lowlevel.checkpoint()
        else:
            await self._fulfil_now(place, wish)

    def give_up(self, session: SessionId) -> None:
        """Take note that another node has a session now."""
        self._given_up[session] = trio.current_time() + 2 * GRACE_S

    async def members(self, topic: str) -> list[Member]:
        """Tell who is present on nodes that live. Raises BrokerUnavailable."""
        return await self._presence.members(topic, await self._nodes.alive() | {self._nodes.node})

    async def others(self) -> list[str]:
        """Tell the other nodes that live. Raises BrokerUnavailable."""
        return sorted(await self._nodes.alive() - {self._nodes.node})

    async def _fulfil_now(self, place: MemberPlace, wish: Wish) -> None:
        self._pending[place] = wish
        try:
            await self._fulfil(place)
        except BrokerUnavailable:
            self._wake.set()
        except trio.Cancelled:
            self._wake.set()
            raise

    async def _fulfil(self, place: MemberPlace) -> None:
        """Write what is wished of a place, unless somebody wished otherwise meanwhile."""
        wish = self._pending.get(place)
        if wish is None:
            return
        write = self._presence.join if wish.present else self._presence.leave
        await write(place[0], wish.member, announce=wish.announce)
        if self._pending.get(place) is wish:
            del self._pending[place]

    # --- the cluster -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat, catch up with what could not be written, and clear up after dead nodes, until cancelled."""
        task_status.started()
        beat_s = -inf
        while True:
            self._wake = trio.Event()
            try:
                if trio.current_time() >= beat_s + HEARTBEAT_S:
                    await self._beat()
                    beat_s = trio.current_time()
                await self._fulfil_due()
            except BrokerUnavailable:
                self._connected_since_s, beat_s = inf, -inf
                await trio.sleep(RETRY_S)
                continue
            with trio.move_on_at(min(self._due_s(), beat_s + HEARTBEAT_S)):
                await self._wake.wait()

    async def say_goodbye(self) -> None:
        """Leave the cluster. Raises BrokerUnavailable."""
        await self._nodes.leave()

    async def _beat(self) -> None:
        """Say that this node lives. When the store did not know it, all that should stand there is written again."""
        beat = await self._nodes.heartbeat()
        now_s = trio.current_time()
        if self._connected_since_s == inf or not beat.known:
            self._connected_since_s = now_s
            self._pending = self._here | self._pending
            for revocation in await self._revocations.all():
                self._receiver.revoke_here(revocation)
        if now_s - self._connected_since_s >= PRUNE_AFTER_S:
            for node in beat.expired:
                await self._bury(node)
        self._given_up = {session: until_s for session, until_s in self._given_up.items() if until_s > now_s}

    async def _bury(self, node: str) -> None:
        """Remove a dead node's members, then the node; several nodes may do so at once, each part is done by one."""
        if await self._presence.prune(node) and await self._nodes.remove(node):
            self._events.log("warning", "node_gone", gone=node)

    async def _fulfil_due(self) -> None:
        now_s = trio.current_time()
        await for_each(self._fulfil, [place for place, wish in self._pending.items() if wish.due_s <= now_s])

    def _due_s(self) -> float:
        return min((wish.due_s for wish in self._pending.values()), default=inf)
