"""The embedded broker: everything in this process's memory, gone with it, and no set-up."""

from collections import deque
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import trio

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import (
    VERSIONS_KEPT,
    Accepted,
    ConfigurationVersion,
    Page,
    Receiver,
    Retention,
    Scope,
    Services,
    SessionRecord,
)
from notifyd.broker.memory.histories import Histories
from notifyd.broker.memory.history import pack
from notifyd.broker.memory.keys import Keys, key_name
from notifyd.broker.memory.presence import PresenceLists
from notifyd.broker.memory.sessions import Sessions
from notifyd.clock import Clock
from notifyd.model import Notification, SessionId
from protocol.messages import Joined, Left, Member, Since
from protocol.position import Position

MEMORY_BYTES = 256 * 1024 * 1024
"""For the histories of all topics: room for a million messages of 100 bytes."""

IDLE_TOPICS = 100_000
"""Topics remembered for their position alone."""

KEY_LIMIT = 1_000_000
"""Idempotency keys known at once: 3,300 keyed publishes a second for five minutes."""

SESSION_LIMIT = 100_000
"""Sessions waiting to be resumed."""

SWEEP_INTERVAL_S = 1.0
"""How long what is expired may go on using memory; it is never answered, since every access looks at its age."""


class MemoryBroker:
    """A `notifyd.broker.base.Broker` for one node without any other process.

    The receiver's `deliver` is called within `publish`, for topics that this node subscribed to. The bounds are
    explained where they are kept: `memory_bytes` and `idle_topics` in `Histories`, `key_limit` in `Keys`,
    `session_limit` in `Sessions`.

    Nothing here waits for anything, and so no method but `start` and `run` is a checkpoint: each has happened when it
    returns, and none can be cancelled half-way.
    """

    is_shared = False

    def __init__(
        self,
        receiver: Receiver,
        *,
        clock: Clock,
        memory_bytes: int = MEMORY_BYTES,
        idle_topics: int = IDLE_TOPICS,
        key_limit: int = KEY_LIMIT,
        session_limit: int = SESSION_LIMIT,
    ) -> None:
        self._receiver = receiver
        self._monotonic_s = clock.monotonic_s
        self._unix_s = clock.unix_s
        self._interest: set[str] = set()
        self._histories = Histories(memory_bytes=memory_bytes, idle_limit=idle_topics)
        self._keys = Keys(key_limit)
        self._presence = PresenceLists()
        self._sessions = Sessions(session_limit, self._histories)
        self._versions: deque[ConfigurationVersion] = deque(maxlen=VERSIONS_KEPT)

    @property
    def kept_bytes(self) -> int:
        """What the histories use, as counted against `memory_bytes`."""
        return self._histories.kept_bytes

    async def start(self, services: Services) -> None:
        """Begin to give back the memory of what has expired."""
        await services.start("memory", self.run)

    async def close(self) -> None:
        """Do nothing: all of it ends with the process."""

    async def problems(self) -> list[str]:
        """Tell nothing: this broker is never away."""
        return []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Give back the memory of what has expired, until cancelled. Without it all answers are the same."""
        task_status.started()
        while True:
            await trio.sleep(SWEEP_INTERVAL_S)
            for _ in self._sweep(self._monotonic_s()):
                await trio.lowlevel.checkpoint()

    def _sweep(self, now_s: float) -> Iterator[None]:
        yield from self._histories.sweep(now_s)
        yield from self._keys.sweep(now_s)
        yield from self._sessions.sweep(now_s)

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
        """Append, give a position and deliver, in one step without a checkpoint.

        Raises BrokerUnavailable, and nothing has happened, when a new `key` cannot be remembered. A publish that keeps
        no history on a topic that did ends its epoch: the message has no position, so the older ones prove nothing.
        """
        now_s = self._monotonic_s()
        name = None
        if key is not None:
            name = key_name(topic, key)
            answer = self._keys.answer(name, now_s)
            if answer is not None:
                return answer
        time_ms = int(self._unix_s() * 1000)
        position = None
        if retention.history > 0:
            position = self._histories.append(topic, retention, now_s, pack(data, time_ms, sender, origin, trace))
        else:
            self._histories.end_epoch(topic)
        if name is not None:
            self._keys.remember(name, position, now_s)
        if topic in self._interest:
            self._receiver.deliver((Notification(topic, data, time_ms, position, sender, origin, trace, now_s),))
        return Accepted(position)

    async def subscribe(self, topic: str, retention: Retention) -> Scope:  # noqa: ARG002 - the histories know it
        """Deliver this topic's messages from now on, and remember its position as long."""
        if topic not in self._interest:
            self._interest.add(topic)
            self._histories.hold(topic)
        return None

    async def unsubscribe(self, topic: str) -> None:
        """Deliver this topic's messages no longer."""
        if topic in self._interest:
            self._interest.discard(topic)
            self._histories.release(topic)

    async def history(self, topic: str, since: Since, limit: int, retention: Retention) -> Page:
        """Read up to `limit` messages after `since`; with `more`, go on from the last one's position.

        Without history only `latest` is continuous: nothing else can be proved.
        """
        return self._histories.read(topic, since, limit, retention, self._monotonic_s())

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as present; one that is already keeps its place."""
        if self._presence.join(topic, member) and announce and topic in self._interest:
            self._receiver.announce(Joined(topic=topic, user=member.user, session=member.session))

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as gone; an unknown one changes nothing."""
        if self._presence.leave(topic, member.session) and announce and topic in self._interest:
            self._receiver.announce(Left(topic=topic, user=member.user, session=member.session))

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is present, in the order they joined."""
        return self._presence.members(topic)

    async def topics(self) -> dict[str, Position | None]:
        """Tell the topics that are subscribed to or have positions, with the newest position where there is one."""
        known: dict[str, Position | None] = dict.fromkeys(self._interest)
        known.update(self._histories.positions())
        return known

    async def load_session(self, session: SessionId, user: str) -> SessionRecord | None:
        """Take a session out of the store; None when unknown, expired or another user's, whose it then stays."""
        return self._sessions.take(session, user, self._monotonic_s())

    async def save_session(self, record: SessionRecord, ttl_s: float) -> bool:
        """Keep a session for `ttl_s` seconds. Beyond the limit of sessions the one that was saved first goes."""
        self._sessions.save(record, self._monotonic_s() + ttl_s)
        return True

    async def end_session(self, session: SessionId) -> bool:  # noqa: ARG002 - there is no other node
        """Tell that no other node has it."""
        return False

    async def tell_watched(self, topics: Collection[str]) -> None:
        """Do nothing: there is no other node."""

    async def revoke(self, revocation: Revocation) -> None:
        """Let this node, the only one, refuse it; the receiver remembers."""
        self._receiver.revoke_here(revocation)

    async def configurations(self, limit: int) -> list[ConfigurationVersion]:
        """Tell the newest versions of the configuration, the newest first."""
        return list(islice(reversed(self._versions), limit))

    async def configure(self, version: ConfigurationVersion) -> bool:
        """Keep the version that follows the newest, and let it hold."""
        newest = self._versions[-1].version if self._versions else 0
        if version.version != newest + 1:
            return False
        self._versions.append(version)
        self._receiver.configure_here(version)
        return True
