"""One connection to a Redis server: RESP3 on a Trio stream, the commands of all tasks in one conversation.

A link is a service: its supervisor runs it again after each loss. While it is down nobody waits for it, so it is its
own circuit breaker: open while its supervisor backs off, half-open while it connects and greets, closed while it is up.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio
from redis.exceptions import RedisError
from redis.typing import EncodableT
from trio.lowlevel import checkpoint, wait_task_rescheduled

from notifyd.broker.redis.lag import own_lag_s
from notifyd.broker.redis.replies import (
    ConversationBroken,
    FencedWaiter,
    ReplyQueue,
    SeveralWaiter,
    Waiter,
    encode_command,
)
from notifyd.errors import BrokerUnavailable, NotifydError
from notifyd.events import Events

if TYPE_CHECKING:
    from notifyd.broker.redis.greeting import ServerInfo

READ_BYTES = 256 * 1024
"""One read: a burst of replies or messages costs one system call, and is handed out in some milliseconds."""

KEEPALIVE_S = 2.0
"""How often a server is asked what it is. Its replication id may change while it is master: see ServerInfo."""

LAST_WORDS_S = 0.1
"""What the reader gets, once nothing can be written any more, to read why: too many clients, for example."""

MOST_COMMANDS = 10_000
MOST_BYTES = 32 * 1024 * 1024

Dial = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens the transport; raises OSError or LinkLost. Cancelled, nothing stays open."""

Greet = Callable[["Link"], Awaitable["ServerInfo"]]
"""Runs the handshake with `execute_unready`; raises LinkLost with a reason for people."""


class LinkLost(NotifydError):
    """Why a connection to Redis ended, or could not be made. Its text never holds a secret."""


def ignore(pushes: list[list[Any]]) -> None:
    """Do nothing with pushes: for links that subscribe to nothing."""


