"""A broker whose every answer a test can delay, fail or hold back: what a Redis far away does to a node.

    broker.pause("history")             # every call waits at its beginning ...
    await broker.waiting("history")     # ... and a test waits until one does
    broker.resume("history")
    broker.fail("publish", BrokerUnavailable("away"))  # the next call raises it; `times=None`: every call, until `heal`
    broker.hold_deliveries()            # published messages are in the history, their deliveries come later:
    broker.deliver_held(1)              # ... one by one

A delayed call takes effect when it goes on; of `pause("history answer")` the effect is at once, and its answer late.
Presence takes effect at once always. With `is_far` every call is a checkpoint before its effect and another after it.
`calls` has every call, `wanted` the topics subscribed at the broker now; `scope` is what `subscribe` answers, and
`lost_sessions` are those that another node has taken over.
"""

from collections.abc import Collection, Sequence
from typing import Any

import trio

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import (
    Accepted,
    ConfigurationVersion,
    Loss,
    Page,
    Receiver,
    Retention,
    Scope,
    Services,
    SessionRecord,
)
from notifyd.broker.memory import MemoryBroker
from notifyd.clock import Clock
from notifyd.model import Notification, SessionId
from protocol.messages import Joined, Left, Member, Since
from protocol.position import Position


class ScriptedBroker:
    """Implements `notifyd.broker.base.Broker` by a MemoryBroker behind gates."""

    def __init__(self, receiver: Receiver, *, clock: Clock) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.wanted: set[str] = set()
        self.held: list[Notification] | None = None
        self.is_far = False
        self.is_shared = False
        self.scope: Scope = None
        self.lost_sessions: set[SessionId] = set()
        self.receiver = receiver
        self._broker = MemoryBroker(self, clock=clock)
        self._gates: dict[str, trio.Event] = {}
        self._failures: dict[str, tuple[Exception, int | None]] = {}
        self._waiting: dict[str, int] = {}
        self._arrivals = trio.lowlevel.ParkingLot()

    # --- the script ---------------------------------------------------------------------------------------------------

    def pause(self, *names: str) -> None:
        """Let calls of these methods wait."""
        for name in names:
            self._gates.setdefault(name, trio.Event())

    def resume(self, *names: str) -> None:
        """Let those that wait go on, and later ones pass."""
        for name in names:
            gate = self._gates.pop(name, None)
            if gate is not None:
                gate.set()

    async def waiting(self, name: str) -> None:
        """Wait until a call of this method waits."""
        while not self._waiting.get(name):
            await self._arrivals.park()

    def fail(self, name: str, failure: Exception, times: int | None = 1) -> None:
        """Let the next calls raise, after their wait; None: all."""
        self._failures[name] = (failure, times)

    def heal(self, *names: str) -> None:
        """Take back `fail`."""
        for name in names:
            self._failures.pop(name, None)

    def hold_deliveries(self) -> None:
        """Keep what is published from now on from the fan-out; the history has it at once."""
        self.held = self.held or []

    def deliver_held(self, count: int | None = None) -> None:
        """Deliver the oldest held messages; None: all, and hold none any more."""
        held = self.held or []
        taken, self.held = (held, None) if count is None else (held[:count], held[count:])
        for notification in taken:
            if notification.topic in self.wanted:
                self.receiver.deliver((notification,))

    async def _meet(self, name: str, about: Any) -> None:
        self.calls.append((name, about))
        await self._travel()
        await self._wait(name)
        failure, times = self._failures.get(name, (None, None))
        if failure is not None:
            if times is not None:
                self._failures[name] = (failure, times - 1)
                if times == 1:
                    del self._failures[name]
            raise failure

    async def _travel(self) -> None:
        if self.is_far:
            await trio.lowlevel.checkpoint()

    async def _wait(self, name: str) -> None:
        gate = self._gates.get(name)
        if gate is not None:
            self._waiting[name] = self._waiting.get(name, 0) + 1
            self._arrivals.unpark_all()
            try:
                await gate.wait()
            finally:
                self._waiting[name] -= 1

    def called(self, name: str) -> list[Any]:
        """What a method was asked about, call by call."""
        return [about for known, about in self.calls if known == name]

    # --- Receiver of the broker behind the gates ----------------------------------------------------------------------

    def deliver(self, batch: Sequence[Notification]) -> None:
        if self.held is None:
            self.receiver.deliver(batch)
        else:
            self.held.extend(batch)

    def lose(self, loss: Loss) -> None:
        self.receiver.lose(loss)

    def announce(self, change: Joined | Left) -> None:
        self.receiver.announce(change)

    def take_over(self, session: SessionId) -> SessionRecord | None:
        return self.receiver.take_over(session)

    def missed_takeovers(self) -> None:
        self.receiver.missed_takeovers()

    def watched_elsewhere(self, topics: Collection[str]) -> None:
        self.receiver.watched_elsewhere(topics)

    def revoke_here(self, revocation: Revocation) -> None:
        self.receiver.revoke_here(revocation)

    def configure_here(self, newest: ConfigurationVersion) -> None:
        self.receiver.configure_here(newest)

    # --- Broker -------------------------------------------------------------------------------------------------------

    async def start(self, services: Services) -> None:
        await self._broker.start(services)

    async def close(self) -> None:
        await self._broker.close()

    async def problems(self) -> list[str]:
        return await self._broker.problems()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self._broker.run(task_status=task_status)

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
        await self._meet("publish", topic)
        published = await self._broker.publish(
            topic, data, retention, key=key, sender=sender, origin=origin, trace=trace
        )
        await self._travel()
        return published

    async def subscribe(self, topic: str, retention: Retention) -> Scope:
        await self._meet("subscribe", topic)
        scope = await self._broker.subscribe(topic, retention)
        self.wanted.add(topic)
        await self._travel()
        await self._wait("subscribe answer")
        return self.scope or scope

    async def unsubscribe(self, topic: str) -> None:
        await self._meet("unsubscribe", topic)
        await self._broker.unsubscribe(topic)
        self.wanted.discard(topic)
        await self._travel()

    async def history(self, topic: str, since: Since, limit: int, retention: Retention) -> Page:
        await self._meet("history", topic)
        page = await self._broker.history(topic, since, limit, retention)
        await self._travel()
        await self._wait("history answer")
        return page

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        await self._broker.join(topic, member, announce=announce)  # it never fails: what is late is made up for
        await self._meet("join", topic)
        await self._travel()

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        await self._broker.leave(topic, member, announce=announce)
        await self._meet("leave", topic)
        await self._travel()

    async def presence(self, topic: str) -> list[Member]:
        await self._meet("presence", topic)
        return await self._broker.presence(topic)

    async def topics(self) -> dict[str, Position | None]:
        await self._meet("topics", None)
        return await self._broker.topics()

    async def load_session(self, session: SessionId, user: str) -> SessionRecord | None:
        await self._meet("load_session", session)
        record = await self._broker.load_session(session, user)
        await self._travel()
        return record

    async def save_session(self, record: SessionRecord, ttl_s: float) -> bool:
        await self._meet("save_session", record.session)
        ours = record.session not in self.lost_sessions and await self._broker.save_session(record, ttl_s)
        await self._travel()
        return ours

    async def end_session(self, session: SessionId) -> bool:
        await self._meet("end_session", session)
        return await self._broker.end_session(session)

    async def tell_watched(self, topics: Collection[str]) -> None:
        await self._meet("tell_watched", frozenset(topics))
        await self._broker.tell_watched(topics)

    async def revoke(self, revocation: Revocation) -> None:
        await self._meet("revoke", revocation)
        await self._broker.revoke(revocation)

    async def configurations(self, limit: int) -> list[ConfigurationVersion]:
        await self._meet("configurations", limit)
        return await self._broker.configurations(limit)

    async def configure(self, version: ConfigurationVersion) -> bool:
        await self._meet("configure", version)
        return await self._broker.configure(version)
