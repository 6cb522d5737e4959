"""Asking where one server has all keys: what standalone and Sentinel have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError
from redis.typing import EncodableT

from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.asking import scan_server, server_refused
from notifyd.broker.redis.topology.linked import LinkedServer
from notifyd.broker.redis.topology.linking import Linking

COMMAND_LINK = "redis"
"""What the one command link is called in the supervision tree."""


class SingleServer:
    """The asking half of `Servers`, over one link. `_server` is the server that has all keys."""

    sharded = False
    _server: LinkedServer
    _linking: Linking

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def problems(self) -> list[str]:
        """Tell what is wrong with the server; see Servers."""
        problem = self._server.problem()
        return [problem] if problem else []

    async def execute(self, key: str, *command: EncodableT) -> Any:  # noqa: ARG002 - all keys are in one place
        """Run one command; see Servers."""
        try:
            return await self._server.link.execute(*command)
        except RedisError as error:
            raise server_refused(self._server.link, error) from None

    async def evaluate(
        self, script: Script, keys: Sequence[str], arguments: Sequence[EncodableT], *, replicas: int = 0
    ) -> Any:
        """Run a script; see Servers."""
        try:
            return await self._server.evaluate(script, keys, arguments, replicas=replicas)
        except RedisError as error:
            raise server_refused(self._server.link, error) from None

    async def scan(self, pattern: str) -> list[str]:
        """Return all keys that match; see Servers."""
        try:
            return list(await scan_server(self._server.link, pattern))
        except RedisError as error:
            raise server_refused(self._server.link, error) from None

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call it whenever commands reach a server again; see Servers."""
        self._linking.on_up.append(callback)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call it whenever the server is another one than before."""
        self._callbacks.append(callback)

    def _tell_change(self) -> None:
        for callback in self._callbacks:
            callback()
