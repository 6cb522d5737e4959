"""One HTTP connection: Hypercorn's HTTP/1.1 over a socket that is ours, bounded in time.

Hypercorn's own connection class is not used, because a stranger could stop a node through it: see
spec/decisions/http-connections.md. Here every connection has one deadline that moves with what the peer must do next,
and one way to end.

Source: RFC 9112; hypercorn 0.18, `hypercorn/trio/tcp_server.py`.
"""

import contextlib
import traceback
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.logging import Logger
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, H11SendableEvent

from notifyd.errors import StreamBroken
from notifyd.events import Events
from notifyd.listeners.http.answers import ErrorBody, Problem, encode_json
from notifyd.transport.stream import ByteStream

MAX_HEAD_BYTES = 16 * 1024
"""A request's line and headers: the same bound as on the WebSocket listener."""

DISCARD_BYTES = 16 * 1024 * 1024
"""How much of a refused body is read away, so that its sender gets to read why it was refused."""

DISCARD_S = 5.0
"""How long that may take."""

HTTP_LINGER_S = 1.0
"""How long the peer may take to read our last bytes before the connection is closed."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What HTTP connections may take: their number, and seconds.

    `head_s` is for a request's whole head, counted from the opening of the connection or the end of the last answer;
    `exchange_s` from there to the end of the answer; `grace_s` is what running exchanges have when the node stops.
    """

    connections: int = 256
    head_s: float = 10.0
    exchange_s: float = 75.0
    grace_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Server:
    """What all connections of a listener share."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    limits: HttpLimits


class ServerLog(Logger):
    """What Hypercorn has to say, as events: nothing on stderr; of its lines only failures are passed on."""

    def __init__(self, events: Events) -> None:
        self.access_logger = None
        self.error_logger = None
        self._events = events

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  Hypercorn's signature
        """Report a failure on the way between the connection and the application, which answers for its own."""
        self._events.count("barrier_hits", place="http")
        self._events.log("error", "http_server_failed", message=message, traceback=traceback.format_exc())


class ServerConfig(Config):
    """Hypercorn's settings for a listener of ours."""

    include_server_header = False
    h11_max_incomplete_size = MAX_HEAD_BYTES

    def __init__(self, events: Events) -> None:
        self._log = ServerLog(events)


class Exchange(HTTPStream):
    """A request and its answer. Once answered, the application is not told of a disconnect: nobody may be listening."""

    async def handle(self, event: StreamEvent) -> None:
        """Pass on what the peer sent."""
        if isinstance(event, StreamClosed) and self.state is ASGIHTTPState.CLOSED:
            self.closed = True
        else:
            await super().handle(event)


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else: a wish to upgrade (WebSocket, h2c) is ignored, as RFC 9110 section 7.8 allows."""

    _unsent = b""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Never change to HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = Exchange(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        head = Request(
            stream_id=STREAM_ID,
            headers=list(request.headers),
            http_version=request.http_version.decode(),
            method=request.method.decode("ascii").upper(),
            raw_path=request.target,
            state=self.connection_state,
        )
        await self.stream.handle(head)
        self.keep_alive_requests += 1

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Send a head together with what follows it, so that no answer is cut between the two.

        Once cancelled, nothing more is said: Hypercorn would begin an answer anew whose first half has been sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if isinstance(event, h11.Response) and self.connection.their_state is h11.SEND_BODY:
            event = _closing(event)  # who is answered before its body was read must not send another request
        try:
            self._unsent += self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
        if not isinstance(event, h11.Response):
            unsent, self._unsent = self._unsent, b""
            await self.send(RawData(unsent))

    async def _send_error_response(self, status_code: int) -> None:
        """Answer what is no HTTP request in the form of every other error."""
        status = HTTPStatus(status_code)
        body = encode_json(ErrorBody(Problem(status, status.name.lower(), f"not a request: {status.phrase}")))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await self.stream_send(Response(stream_id=STREAM_ID, status_code=status_code, headers=headers))
        await self.stream_send(Body(stream_id=STREAM_ID, data=body))
        await self.stream_send(EndBody(stream_id=STREAM_ID))


def _closing(response: h11.Response) -> h11.Response:
    """Return a response that says that it is the connection's last (RFC 9112 section 9.6)."""
    headers = [*response.headers.raw_items(), (b"connection", b"close")]
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)


class HttpConnection:
    """The life of one connection, from its first byte to its close."""

    _protocol: Http1

    def __init__(self, stream: ByteStream, server: Server) -> None:
        self._stream = stream
        self._server = server
        self._sending = trio.Lock()
        # Shielded, so that a running request may end; every wait in it is bounded by its deadline.
        self._scope = trio.CancelScope(deadline=trio.current_time() + server.limits.head_s, shield=True)
        self._idle = True
        self._over = False
        self._stopping = False

    async def serve(self) -> None:
        """Answer requests until the peer leaves, breaks the rules or a deadline passes; then close.

        Cancelled, it closes at once, or after the request that is being answered, for which it has `grace_s`.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._await_cancellation)
                with self._scope:
                    async with TaskGroup() as tasks:
                        self._protocol = self._new_protocol(tasks)
                        await self._read()
                nursery.cancel_scope.cancel()
            if self._over:
                await self._discard_body()
                await self._stream.finish(HTTP_LINGER_S)
        finally:
            self._stream.close()

    async def _await_cancellation(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stopping = True
            grace_s = 0.0 if self._idle else self._server.limits.grace_s
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + grace_s)

    async def _discard_body(self) -> None:
        """Read away the rest of a refused body: many clients look for the answer only after they sent it all."""
        request, left_bytes = self._protocol.connection, DISCARD_BYTES
        with trio.move_on_after(DISCARD_S), contextlib.suppress(StreamBroken, h11.RemoteProtocolError):
            while request.their_state is h11.SEND_BODY and left_bytes > 0:
                if request.next_event() is h11.NEED_DATA:
                    data = await self._stream.receive_some()
                    request.receive_data(data)
                    left_bytes -= len(data)

    def _new_protocol(self, tasks: TaskGroup) -> Http1:
        server, state = self._server, ConnectionState({})
        client = (self._stream.peer, 0)  # the port stands in the text
        return Http1(server.app, server.config, server.context, tasks, state, False, client, None, self._send)

    async def _read(self) -> None:
        try:
            while data := await self._stream.receive_some():
                await self._protocol.handle(RawData(data))
            await self._protocol.handle(RawData(b""))
        except StreamBroken:
            self._scope.cancel()
        await self._protocol.handle(Closed())

    async def _send(self, event: Event) -> None:
        """Do what the protocol asks for: send, note whether a request is running, or end."""
        if isinstance(event, RawData):
            await self._write(memoryview(event.data))
        elif isinstance(event, Updated):
            self._turn(event.idle)
        elif isinstance(event, Closed):
            self._over = True
            self._scope.cancel()

    def _turn(self, idle: bool) -> None:
        """Note that a request has begun, or that it is answered."""
        self._idle = idle
        limits = self._server.limits
        self._scope.deadline = trio.current_time() + (limits.head_s if idle else limits.exchange_s)
        if self._stopping:
            self._scope.cancel()

    async def _write(self, left: memoryview) -> None:
        async with self._sending:
            try:
                while left := left[self._stream.send_now(left) :]:
                    await self._stream.wait_writable()
            except StreamBroken:
                self._scope.cancel()
