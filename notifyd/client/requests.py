"""Requests waiting for their replies, matched by `id`."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import trio
from msgspec import UNSET

from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
from protocol.messages import Error, ServerMessage

Reply = TypeVar("Reply", bound=ServerMessage)


class Disconnected(Exception):
    """The connection ended before the reply. `sent` is False when the request never left."""

    def __init__(self, sent: bool = True) -> None:
        super().__init__("the connection ended before the reply")
        self.sent = sent


class PendingRequest(Generic[Reply]):
    """One request that waits.

    `on_reply` is called with the reply before anything that follows it is read.
    """

    def __init__(self, number: int, expected: type[Reply], on_reply: Callable[[Reply], None] | None) -> None:
        self.number = number
        self.size_bytes = 0
        self._expected = expected
        self._on_reply = on_reply
        self._done = trio.Event()
        self._reply: Reply | None = None
        self._failure: Exception | None = None

    def resolve(self, reply: ServerMessage) -> None:
        """Take the reply. Raises RemoteProtocolError for one that answers something else."""
        if isinstance(reply, Error):
            self.fail(to_request_error(reply))
            return
        if not isinstance(reply, self._expected):
            wrong, right = type(reply).__name__.lower(), self._expected.__name__.lower()
            raise RemoteProtocolError(f"the server answered request {self.number} with {wrong}, not {right}")
        if self._on_reply is not None:
            self._on_reply(reply)
        self._reply = reply
        self._done.set()

    def fail(self, failure: Exception) -> None:
        """Let `wait` raise."""
        self._failure = failure
        self._done.set()

    async def wait(self) -> Reply:
        """Return the reply; raises RequestError when the server refused, Disconnected when none will come."""
        await self._done.wait()
        if self._reply is None:
            assert self._failure is not None
            raise self._failure
        return self._reply


class Replies:
    """All requests of one connection that wait for their replies."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, PendingRequest[Any]] = {}
        self._ended = False

    def next_number(self) -> int:
        """Return an `id` for a request; a connection does not live for 2^32 of them."""
        return next(self._numbers)

    @contextmanager
    def expect(
        self, expected: type[Reply], on_reply: Callable[[Reply], None] | None = None
    ) -> Iterator[PendingRequest[Reply]]:
        """Wait for a reply while the block runs; one that comes later is dropped."""
        if self._ended:
            raise Disconnected(sent=False)
        waiting = PendingRequest(self.next_number(), expected, on_reply)
        self._waiting[waiting.number] = waiting
        try:
            yield waiting
        finally:
            self._waiting.pop(waiting.number, None)

    def resolve(self, reply: ServerMessage) -> None:
        """Hand a reply to whoever waits for it, if anybody still does.

        Raises RemoteProtocolError for a reply to something else; the request goes on waiting for the connection's end.
        """
        number = getattr(reply, "id", 0)
        if number in self._waiting:
            self._waiting[number].resolve(reply)
            del self._waiting[number]

    def end(self, *, too_large: bool = False) -> None:
        """Let all that wait fail: no reply will come.

        With `too_large` the server ended the connection over the size of a request: the largest one waiting is told so,
        since repeating it would end the next connection too.
        """
        self._ended = True
        if too_large and self._waiting:
            largest = max(self._waiting.values(), key=lambda waiting: waiting.size_bytes)
            del self._waiting[largest.number]
            message = f"a message of {largest.size_bytes} bytes is more than the server takes"
            largest.fail(RequestError(ErrorCode.TOO_LARGE, message))
        for waiting in self._waiting.values():
            waiting.fail(Disconnected())
        self._waiting.clear()


def to_request_error(error: Error) -> RequestError:
    """Turn an `error` message into the exception its caller gets. A code this version does not know counts as 500."""
    try:
        code = ErrorCode(error.code)
    except ValueError:
        code = ErrorCode.INTERNAL
    return RequestError(
        code,
        error.message,
        reason=error.reason,
        retry_after_s=None if error.retry_after is UNSET else error.retry_after,
        request_id=None if error.id is UNSET else error.id,
    )
