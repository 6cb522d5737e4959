"""This node's interest in topics, told to the broker: for the first subscriber at once, after the last one late.

A subscriber that leaves and comes back within `LINGER_S` costs the broker nothing, and the end of a connection never
waits for the broker.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import trio

from notifyd.broker.base import Broker, Retention, Scope
from notifyd.errors import BrokerUnavailable
from notifyd.hub.registry import Registry

LINGER_S = 1.0
"""How long a topic without subscribers stays subscribed at the broker: longer than a page reload."""


class Interest:
    """Keeps the broker's subscriptions of this node equal to the registry's topics. `run` is a core service."""

    def __init__(self, registry: Registry, broker: Broker) -> None:
        self._registry = registry
        self._broker = broker
        self._subscribed: dict[str, Scope] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._idle: dict[str, float] = {}
        self._wake = trio.Event()

    async def acquire(self, topic: str, retention: Retention) -> Scope:
        """Return once the broker delivers the topic to this node, or, without history, at least what is published here.

        Raises BrokerUnavailable.
        """
        self._idle.pop(topic, None)
        if self._reaches_all(topic):
            return None
        async with self._exclusively(topic):
            if not self._reaches_all(topic):
                try:
                    self._subscribed[topic] = await self._broker.subscribe(topic, retention)
                except BaseException:
                    self._retire(topic, LINGER_S)  # it may have happened all the same
                    raise
            return self._subscribed[topic]

    def _reaches_all(self, topic: str) -> bool:
        return self._subscribed.get(topic, "node") is None

    def release(self, topic: str) -> None:
        """Note that a subscriber is gone; when it was the last, the broker is told after the linger time."""
        if topic not in self._registry.topics and topic in self._subscribed:
            self._retire(topic, LINGER_S)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Unsubscribe what has been idle long enough, until cancelled; what fails is tried again later."""
        task_status.started()
        while True:
            if not self._idle:
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep_until(min(self._idle.values(), default=trio.current_time()))
            now_s = trio.current_time()
            for topic in [topic for topic, due_s in self._idle.items() if due_s <= now_s]:
                if self._idle.get(topic, inf) <= now_s:  # it may have been wanted again while another one's turn was
                    await self._unsubscribe(topic)

    def _retire(self, topic: str, delay_s: float) -> None:
        self._idle[topic] = trio.current_time() + delay_s
        self._wake.set()

    async def _unsubscribe(self, topic: str) -> None:
        del self._idle[topic]
        async with self._exclusively(topic):
            if topic in self._registry.topics:
                return
            self._subscribed.pop(topic, None)
            try:
                await self._broker.unsubscribe(topic)
            except BrokerUnavailable as failure:
                self._retire(topic, max(failure.retry_after_s, LINGER_S))

    @asynccontextmanager
    async def _exclusively(self, topic: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(topic, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._locks.pop(topic, None)
