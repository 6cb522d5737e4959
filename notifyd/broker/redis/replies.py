"""Who waits for which reply of one connection: the queue of callers in the order in which their commands are written.

A server answers a connection's commands in their order and marks pushes as such, so that a reply belongs to whoever
stands first. A caller who is cancelled leaves his place standing: the reply that comes for it is dropped, and never
handed to the next (the lesson of CVE-2023-28858). Only a command that was not written yet is taken back.

No socket and no timer in here: bytes to write go out as return values, bytes that were read come in as arguments.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import outcome
import trio
from redis import exceptions
from redis.connection import DefaultParser
from redis.typing import EncodableT

from notifyd.errors import BrokerUnavailable, NotifydError

_NOTHING: Final = object()

_pack: Callable[[Any], bytes] = hiredis.pack_command  # its own annotations are narrower than it is

_parse_error: Callable[[str], Exception] = DefaultParser(socket_read_size=0).parse_error

_NOT_NOW = (exceptions.ReadOnlyError, exceptions.BusyLoadingError, exceptions.MasterDownError)
"""Errors by which a server says that it is no master, or none yet."""

_READ_ONLY_IN_SCRIPT = "-READONLY "
"""How a script of Redis 6.2 tells the same: as a plain error, with the real one in its text."""


class ConversationBroken(NotifydError):
    """What came from the server is no reply to what it was asked: the connection is of no use any more."""


def encode_command(command: Sequence[EncodableT]) -> bytes:
    """Write a command down as it travels. Raises TypeError for arguments that are no text, bytes or number."""
    try:
        return _pack(tuple(command))
    except TypeError:  # hiredis takes memoryviews, but no bytearrays
        return _pack(tuple(bytes(part) if isinstance(part, bytearray) else part for part in command))


class Place:
    """One caller's place in the queue, and all a single command needs. `task` is None once he has left."""

    __slots__ = ("packed", "task")

    commands = 1
    """How many commands it stands for."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    def leave(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        """Leave: the caller was cancelled."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def take(self, reply: Any) -> bool:
        """Take the next reply; tell whether it was the last one for this place."""
        self.wake(reply)
        return True

    def wake(self, result: Any) -> None:
        """Give the caller his result, where he still waits; an exception is raised in him."""
        task = self.task
        if task is not None:
            self.task = None
            woken = outcome.Error(result) if isinstance(result, Exception) else outcome.Value(result)
            trio.lowlevel.reschedule(task, woken)


class SeveralPlace(Place):
    """The place of commands that are written back to back: the caller gets all their replies, errors among them.

    That a server is no master is an error of the whole, and raised.
    """

    __slots__ = ("_replies", "commands")

    def __init__(self, packed: bytes, commands: int) -> None:
        super().__init__(packed)
        self.commands = commands
        self._replies: list[Any] = []

    def take(self, reply: Any) -> bool:
        """Take the next reply; see Place."""
        self._replies.append(reply)
        if len(self._replies) < self.commands:
            return False
        away = next((reply for reply in self._replies if isinstance(reply, BrokerUnavailable)), None)
        self.wake(away or self._replies)
        return True


