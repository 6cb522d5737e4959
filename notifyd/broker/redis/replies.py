"""Who waits for which reply of one connection: the queue of callers in the order in which their commands are written.

A server answers a connection's commands in their order and marks pushes as such, so that a reply belongs to whoever
stands first. A caller who is cancelled leaves his place standing: the reply that comes for it is dropped, and never
handed to the next (the lesson of CVE-2023-28858). Only a command that was not written yet is taken back.

No socket and no timer in here: bytes to write go out as return values, bytes that were read come in as arguments.
"""

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis
import trio
from outcome import Outcome
from redis import exceptions
from redis.connection import DefaultParser
from redis.typing import EncodableT
from trio.lowlevel import current_task, reschedule, wait_task_rescheduled

from notifyd.errors import BrokerUnavailable, NotifydError

_echoes = itertools.count(1)

_NOTHING: Final = object()

_pack: Callable[[Any], bytes] = hiredis.pack_command  # its own annotations are narrower than it is

_parse_error: Callable[[str], Exception] = DefaultParser(socket_read_size=0).parse_error

_NOT_NOW = (
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
    exceptions.MasterDownError,
)
"""Errors by which a server says that it is no master, or none yet."""

_READ_ONLY_IN_SCRIPT = "-READONLY "
"""How a script of Redis 6.2 tells the same: as a plain error, with the real one in its text."""


class ConversationBroken(NotifydError):
    """What came from the server is no reply to what it was asked: the connection is of no use any more."""


def _ignore(_took_s: float, _commands: int) -> None:
    """Do nothing with how long commands took."""


def encode_command(command: Sequence[EncodableT]) -> bytes:
    """Write a command down as it travels. Raises TypeError for arguments that are no text, bytes or number."""
    try:
        return _pack(tuple(command))
    except TypeError:  # hiredis takes memoryviews, but no bytearrays
        return _pack(tuple(bytes(part) if isinstance(part, bytearray) else part for part in command))


class _Woken:
    """What every caller is woken with. His reply stands in his Waiter: an outcome.Value for each takes longer."""

    __slots__ = ()

    def unwrap(self) -> None:
        """Tell Trio's trap that nothing was raised."""


_WOKEN: Final = cast("Outcome[object]", _Woken())


class Waiter:
    """Who waits for the reply to one command. `task` is None once he has left or was woken."""

    __slots__ = ("packed", "reply", "task")

    commands = 1
    """How many commands it stands for."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.task: trio.lowlevel.Task | None = current_task()
        self.reply: Any = None

    def leave(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        """Leave: the caller was cancelled."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self, reply: Any) -> None:
        """Give the caller his reply, where he still waits."""
        task = self.task
        if task is not None:
            self.task = None
            self.reply = reply
            reschedule(task, _WOKEN)

    def result(self) -> Any:
        """Return the reply; an error is raised. For the caller, once he was woken."""
        reply = self.reply
        if isinstance(reply, Exception):
            self.reply = None  # the traceback knows this object: no circle
            try:
                raise reply
            finally:
                del reply
        return reply


class LongWaiter(Waiter, ABC):
    """Who waits for more than one reply."""

    __slots__ = ()

    @abstractmethod
    def take(self, reply: Any) -> bool:
        """Take the next reply; tell whether it was the last one."""


class SeveralWaiter(LongWaiter):
    """Who waits for the replies to commands that are written back to back, and gets them all, errors among them.

    That a server is no master is an error of the whole, and raised.
    """

    __slots__ = ("_replies", "commands")

    def __init__(self, commands: Sequence[Sequence[EncodableT]]) -> None:
        super().__init__(b"".join(map(encode_command, commands)))
        self.commands = len(commands)
        self._replies: list[Any] = []

    def take(self, reply: Any) -> bool:
        """Take the next reply; see LongWaiter."""
        self._replies.append(reply)
        if len(self._replies) < self.commands:
            return False
        away = next(
            (reply for reply in self._replies if isinstance(reply, BrokerUnavailable)),
            None,
        )
        self.wake(away or self._replies)
        return True


class FencedWaiter(LongWaiter):
    """Who waits for the pushes that answer a command, or for an error: SUBSCRIBE and its like.

    A PING with a text of its own is written behind it. Its echo says that all the pushes have come; an error before it
    that the command was refused. Pushes themselves never move the queue, since a server may send them unasked.
    """

    __slots__ = ("_echo", "_refusal")

    commands = 2

    def __init__(self, command: Sequence[EncodableT]) -> None:
        self._echo = b"notifyd:%010d" % next(_echoes)  # of one length: a simulation is cut up the same
        super().__init__(encode_command(command) + encode_command((b"PING", self._echo)))
        self._refusal: Exception | None = None

    def take(self, reply: Any) -> bool:
        """Take the error or the echo. Raises ConversationBroken when it is neither."""
        if reply == self._echo:
            self.wake(self._refusal)
            return True
        if self._refusal is not None or not isinstance(reply, Exception):
            raise ConversationBroken(f"it answered a subscription with {_shown(reply)}")
        self._refusal = reply
        return False


