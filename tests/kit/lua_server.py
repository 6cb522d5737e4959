"""A `Servers` over redis-py's own synchronous client: for what is asked of one real server, without any link.

Its ids of replication are the server's, asked each time, unless a test says others: then it plays a promotion.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
import trio
from redis.exceptions import NoScriptError, RedisError
from redis.typing import EncodableT

from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.scripts import Script
from notifyd.errors import BrokerUnavailable

MARKER = b"marker"
SKEW = "test:skew"
TIME = "redis.call('TIME')"
SKEWED_TIME = "(function(t) t[1] = t[1] + (redis.call('GET', 'test:skew') or 0) return t end)(redis.call('TIME'))"


class LuaServer:
    """One server, asked synchronously. `replication_id` and `previous_replication_id` are what scripts are told.

    `later` lets time pass for scripts; keys expire as the server's own clock says, hence never too early.
    """

    def __init__(self, port: int) -> None:
        self.client = redis.Redis(port=port, protocol=2)
        self.sharded = False
        self.replication_id = "id-1"
        self.previous_replication_id = ""
        self.is_durable = False
        self._skew_s = 0.0

    def later(self, seconds: float) -> None:
        """Let all scripts see a time that is so much later."""
        self._skew_s += seconds
        self.client.set(SKEW, repr(self._skew_s))

    async def execute(self, key: str, *command: EncodableT) -> Any:
        await trio.lowlevel.checkpoint()
        connection = self.client.connection_pool.get_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        except RedisError as error:
            raise BrokerUnavailable(str(error)) from None
        finally:
            self.client.connection_pool.release(connection)

    async def evaluate(
        self, script: Script, keys: Sequence[str], arguments: Sequence[EncodableT], *, replicas: int = 0
    ) -> Any:
        given = (*keys, *arguments, self.replication_id, self.previous_replication_id, int(self.is_durable))
        await trio.lowlevel.checkpoint()
        try:
            if self._skew_s:
                return self.client.eval(script.text.replace(TIME, SKEWED_TIME), len(keys), *given)  # type: ignore[arg-type]
            try:
                return self.client.evalsha(script.sha, len(keys), *given)  # type: ignore[arg-type]
            except NoScriptError:
                return self.client.eval(script.text, len(keys), *given)  # type: ignore[arg-type]
        except RedisError as error:
            raise BrokerUnavailable(str(error)) from None

    async def scan(self, pattern: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        return sorted({key.decode() for key in self.client.scan_iter(pattern, count=1000)})

    def take_ids(self) -> None:
        """Tell scripts from now on what the server itself says of its replication, and of its append-only file."""
        told = self.client.info("replication")
        self.replication_id = told["master_replid"]
        previous = told["master_replid2"]
        self.previous_replication_id = "" if set(str(previous)) == {"0"} else str(previous)
        syncs = self.client.config_get("appendfsync")["appendfsync"]
        self.is_durable = bool(self.client.info("persistence")["aof_enabled"]) and syncs == "always"

    def beat(self, names: Names) -> None:
        """Say that a node lives, as one does that has just connected; in a Cluster another server hears that."""
        if self.client.info("cluster")["cluster_enabled"]:
            return
        what_it_is = (self.replication_id, self.previous_replication_id, int(self.is_durable))
        script = Script("heartbeat", preludes=("time", "topic"))
        self.client.eval(script.text, 1, names.nodes(), "node", 15_000, *what_it_is)  # type: ignore[arg-type]


class Feed:
    """All that is published on channels that match a pattern, heard as a subscriber hears it."""

    def __init__(self, client: "redis.Redis", pattern: str) -> None:
        self._client = client
        self._pattern = pattern
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe(pattern)
        self._pubsub.get_message(timeout=5)

    def take(self) -> list[tuple[str, bytes]]:
        """Return channel and payload of everything published since the last call."""
        # Redis may answer who published before it writes to who subscribed: what came before a marker came before it.
        self._client.publish(self._pattern.replace("*", "marker"), MARKER)
        found = []
        while True:
            message = self._pubsub.get_message(timeout=5)
            assert message is not None, "the marker did not arrive"
            if message["data"] == MARKER:
                return found
            found.append((message["channel"].decode(), message["data"]))


@contextmanager
def lua_server(port: int) -> Iterator[LuaServer]:
    """Ask the server on this port, its data gone, for the length of the block."""
    server = LuaServer(port)
    try:
        server.client.flushall()
        yield server
    finally:
        server.client.close()