class FencedPlace(Place):
    """The place of a command that is answered by pushes, or by an error: SUBSCRIBE and its like.

    A PING with a text of its own is written behind it. Its echo says that all the pushes have come; an error before it
    that the command was refused. Pushes themselves never move the queue, since a server may send them unasked.
    """

    __slots__ = ("_echo", "_refusal")

    commands = 2

    def __init__(self, command: bytes, echo: bytes) -> None:
        super().__init__(command + encode_command((b"PING", echo)))
        self._echo = echo
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
    `now_s` measures the age of commands.
    """

    def __init__(self, name: str, most_commands: int, most_bytes: int, now_s: Callable[[], float]) -> None:
        self.commands = 0
        self.unanswered_bytes = 0
        self.not_master: str | None = None
        self._name = name
        self._most_commands = most_commands
        self._most_bytes = most_bytes
        self._now_s = now_s
        self._unsent: list[Place] = []
        self._unsent_since_s = 0.0
        self._waiting: deque[Place] = deque()
        self._taken = 0
        self._batches: deque[tuple[int, float]] = deque()
        self._writer: trio.lowlevel.Task | None = None
        self._echoes = 0
        self._reader = hiredis.Reader(notEnoughData=_NOTHING, replyError=self._judged)

    # --- callers ------------------------------------------------------------------------------------------------------

    async def ask(self, command: Sequence[EncodableT]) -> Any:
        """Queue a command and wait for its reply; an error is raised. Cancelled, it may have been carried out."""
        place = Place(encode_command(command))
        self._add(place)
        return await trio.lowlevel.wait_task_rescheduled(place.leave)

    async def ask_all(self, commands: Sequence[Sequence[EncodableT]]) -> list[Any]:
        """Queue commands back to back and wait for all their replies."""
        if not commands:
            await trio.lowlevel.checkpoint()
            return []
        place = SeveralPlace(b"".join(map(encode_command, commands)), len(commands))
        self._add(place)
        replies: list[Any] = await trio.lowlevel.wait_task_rescheduled(place.leave)
        return replies

    async def ask_for_pushes(self, command: Sequence[EncodableT]) -> None:
        """Queue a command that is answered by pushes and wait until they have come; an error is raised."""
        self._echoes += 1
        place = FencedPlace(encode_command(command), b"notifyd:%d" % self._echoes)
        self._add(place)
        await trio.lowlevel.wait_task_rescheduled(place.leave)

    def _add(self, place: Place) -> None:
        commands = self.commands + place.commands
        unanswered_bytes = self.unanswered_bytes + len(place.packed)
        if commands > self._most_commands or unanswered_bytes > self._most_bytes:
            raise BrokerUnavailable(
                f"{self._name}: too much in flight: {self.commands} commands of {self._most_commands}, "
                f"{self.unanswered_bytes} bytes of {self._most_bytes}"
            )
        self.commands = commands
        self.unanswered_bytes = unanswered_bytes
        if not self._unsent:
            self._unsent_since_s = self._now_s()
            if self._writer is not None:
                trio.lowlevel.reschedule(self._writer)
                self._writer = None
        self._unsent.append(place)

    # --- the writer ---------------------------------------------------------------------------------------------------

    async def wait_unsent(self) -> None:
        """Wait until there is something to write. For the one writer; a checkpoint where it has to wait."""
        if not self._unsent:
            self._writer = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._writer_left)

    def _writer_left(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def take_unsent(self) -> bytes:
        """Return all that is to be written now, as one; commands whose callers have left are taken back."""
        wanted = [place for place in self._unsent if place.task is not None]
        if len(wanted) < len(self._unsent):
            for place in self._unsent:
                if place.task is None:
                    self._forget(place)
        self._unsent = []
        if not wanted:
            return b""
        self._waiting.extend(wanted)
        self._taken += len(wanted)
        self._drop_answered_batches()
        self._batches.append((self._taken, self._unsent_since_s))
        return b"".join([place.packed for place in wanted])

    # --- the reader ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, pushes: list[Any]) -> None:
        """Hand out the replies in bytes that were read, and put the pushes among them into `pushes`.

        Raises ConversationBroken; the replies before it are handed out all the same.
        """
        self._reader.feed(data)
        push_type = hiredis.PushNotification
        waiting = self._waiting
        while (reply := self._next_reply()) is not _NOTHING:
            if type(reply) is push_type:
                pushes.append(reply)
                continue
            if not waiting:
                raise ConversationBroken(_unasked(reply))
            place = waiting[0]
            if place.take(reply):
                waiting.popleft()
                self._forget(place)

    def _next_reply(self) -> Any:
        try:
            return self._reader.gets()
        except hiredis.ProtocolError as error:
            raise ConversationBroken(f"it does not speak RESP: {error}") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise ConversationBroken(f"it sent an error that cannot be read: {error}") from None

    def _judged(self, text: str) -> Exception:
        """Make an exception of a server's error: redis-py's, or BrokerUnavailable when it is no master."""
        error = _parse_error(text)
        if isinstance(error, _NOT_NOW) or _READ_ONLY_IN_SCRIPT in text:
            self.not_master = str(error)
            return BrokerUnavailable(f"{self._name}: {error}")
        return error

    def _forget(self, place: Place) -> None:
        self.commands -= place.commands
        self.unanswered_bytes -= len(place.packed)

    # --- the watch ----------------------------------------------------------------------------------------------------

    @property
    def oldest_s(self) -> float | None:
        """When the oldest command in flight was queued, or one shortly before it; None when there is none."""
        self._drop_answered_batches()
        if self._batches:
            return self._batches[0][1]
        return self._unsent_since_s if self._unsent else None

    def _drop_answered_batches(self) -> None:
        answered = self._taken - len(self._waiting)
        while self._batches and self._batches[0][0] <= answered:
            self._batches.popleft()

    def fail(self, reason: str) -> None:
        """Let everybody who waits have BrokerUnavailable: no reply will come any more."""
        for place in (*self._waiting, *self._unsent):
            place.wake(BrokerUnavailable(reason))
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
