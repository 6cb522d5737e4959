"""The versions of the configuration in Redis, and the service that keeps this node at the newest.

What is said on the control channel is only that there is a newer one: it is read from the store, and compared with each
heartbeat, so that a node which did not hear it is behind for a few seconds at most. The highest number holds. Where the
store has lost what this node knows (a server without persistence, a failover) it is put back.
"""

import msgspec
import trio

from notifyd.broker.base import VERSIONS_KEPT, ConfigurationVersion, Receiver
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.nodes import HEARTBEAT_S
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from protocol.data import check_data
from protocol.errors import RequestError

READ_AGAIN_S = 1.0
"""How soon it is tried again what could not be read."""

TOLD = "configuration"
"""The `op` by which nodes tell each other that there is a newer version."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ConfigurationVersion).decode


class RedisConfigurations:
    """The versions that all nodes share. `run` is a service; `is_informed` says that this node knows the newest."""

    def __init__(self, servers: Servers, names: Names, node: str, receiver: Receiver, events: Events) -> None:
        self.is_informed = False
        self._servers = servers
        self._key = names.configurations()
        self._channel = names.control()
        self._node = node
        self._receiver = receiver
        self._events = events
        self._known: ConfigurationVersion | None = None
        self._alone = trio.Lock()
        self._hurry = trio.Event()
        self._configure = Script("configure")
        self._configurations = Script("configurations")

    async def newest(self, limit: int) -> list[ConfigurationVersion]:
        """Return the newest versions that this version of notifyd can read. Raises BrokerUnavailable."""
        return [version for _, version in await self._read(limit) if version is not None]

    async def add(self, version: ConfigurationVersion) -> bool:
        """Keep the version that follows the newest, and let it hold here; False where it does not follow it.

        Raises BrokerUnavailable: then it may be kept all the same, and this node learns of it as of any other.
        """
        async with self._alone:
            try:
                added = await self._write(version, after=version.version - 1)
            except BrokerUnavailable:
                self.missed()
                raise
            if added:
                self._take(version)
            return added

    def missed(self) -> None:
        """Take note that there may be a version that this node does not know."""
        self.is_informed = False
        self._hurry.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the store until cancelled."""
        task_status.started()
        while True:
            self._hurry = trio.Event()
            pause_s = HEARTBEAT_S
            try:
                await self._catch_up()
            except BrokerUnavailable:
                pause_s = READ_AGAIN_S
            with trio.move_on_after(pause_s):
                await self._hurry.wait()

    async def _catch_up(self) -> None:
        async with self._alone:
            number, newest = next(iter(await self._read(1)), (0, None))
            known = self._known
            if known is not None and number < known.version:
                self._events.log("warning", "configuration_restored", version=known.version, found=number)
                if not await self._write(known, after=number):
                    self._hurry.set()  # another node was faster: perhaps with something newer
            elif newest is not None:
                self._take(newest)
            elif number:
                self._events.log("warning", "configuration_unreadable", version=number)
            self.is_informed = True

    def _take(self, version: ConfigurationVersion) -> None:
        if version != self._known:
            self._known = version
            self._receiver.configure_here(version)

    async def _write(self, version: ConfigurationVersion, *, after: float) -> bool:
        told = _encode({"op": TOLD, "from": self._node, "version": version.version})
        verb = "SPUBLISH" if self._servers.sharded else "PUBLISH"
        arguments = (after, version.version, _encode(version), VERSIONS_KEPT, self._channel, told, verb)
        return bool(await self._servers.evaluate(self._configure, [self._key], arguments))

    async def _read(self, limit: int) -> list[tuple[float, ConfigurationVersion | None]]:
        """Read the newest versions with their numbers, None for one that this version of notifyd did not write."""
        answer = await self._servers.evaluate(self._configurations, [self._key], (limit,))
        numbered = [(record, _number(score)) for record, score in zip(answer[::2], answer[1::2], strict=True)]
        return [(number, _readable(record, number)) for record, number in numbered]


def _number(score: bytes) -> float:
    """Read a sorted set's number, which may be any: only a whole one is a version's."""
    number = float(score)
    return int(number) if number.is_integer() else number


def _readable(record: bytes, number: float) -> ConfigurationVersion | None:
    """Read a record. Whoever can write here can leave anything: what no patch could have made is no version."""
    try:
        version = _decode(record)
        check_data(version.overlay)
    except (msgspec.DecodeError, RecursionError, RequestError):
        return None
    return version if version.version == number else None
