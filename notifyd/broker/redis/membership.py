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

PORTION = 64
"""Wishes that are written side by side."""

MemberPlace: TypeAlias = tuple[str, str]
"""A topic, and a session in it."""


@dataclass(slots=True)
class Wish:
    """What should stand in Redis about a session in a topic, to be written at `due_s`."""

    member: Member
    announce: bool
    present: bool
    due_s: float = 0.0


class Membership:
    """The members of this node and the nodes of the cluster. `run` is a service.

    `is_informed` says that all revocations in force are known here, `problem` why the last beat failed.
    """

    def __init__(
        self,
        nodes: RedisNodes,
        presence: RedisPresence,
        revocations: RedisRevocations,
        receiver: Receiver,
        events: Events,
    ) -> None:
        self.is_informed = False
        self.problem: str | None = None
        self._nodes = nodes
        self._presence = presence
        self._revocations = revocations
        self._receiver = receiver
        self._events = events
        self._here: dict[MemberPlace, Wish] = {}
        self._pending: dict[MemberPlace, Wish] = {}
        self._writing: dict[MemberPlace, trio.Event] = {}
        self._given_up: dict[SessionId, float] = {}
        self._connected_since_s = inf
        self._hurry = trio.Event()
        self._work = trio.Event()

    def __len__(self) -> int:
        return len(self._here) + len(self._pending)

    # --- presence ----------------------------------------------------------------------------------------------------

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as present. Never raises; what cannot be written now is written later."""
        place = (topic, member.session)
        self._here[place] = self._pending[place] = Wish(member, announce, present=True)
        await self._fulfil(place)

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as gone, likewise; one that another node has taken over, a little later."""
        place = (topic, member.session)
        self._here.pop(place, None)
        self._pending[place] = wish = Wish(member, announce, present=False)
        if member.session in self._given_up:
            wish.due_s = trio.current_time() + GRACE_S
            self._work.set()
            await trio.lowlevel.checkpoint()
        else:
            await self._fulfil(place)

    def give_up(self, session: SessionId) -> None:
        """Take note that another node has a session now."""
        self._given_up[session] = trio.current_time() + 2 * GRACE_S

    def take_back(self, session: SessionId) -> None:
        """Take note that a session is this node's again."""
        self._given_up.pop(session, None)

    async def members(self, topic: str) -> list[Member]:
        """Tell who is present on nodes that live. Raises BrokerUnavailable."""
        return await self._presence.members(topic, await self._nodes.alive() | {self._nodes.node})

    async def others(self) -> list[str]:
        """Tell the other nodes that live. Raises BrokerUnavailable."""
        return sorted(await self._nodes.alive() - {self._nodes.node})

    async def _fulfil(self, place: MemberPlace) -> bool:
        """Write what is wished of a place, when nobody else is at it; False when it has to be tried again.

        One wish about a place is written at a time: a slow join must not overtake the leave behind it.
        """
        try:
            while place in self._writing:
                await self._writing[place].wait()
            wish = self._pending.get(place)
            if wish is not None and wish.due_s <= trio.current_time():
                await self._write(place, wish)
        except BrokerUnavailable:
            return False
        finally:
            if place in self._pending:
                self._work.set()
        return True

    async def _write(self, place: MemberPlace, wish: Wish) -> None:
        written = self._writing[place] = trio.Event()
        write = self._presence.join if wish.present else self._presence.leave
        try:
            await write(place[0], wish.member, announce=wish.announce)
            if self._pending[place] is wish:
                del self._pending[place]
        except BrokerUnavailable:
            wish.due_s = trio.current_time() + RETRY_S
            raise
        finally:
            del self._writing[place]
            written.set()

    # --- the cluster -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat, catch up with what could not be written, and clear up after dead nodes, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat_forever)
            nursery.start_soon(self._fulfil_forever)
            task_status.started()

    def missed(self) -> None:
        """Take note that this node and the store may know different things: what stands there is compared."""
        self.is_informed = False
        self._hurry.set()

    async def say_goodbye(self) -> None:
        """Leave the cluster; with members left, by beating no more: others clear up. Raises BrokerUnavailable."""
        if not self._pending and not self._here:
            await self._nodes.leave()

    async def _beat_forever(self) -> None:
        while True:
            self._hurry = trio.Event()
            pause_s = HEARTBEAT_S
            try:
                await self._beat()
                self.problem = None
            except BrokerUnavailable as failure:
                self.problem = str(failure)
                pause_s = RETRY_S
            with trio.move_on_after(pause_s):
                await self._hurry.wait()

    async def _beat(self) -> None:
        """Say that this node lives. When the store did not know it, all that should stand there is written again."""
        try:
            beat = await self._nodes.heartbeat()
        except BrokerUnavailable:
            self._connected_since_s = inf
            raise
        now_s = trio.current_time()
        if self._connected_since_s == inf or not beat.known:
            self._connected_since_s = now_s
            self.is_informed = False
        if not self.is_informed:
            await self._make_good()
        if now_s - self._connected_since_s >= PRUNE_AFTER_S:
            for node in beat.expired:
                await self._bury(node)
        self._given_up = {session: until_s for session, until_s in self._given_up.items() if until_s > now_s}

    async def _make_good(self) -> None:
        """Put right what this node and the store may know differently: revocations, and who is present here."""
        self.is_informed = True
        try:
            for revocation in await self._revocations.all():
                self._receiver.revoke_here(revocation)
            for place, wish in self._here.items():
                self._pending.setdefault(place, wish)
            await self._find_ghosts()
        except BaseException:
            self.is_informed = False
            raise
        finally:
            self._work.set()

    async def _find_ghosts(self) -> None:
        """Find members that left this node though the store has them: a server that was promoted may not know."""
        for topic, member, announce in await self._presence.here():
            place = (topic, member.session)
            if place not in self._here and place not in self._pending:
                self._pending[place] = Wish(member, announce, present=False)

    async def _bury(self, node: str) -> None:
        """Remove a dead node's members, then the node; several nodes may do so at once, each part is done by one."""
        try:
            if await self._presence.prune(node) and await self._nodes.remove(node):
                self._events.log("warning", "node_gone", gone=node)
        except BrokerUnavailable as failure:
            self._events.log("info", "node_not_cleared", gone=node, error=str(failure))

    async def _fulfil_forever(self) -> None:
        """Write what is due, in portions. While nothing of a portion can be written, wait."""
        while True:
            self._work = trio.Event()
            now_s = trio.current_time()
            waiting = [each for each in self._pending.items() if each[0] not in self._writing]
            due = [place for place, wish in waiting if wish.due_s <= now_s][:PORTION]
            if not due:
                with trio.move_on_at(min((wish.due_s for _, wish in waiting), default=inf)):
                    await self._work.wait()
            elif not any(await for_each(self._fulfil, due)):
                await trio.sleep(RETRY_S)