class ReplyQueue:
    """The queue of one connection. Above `most_commands` or `most_bytes`, unsent and unanswered, it takes no more.

    `commands` and `unanswered_bytes` tell how full it is. `not_master` is set once the server has said that it is none.
    `now_s` measures the age of commands. `on_answered` is told, after each read, how long the commands of a write took
    from when the first of them was queued, and how many they were.
    """

    def __init__(
        self,
        name: str,
        most_commands: int,
        most_bytes: int,
        now_s: Callable[[], float],
        on_answered: Callable[[float, int], None] = _ignore,
    ) -> None:
        self.commands = 0
        self.unanswered_bytes = 0
        self.not_master: str | None = None
        self._name = name
        self._most_commands = most_commands
        self._most_bytes = most_bytes
        self._now_s = now_s
        self._on_answered = on_answered
        self._unsent: list[Waiter] = []
        self._unsent_since_s = 0.0
        self._waiting: deque[Waiter] = deque()
        self._taken = 0
        self._answered = 0
        self._batches: deque[tuple[int, float]] = deque()
        self._writer: trio.lowlevel.Task | None = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING, replyError=self._judged)

    # --- callers ------------------------------------------------------------------------------------------------------

    def add(self, waiter: Waiter) -> None:
        """Queue who waits; raises BrokerUnavailable at a bound.

        The caller then waits with `wait_task_rescheduled(waiter.leave)` and takes `waiter.result()`.
        """
        commands = self.commands + waiter.commands
        unanswered_bytes = self.unanswered_bytes + len(waiter.packed)
        if commands > self._most_commands or unanswered_bytes > self._most_bytes:
            raise self._full()
        self.commands = commands
        self.unanswered_bytes = unanswered_bytes
        if not self._unsent:
            self._begin_batch()
        self._unsent.append(waiter)

    def _full(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"{self._name}: too much in flight: {self.commands} commands of {self._most_commands}, "
            f"{self.unanswered_bytes} bytes of {self._most_bytes}"
        )

    def _begin_batch(self) -> None:
        self._unsent_since_s = self._now_s()
        if self._writer is not None:
            reschedule(self._writer)
            self._writer = None

    # --- the writer ---------------------------------------------------------------------------------------------------

    async def wait_unsent(self) -> None:
        """Wait until there is something to write. For the one writer; a checkpoint where it has to wait."""
        if not self._unsent:
            self._writer = current_task()
            await wait_task_rescheduled(self._writer_left)

    def _writer_left(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def take_unsent(self) -> bytes:
        """Return all that is to be written now, as one; commands whose callers have left are taken back."""
        wanted = [waiter for waiter in self._unsent if waiter.task is not None]
        if len(wanted) < len(self._unsent):
            for waiter in self._unsent:
                if waiter.task is None:
                    self._forget(waiter)
        self._unsent = []
        if not wanted:
            return b""
        self._waiting.extend(wanted)
        self._taken += len(wanted)
        self._batches.append((self._taken, self._unsent_since_s))
        return b"".join([waiter.packed for waiter in wanted])

    # --- the reader ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, pushes: list[Any]) -> None:
        """Hand out the replies in bytes that were read, and put the pushes among them into `pushes`.

        Raises ConversationBroken; the replies before it are handed out all the same.
        """
        self._reader.feed(data)
        try:
            self._hand_out(self._reader.gets, pushes)
            self._drop_answered_batches()
        except hiredis.ProtocolError as error:
            raise ConversationBroken(f"it does not speak RESP: {error}") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise ConversationBroken(f"it sent an error that cannot be read: {error}") from None

    def _hand_out(self, next_reply: Callable[[], Any], pushes: list[Any]) -> None:
        """Hand out what can be read by now."""
        push_type, waiting = hiredis.PushNotification, self._waiting
        while (reply := next_reply()) is not _NOTHING:
            if type(reply) is push_type:
                pushes.append(reply)
                continue
            if not waiting:
                raise ConversationBroken(_unasked(reply))
            waiter = waiting[0]
            if type(waiter) is Waiter:  # written out: it runs for almost every reply
                task = waiter.task
                if task is not None:
                    waiter.task = None
                    waiter.reply = reply
                    reschedule(task, _WOKEN)
            elif isinstance(waiter, LongWaiter) and not waiter.take(reply):
                continue
            waiting.popleft()
            self._forget(waiter)

    def _judged(self, text: str) -> Exception:
        """Make an exception of a server's error: redis-py's, or BrokerUnavailable when it is no master."""
        error = _parse_error(text)
        if isinstance(error, _NOT_NOW) or _READ_ONLY_IN_SCRIPT in text:
            self.not_master = str(error)
            return BrokerUnavailable(f"{self._name}: {error}")
        return error

    def _forget(self, waiter: Waiter) -> None:
        self.commands -= waiter.commands
        self.unanswered_bytes -= len(waiter.packed)

    # --- the watch ----------------------------------------------------------------------------------------------------

    @property
    def oldest_s(self) -> float | None:
        """When the oldest command in flight was queued, or one shortly before it; None when there is none."""
        if self._batches:
            return self._batches[0][1]
        return self._unsent_since_s if self._unsent else None

    def _drop_answered_batches(self) -> None:
        answered = self._taken - len(self._waiting)
        while self._batches and self._batches[0][0] <= answered:
            taken, since_s = self._batches.popleft()
            self._on_answered(self._now_s() - since_s, taken - self._answered)
            self._answered = taken

    def fail(self, reason: str) -> None:
        """Let everybody who waits have BrokerUnavailable: no reply will come any more."""
        for waiter in (*self._waiting, *self._unsent):
            waiter.wake(BrokerUnavailable(reason))
        self._waiting.clear()
        self._unsent.clear()
        self._batches.clear()
        self.commands = 0
        self.unanswered_bytes = 0


def _unasked(reply: Any) -> str:
    if isinstance(reply, Exception):  # too many clients; protected mode
        return f"the server refused the connection: {_shown(reply)}"
    return f"it sent {_shown(reply)} that nobody asked for"


def _shown(reply: Any) -> str:
    """Show an error, and of anything else what it is: it may be somebody's data."""
    return str(reply)[:200] if isinstance(reply, Exception) else f"a {type(reply).__name__}"
