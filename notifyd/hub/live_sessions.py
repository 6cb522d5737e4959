"""Saves sessions while they live, so that what a node that was killed had can go on elsewhere.

Changes are saved at once, but those within `SAVE_PAUSE_S` together; without changes a session is saved again
before its time in the store is over. What cannot be saved is tried again after `SAVE_AGAIN_S`.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import inf

import trio

from notifyd.broker.base import Broker, SessionRecord
from notifyd.errors import BrokerUnavailable
from notifyd.hub.registry import Registry, Subscriber
from notifyd.model import SessionId

SAVE_PAUSE_S = 0.1
"""Between two rounds of saving: what a crash can take of acknowledgements, and of subscriptions just made."""

SAVE_AGAIN_S = 1.0
SAVES_AT_ONCE = 128
"""Of so many, one at least is saved; else the broker is away, and the others wait without being tried."""

REFRESHES_A_TTL = 3
"""A session is saved so often while its time in the store runs: two may fail."""


class LiveSessions:
    """The sessions of this node's clients as the store should have them. `run` is a core service."""

    def __init__(
        self,
        registry: Registry,
        broker: Broker,
        ttl_s: Callable[[], float],
        record_of: Callable[[Subscriber], SessionRecord],
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._ttl_s = ttl_s
        self._record_of = record_of
        self._changed: dict[SessionId, None] = {}
        self._saved_s: OrderedDict[SessionId, float] = OrderedDict()
        self._retry_s: dict[SessionId, float] = {}
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._changed | self._saved_s | self._retry_s)

    def changed(self, subscriber: Subscriber) -> None:
        """Take note that the store's record of a session is behind."""
        if self._broker.is_shared and subscriber.session not in self._retry_s:
            self._changed[subscriber.session] = None
            self._wake.set()

    def recheck(self) -> None:
        """Save all sessions again."""
        for subscriber in self._registry.subscribers.values():
            if subscriber.session in self._saved_s:
                self.changed(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        """Save a session no longer: its connection is over, or another one has it now."""
        self._changed.pop(subscriber.session, None)
        self._saved_s.pop(subscriber.session, None)
        self._retry_s.pop(subscriber.session, None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Save what changed and what is due, until cancelled; what fails is tried again."""
        task_status.started()
        while True:
            with trio.move_on_at(self._due_s()):
                await self._wake.wait()
            self._wake = trio.Event()
            await self._save_all(self._take())
            await trio.sleep(SAVE_PAUSE_S)

    def _due_s(self) -> float:
        retry_s = next(iter(self._retry_s.values()), inf)
        return min(retry_s, next(iter(self._saved_s.values()), inf) + self._interval_s)

    @property
    def _interval_s(self) -> float:
        return max(self._ttl_s() / REFRESHES_A_TTL, SAVE_PAUSE_S)

    def _take(self) -> list[SessionId]:
        """Take what has to be saved now."""
        changed, self._changed = self._changed, {}
        now_s = trio.current_time()
        for session, retry_s in list(self._retry_s.items()):
            if retry_s > now_s:
                break
            del self._retry_s[session]
            changed[session] = None
        for session, saved_s in self._saved_s.items():
            if saved_s > now_s - self._interval_s:
                break
            changed[session] = None
        return list(changed)

    async def _save_all(self, sessions: list[SessionId]) -> None:
        """Save sessions side by side; the link sends them together."""
        for start in range(0, len(sessions), SAVES_AT_ONCE):
            portion = sessions[start : start + SAVES_AT_ONCE]
            async with trio.open_nursery() as nursery:
                for session in portion:
                    nursery.start_soon(self._save, session)
            if self._retry_s.keys() >= set(portion):
                for session in sessions[start + SAVES_AT_ONCE :]:
                    self._try_later(session)
                return

    def _try_later(self, session: SessionId) -> None:
        self._saved_s.pop(session, None)
        self._retry_s[session] = trio.current_time() + SAVE_AGAIN_S

    async def _save(self, session: SessionId) -> None:
        subscriber = self._registry.subscribers.get(session)
        if subscriber is None or subscriber.replaced:
            self._saved_s.pop(session, None)
            return
        try:
            ours = await self._broker.save_session(self._record_of(subscriber), self._ttl_s())
        except BrokerUnavailable:
            if self._registry.subscribers.get(session) is subscriber:
                self._try_later(session)
            return
        if self._registry.subscribers.get(session) is not subscriber:
            return
        if ours:
            self._saved_s[session] = trio.current_time()
            self._saved_s.move_to_end(session)
        else:
            subscriber.replace()