class Link:
    """A connection to one server, made anew each time `run` is called.

    `is_up` says that it is connected and greeted; `server` is what the last greeting or keepalive told, `why_down` what
    ended the last connection. `on_pushes` gets the pushes of one read together, in order; `on_up` is called when the
    link has come up. Both are synchronous, and never raise. `deadline_s` is the time a reply may take: a server that
    needs longer is taken for dead.

    Everything that asks raises BrokerUnavailable at once while the link is down or full, and when the connection ends
    before the reply: then the command may have been carried out. Errors of the server are raised as
    `redis.exceptions`. Cancelled, a command that was not written yet is taken back; else its reply is dropped.

    Commands that are not answered by one reply each (SUBSCRIBE and its like, MONITOR, CLIENT REPLY) must not be sent
    with `execute`; those that block would let everybody wait.
    """

    def __init__(
        self,
        name: str,
        dial: Dial,
        greet: Greet,
        *,
        deadline_s: float,
        events: Events,
        on_pushes: Callable[[list[list[Any]]], None] = ignore,
        on_up: Callable[[], None] | None = None,
        most_commands: int = MOST_COMMANDS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.name = name
        self.is_up = False
        self.server: ServerInfo | None = None
        self.why_down = "not connected yet"
        self._dial = dial
        self._greet = greet
        self._deadline_s = deadline_s
        self._events = events
        self._on_pushes = on_pushes
        self._on_up = on_up
        self._was_up = False
        self._bounds = (most_commands, most_bytes)
        self._replies = self._no_replies()
        self._scope: trio.CancelScope | None = None
        self._up = trio.Event()
        self._down = trio.Event()
        self._down.set()

    # --- callers ------------------------------------------------------------------------------------------------------

    async def execute(self, *command: EncodableT) -> Any:
        """Send one command and wait for its reply."""
        if not self.is_up:
            raise self._unavailable()
        waiter = Waiter(encode_command(command))
        self._replies.add(waiter)
        await wait_task_rescheduled(waiter.leave)
        return waiter.result()

    async def execute_all(self, commands: Sequence[Sequence[EncodableT]]) -> list[Any]:
        """Send commands back to back and wait for all their replies; a server's error is an element of the list."""
        if not self.is_up:
            raise self._unavailable()
        if not commands:
            await checkpoint()
            return []
        replies: list[Any] = await self._ask(SeveralWaiter(commands))
        return replies

    async def subscribe(self, verb: str, channels: Sequence[str]) -> None:
        """Send SUBSCRIBE, UNSUBSCRIBE, SSUBSCRIBE or SUNSUBSCRIBE; return once the push of every channel came.

        The user needs the right to PING.
        """
        if not self.is_up:
            raise self._unavailable()
        if not channels:
            await checkpoint()
            return
        await self._ask(FencedWaiter((verb, *channels)))

    async def execute_unready(self, *command: EncodableT) -> Any:
        """Send one command while the link is being greeted. For the greeting alone."""
        if self._scope is None:
            raise self._unavailable()
        return await self._ask(Waiter(encode_command(command)))

    async def _ask(self, waiter: Waiter) -> Any:
        self._replies.add(waiter)
        await wait_task_rescheduled(waiter.leave)
        return waiter.result()

    async def wait_up(self) -> None:
        """Wait until the link is up; at once where it is."""
        while True:
            await self._up.wait()
            if self.is_up:
                return

    async def wait_down(self) -> None:
        """Wait until this connection has ended; at once where the link is down."""
        await self._down.wait()

    @property
    def commands_in_flight(self) -> int:
        """How many commands wait for being written or answered."""
        return self._replies.commands

    @property
    def bytes_in_flight(self) -> int:
        """How many bytes these commands have."""
        return self._replies.unanswered_bytes

    def drop(self, reason: str) -> None:
        """End this connection now: `run` raises LinkLost(reason), and who waits gets BrokerUnavailable."""
        if self._scope is None:
            return
        scope, self._scope = self._scope, None
        if self.is_up:
            self._events.count("redis_connections_lost")
        self.is_up = False
        self.why_down = reason
        self._replies.fail(f"{self.name}: {reason}")
        self._replies = self._no_replies()
        if self._up.is_set():  # else it never was up, and who waits for that goes on waiting
            self._up = trio.Event()
        self._down.set()
        scope.cancel()

    def _unavailable(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"{self.name}: {self.why_down}")

    def _no_replies(self) -> ReplyQueue:
        return ReplyQueue(self.name, *self._bounds, now_s=trio.current_time, on_answered=self._observe)

    def _observe(self, took_s: float, commands: int) -> None:
        self._events.observe("redis_command_seconds", took_s, commands)

    # --- the service --------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, greet and serve; raises LinkLost when that failed or ended. Cancelled, who waits is told too."""
        assert self._scope is None, "a link is run once at a time"
        self._scope = scope = trio.CancelScope()
        try:
            with scope:
                await self._connect_and_serve(task_status)
        finally:
            self.drop("this node ended the connection")
        raise LinkLost(self.why_down)

    async def _connect_and_serve(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            stream = await self._dial()
        except LinkLost as error:
            self.drop(str(error))
            return
        except OSError as error:
            self.drop(error.strerror or str(error))
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, stream, self._replies)
                nursery.start_soon(self._write, stream, self._replies)
                nursery.start_soon(self._watch, self._replies)
                await self._come_up(task_status)
                await self._keep_alive()
        finally:
            await trio.aclose_forcefully(stream)

    async def _come_up(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            self.server = await self._greet(self)
        except LinkLost as error:
            self.drop(str(error))
            self.why_down = str(error)  # it tells more than that the server hung up afterwards
        except BrokerUnavailable:
            pass  # the connection ended meanwhile: it is known why
        if self._scope is None:
            await trio.sleep_forever()  # cancelled already
        self.is_up = True
        if self._was_up:
            self._events.count("redis_reconnects")
        self._was_up = True
        self._down = trio.Event()
        self._up.set()
        version = ".".join(map(str, self.server.version)) if self.server else ""
        self._events.log("info", "broker_link_up", link=self.name, version=version)
        task_status.started()
        if self._on_up is not None:
            self._on_up()

    async def _read(self, stream: trio.abc.Stream, replies: ReplyQueue) -> None:
        while True:
            try:
                data = await stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.drop(f"the connection broke: {_cause(error)}")
                return
            if replies is not self._replies:
                return
            if not data:
                self.drop("the server closed the connection")
                return
            self._receive(bytes(data), replies)

    def _receive(self, data: bytes, replies: ReplyQueue) -> None:
        pushes: list[Any] = []
        broken = None
        try:
            replies.receive(data, pushes)
        except ConversationBroken as error:
            broken = str(error)
        if pushes:
            self._on_pushes(pushes)
        if broken or replies.not_master:
            self.drop(broken or f"the server serves no writes: {replies.not_master}")

    async def _write(self, stream: trio.abc.Stream, replies: ReplyQueue) -> None:
        while True:
            await replies.wait_unsent()
            data = replies.take_unsent()
            if not data:
                continue
            try:
                await stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                await trio.sleep(LAST_WORDS_S)
                self.drop(f"the connection broke: {_cause(error)}")
                return

    async def _watch(self, replies: ReplyQueue) -> None:
        """End the connection when its oldest command is older than the deadline, and not by this process's own lag."""
        while True:
            oldest_s = replies.oldest_s
            due_s = (trio.current_time() if oldest_s is None else oldest_s) + self._deadline_s
            await trio.sleep_until(due_s)
            patience_s = self._deadline_s + await own_lag_s()
            if replies.oldest_s is not None and replies.oldest_s + patience_s <= trio.current_time():
                self.drop(f"no answer within {self._deadline_s:g} s")
                return

    async def _keep_alive(self) -> None:
        """Ask the server now and then what it is, so that its death is noticed although nobody asks anything."""
        while True:
            await trio.sleep(KEEPALIVE_S)
            try:
                information = await self.execute("INFO", "replication")
            except (BrokerUnavailable, RedisError):
                continue
            before = self.server
            assert before is not None, "it was greeted"
            self.server = before.refreshed(information)
            if self.server.role != before.role:
                self.drop(f"the server is a {self.server.role} now, not a {before.role}")


def _cause(error: BaseException) -> str:
    cause = error.__cause__
    return (isinstance(cause, OSError) and cause.strerror) or str(cause or error) or "reset"
