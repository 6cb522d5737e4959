"""Messages and positions in Redis: each publish, and each read, is one script there (lua/publish.lua, lua/read.lua)."""

import secrets
from typing import Any

from redis.typing import EncodableT

from notifyd.broker.base import Accepted, Page, Retention
from notifyd.broker.memory.history import EPOCH_BYTES
from notifyd.broker.memory.keys import KEY_TTL_S
from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.envelope import pack_message, read_kept
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.parallel import for_each
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable
from notifyd.model import Notification, SessionId
from protocol.messages import Since
from protocol.position import Position

TOPIC_SCRIPT = ("time", "topic")
"""What stands before every script that works on a topic."""

LONGEST_MS = 100 * 365 * 24 * 3600 * 1000
"""A time to live is cut to a century, so that every time of expiry is one that Redis can hold."""


def milliseconds(ttl_s: float) -> int:
    """Return a time to live as scripts take it: at least one millisecond, at most a century."""
    return max(1, min(round(ttl_s * 1000), LONGEST_MS)) if ttl_s < LONGEST_MS else LONGEST_MS


class RedisHistory:
    """The histories of all topics, shared by all nodes.

    `node` is written into every message, with its sequence. With `replicas`, so many replicas must have a message
    before it counts as accepted. Every method raises BrokerUnavailable; a publish may have happened all the same.
    """

    def __init__(
        self, servers: Servers, names: Names, node: str, *, key_ttl_s: float = KEY_TTL_S, replicas: int = 0
    ) -> None:
        self._servers = servers
        self._names = names
        self._node = node
        self._key_ttl_ms = milliseconds(key_ttl_s)
        self._replicas = replicas
        self._publish = Script("publish", preludes=TOPIC_SCRIPT)
        self._read = Script("read", preludes=TOPIC_SCRIPT)
        self._renew = Script("renew", preludes=TOPIC_SCRIPT)

    async def publish(
        self,
        topic: str,
        data: Any,
        retention: Retention,
        *,
        key: str | None,
        sender: str | None,
        origin: SessionId | None,
        sequence: int,
        trace: str | None = None,
    ) -> Accepted:
        """Append a message, give it a position and send it to all nodes that subscribed, in one step.

        A known key gets the first answer. Without history, what was kept ends: the message has no position.
        """
        names, keeps = self._names, retention.history > 0
        keys = [names.topic(topic), names.stream(topic)]
        if key is not None:
            keys.append(names.key(topic, key))
        arguments: list[EncodableT] = [
            retention.history,
            milliseconds(retention.ttl_s),
            secrets.token_hex(EPOCH_BYTES),
            pack_message(data, sender, origin, self._node, sequence, trace=trace),
            names.channel(topic),
            "SPUBLISH" if self._servers.sharded else "PUBLISH",
            self._key_ttl_ms,
        ]
        replicas = self._replicas if keeps else 0
        epoch, offset, repeated = await self._servers.evaluate(self._publish, keys, arguments, replicas=replicas)
        return Accepted(Position(epoch.decode(), offset) if epoch else None, repeated=bool(repeated))

    async def read(self, topic: str, since: Since, limit: int, retention: Retention) -> Page:
        """Read up to `limit` messages after `since`, as `notifyd.broker.base.Broker.history` promises.

        Without history there is nothing to ask, and nothing is asked.
        """
        if retention.history <= 0:
            return Page((), None, continuous=since == "latest", more=False)
        kind, position = ("after", since) if isinstance(since, Position) else (since, Position("", 0))
        arguments: list[EncodableT] = [
            retention.history,
            milliseconds(retention.ttl_s),
            secrets.token_hex(EPOCH_BYTES),
            kind,
            position.epoch,
            position.offset,
            limit,
        ]
        keys = [self._names.topic(topic), self._names.stream(topic)]
        raw_epoch, top, base, continuous, more, entries = await self._servers.evaluate(self._read, keys, arguments)
        epoch = raw_epoch.decode()
        try:
            messages = [_notification(topic, epoch, entry) for entry in entries]
        except ValueError as error:
            raise BrokerUnavailable(f"the history of {topic!r} holds something else than messages: {error}") from None
        return Page(messages, Position(epoch, top), continuous == 1, more == 1, base)

    async def renew(self, topic: str, given: Position) -> None:
        """End a topic's epoch where its history has not come to a position that was given: it lost messages."""
        arguments: list[EncodableT] = [given.epoch, given.offset, secrets.token_hex(EPOCH_BYTES)]
        await self._servers.evaluate(self._renew, [self._names.topic(topic), self._names.stream(topic)], arguments)

    async def topics(self) -> dict[str, Position | None]:
        """Tell all topics that have positions, with the newest one of each. What is no topic's is left out."""
        keys = await self._servers.scan(self._names.every_topic())
        found = await for_each(self._newest, keys)
        return {topic: newest for topic, newest in found if newest is not None}

    async def _newest(self, key: str) -> tuple[str, Position | None]:
        try:
            topic = self._names.topic_of_key(key)
            epoch, offset = await client_at(self._servers, key).hmget(key, ["e", "o"])
            if not isinstance(epoch, bytes) or not isinstance(offset, bytes):
                return topic, None
            return topic, Position(epoch.decode(), int(offset))
        except ValueError:
            return key, None
        except BrokerUnavailable as failure:
            if "WRONGTYPE" in str(failure):
                return key, None
            raise


def _notification(topic: str, epoch: str, entry: Any) -> Notification:
    """Read an entry of a stream: its id, `OFFSET-0`, and its fields as lua/publish.lua writes them."""
    identifier, (_, time_ms, _, packed) = entry
    return read_kept(topic, epoch, int(identifier[:-2]), int(time_ms), packed)
