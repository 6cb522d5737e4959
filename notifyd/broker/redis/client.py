"""redis-py's commands over whatever executes them: a link, or servers with a topology. Its documentation is ours.

Replies are what `redis.asyncio.Redis(protocol=3)` makes of them; text arrives as bytes.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from redis import Redis
from redis._parsers import Encoder
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.commands import AsyncCoreCommands
from redis.exceptions import DataError, ResponseError
from redis.typing import EncodableT

from notifyd.broker.redis.topology.base import Servers

_CALLBACKS: Mapping[str, Callable[..., Any]] = Redis(protocol=3).response_callbacks  # not connected, and never will be

_SUBSCRIBING = ("SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR")
_REPLICATING = ("SYNC", "PSYNC")
_CONNECTING = ("HELLO", "AUTH", "SELECT", "RESET", "QUIT", "ASKING", "READONLY", "READWRITE")
_TRANSACTIONS = ("MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH")

_CHANGE_THE_CONNECTION = frozenset((*_SUBSCRIBING, *_REPLICATING, *_CONNECTING, *_TRANSACTIONS))
_BLOCK = frozenset(("BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"))

_new_encoder: Callable[[str, str, bool], Encoder] = Encoder  # it has no annotations


class Executor(Protocol):
    """What carries out a command; a Link does. An error of the server is raised as `redis.exceptions`."""

    async def execute(self, *command: EncodableT) -> Any:
        """Carry out one command and return its reply as it came, text as bytes."""


class RedisClient(AsyncCoreCommands):
    """All commands of redis-py but those that change or block the connection, which all tasks share.

    These raise DataError, like arguments that cannot be sent. BrokerUnavailable comes from the executor.
    """

    _is_async_client: Literal[True] = True
    """What redis-py's annotations tell asynchronous clients by."""

    _event_dispatcher: Any = None
    """redis-py's own events: there are none here."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command as redis-py's methods put it: the name may have two words; options are its callback's."""
        name = args[0] if isinstance(args[0], str) else bytes(args[0]).decode()
        words = name.split()
        _check(words, args)
        for option in (NEVER_DECODE, "keys"):  # nothing is decoded here anyway; the keys are for redis-py's cache
            options.pop(option, None)
        empty = EMPTY_RESPONSE in options
        instead = options.pop(EMPTY_RESPONSE, None)
        try:
            reply = await self._executor.execute(*words, *args[1:])
        except ResponseError:
            if empty:
                return instead
            raise
        except TypeError as error:
            raise DataError(f"an argument of {words[0]} cannot be sent: {error}") from None
        if name not in _CALLBACKS:
            return reply
        made = _CALLBACKS[name](reply, **options)
        return await made if inspect.isawaitable(made) else made

    def get_encoder(self) -> Encoder:
        """Tell redis-py how text is written: as UTF-8, and not read again."""
        return _ENCODER

    def get_connection_kwargs(self) -> dict[str, Any]:
        """Tell redis-py what is special about the connection: nothing."""
        return {}


class KeyServer:
    """An `Executor` that runs every command where one key lives, wherever that is by then."""

    __slots__ = ("_key", "_servers")

    def __init__(self, servers: Servers, key: str) -> None:
        self._servers = servers
        self._key = key

    async def execute(self, *command: EncodableT) -> Any:
        """Run one command; see Servers. Raises BrokerUnavailable, and no error of redis-py."""
        return await self._servers.execute(self._key, *command)


def client_at(servers: Servers, key: str) -> RedisClient:
    """Return redis-py's commands at the server that has `key`: for commands on this key, or on its slot."""
    return RedisClient(KeyServer(servers, key))


_ENCODER = _new_encoder("utf-8", "strict", False)


def _check(words: list[str], args: tuple[Any, ...]) -> None:
    command = words[0].upper()
    if command in _CHANGE_THE_CONNECTION or _is_client_reply(words, args):
        raise DataError(f"{command} changes a connection that all tasks share: it has no place here")
    if command in _BLOCK or (command in ("XREAD", "XREADGROUP") and any(_is(part, "BLOCK") for part in args[1:])):
        raise DataError(f"{command} blocks a connection that all tasks share: ask again instead")


def _is_client_reply(words: list[str], args: tuple[Any, ...]) -> bool:
    second = words[1] if len(words) > 1 else args[1] if len(args) > 1 else ""
    return words[0].upper() == "CLIENT" and _is(second, "REPLY")


def _is(part: Any, word: str) -> bool:
    return isinstance(part, str | bytes) and part.upper() in (word, word.encode())
