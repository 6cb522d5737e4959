"""The life of one connection, from dialing to its end.

One nursery owns its tasks: the opener, the reader, the writer, the heartbeat, and one for each feed being subscribed.
The first of them that sees the end says why (`_end`), which cancels the others; nothing is raised but by a bug.
"""

import time
from collections.abc import Callable
from functools import partial
from random import random
from typing import NamedTuple

import trio
from msgspec import UNSET

from notifyd.client.device import DeviceClientLink
from notifyd.client.dialing import open_stream
from notifyd.client.feed import EVENTS_A_TURN, Feed
from notifyd.client.link import ClientLink, LinkClosed
from notifyd.client.options import ClientOptions
from notifyd.client.outbox import ClientOutbox
from notifyd.client.requests import Disconnected, Replies, Reply, to_request_error
from notifyd.client.session import ClientSession, Plan
from notifyd.client.websocket import run_websocket
from protocol.codec import MAX_PAYLOAD_BYTES, Frame, FrameType
from protocol.errors import CloseCode, ErrorCode, RemoteProtocolError, RequestError
from protocol.framing import Encoding
from protocol.liveness import Beat, ServerLiveness
from protocol.messages import (
    Ack,
    Connect,
    Connected,
    Error,
    Gap,
    GoAway,
    Joined,
    Left,
    Message,
    Request,
    ServerMessage,
    Since,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    decode_server_message,
    encode,
)

GOODBYE_S = 1.0
"""How long an orderly end may take: the peer may be gone."""

UNNUMBERED = 0
"""Stands for the `id` of a request until its connection numbers it."""

MIN_HEARTBEAT_S = 0.1
"""However short a beat a server agrees to."""

MAX_WISH_S = 3600.0
"""The longest a server may ask a client to wait."""

RETRIED = (ErrorCode.RATE_LIMITED, ErrorCode.UNAVAILABLE)
"""Refusals that are waited for and asked again, where the server said for how long."""

_REFUSALS = {
    ErrorCode.BAD_REQUEST: CloseCode.PROTOCOL_ERROR,
    ErrorCode.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: CloseCode.FORBIDDEN,
}
"""What a refused `connect` amounts to: asking the same again would be refused again."""

_SIZE_CODES = (CloseCode.TOO_LARGE, CloseCode.MESSAGE_TOO_BIG)
_FRAME_TYPES = {Encoding.JSON: FrameType.JSON, Encoding.MSGPACK: FrameType.MSGPACK}
_ENCODINGS = {frame_type: encoding for encoding, frame_type in _FRAME_TYPES.items()}


class ConnectionLoss(NamedTuple):
    """Why a connection is over. `code` is a close code where there was one."""

    reason: str
    code: int | None = None
    retry_after_s: float | None = None


class ClientConnection:
    """One connection. `run` lives it; the rest may be called by any task while it lives, and after."""

    _nursery: trio.Nursery

    def __init__(
        self, options: ClientOptions, session: ClientSession, on_connected: Callable[["ClientConnection"], None]
    ) -> None:
        self.loss: ConnectionLoss | None = None
        self.welcome: Connected | None = None
        self.move_at_s: float | None = None
        self.over = trio.Event()
        self._options = options
        self._session = session
        self._on_connected = on_connected
        self._replies = Replies()
        self._outbox = ClientOutbox()
        self._liveness = ServerLiveness(
            interval_s=options.heartbeat_s, floor_s=options.floor_s, now_s=trio.current_time()
        )
        self._stream: trio.abc.Stream | None = None
        self._last_word: Error | None = None
        self._parting: ConnectionLoss | None = None
        self._goodbye = CloseCode.NORMAL

    @property
    def round_trip_s(self) -> float | None:
        """The mean of the last five heartbeats' round trips."""
        return self._liveness.round_trip_s

    # --- the life ----------------------------------------------------------------------------------------------------

    async def run(self, token: str | None) -> ConnectionLoss:
        """DialNode, connect, live; return why it is over. Cancelled, the socket is closed at once."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._open, token)
        finally:
            self._end(ConnectionLoss("cancelled"))
            self._session.pause()
            self._replies.end(too_large=self.loss is not None and self.loss.code in _SIZE_CODES)
            self.over.set()
            if self._stream is not None:
                await trio.aclose_forcefully(self._stream)
        assert self.loss is not None
        return self.loss

    def finish(self, parting: ConnectionLoss, code: CloseCode = CloseCode.NORMAL) -> None:
        """Begin an orderly end: what waits is sent, then a goodbye; after GOODBYE_S it ends anyway."""
        if self.welcome is None:
            self._end(parting)
        elif self._parting is None and self.loss is None:
            self._parting, self._goodbye = parting, code
            self._outbox.finish()
            self._nursery.start_soon(self._end_soon, parting)

    async def _end_soon(self, loss: ConnectionLoss) -> None:
        await trio.sleep(GOODBYE_S)
        self._end(loss)

    def _end(self, loss: ConnectionLoss) -> None:
        if self.loss is None:
            self.loss = self._parting or loss
            self._nursery.cancel_scope.cancel()

    async def _open(self, token: str | None) -> None:
        hello = Connect(
            id=UNNUMBERED,
            token=token,
            session=self._session.name,
            client=self._options.client,
            heartbeat=self._options.heartbeat_s,
            positions=self._session.name_positions(),
        )
        with trio.move_on_after(self._options.connect_timeout_s) as opening:
            try:
                link = await self._open_link()
                self._nursery.start_soon(self._read, link)
                self._nursery.start_soon(self._write, link)
                await self.request(hello, Connected, self._begin)
            except LinkClosed as closed:
                self._end(ConnectionLoss(closed.reason, closed.code, closed.retry_after_s))
            except RequestError as refusal:
                self._end(ConnectionLoss(refusal.message, _REFUSALS.get(refusal.code), refusal.retry_after_s))
        if opening.cancelled_caught:
            self._end(ConnectionLoss(f"no answer within {self._options.connect_timeout_s:g} s"))

    async def _open_link(self) -> ClientLink:
        options = self._options
        self._stream = await open_stream(options.address, options.dial, options.ssl_context)
        if options.address.is_device:
            return DeviceClientLink(self._stream, self._heard)
        link: ClientLink = await self._nursery.start(
            run_websocket, self._stream, options.address, options.encoding, self._heard
        )
        return link

    def _begin(self, reply: Connected) -> None:
        """Take `connected`: what the server sends next belongs to the session already."""
        self.welcome = reply
        self._liveness.interval_s = max(MIN_HEARTBEAT_S, reply.heartbeat)
        self._nursery.start_soon(self._beat)
        plan = self._session.welcome(reply)
        self._on_connected(self)
        self.carry_out(plan)

    # --- sending -----------------------------------------------------------------------------------------------------

    async def request(
        self, request: Request, expected: type[Reply], on_reply: Callable[[Reply], None] | None = None
    ) -> Reply:
        """Send a request and return its reply; `on_reply` sees it before anything that follows it is read.

        Raises RequestError when it is refused, Disconnected when the connection ends first. Cancelled, a request that
        has not left is not sent, and a late reply is dropped.
        """
        with self._replies.expect(expected, on_reply) as waiting:
            request.id = waiting.number
            frame = self._frame(request)
            waiting.size_bytes = len(frame.payload)
            self._outbox.put(waiting.number, frame)
            try:
                return await waiting.wait()
            except Disconnected:
                raise Disconnected(sent=not self._outbox.discard(waiting.number)) from None
            finally:
                self._outbox.discard(waiting.number)

    def tell(self, request: Subscribe | Unsubscribe) -> None:
        """Send a request whose reply nobody waits for."""
        request.id = self._replies.next_number()
        self._outbox.put(request.id, self._frame(request))

    def acknowledge(self, topic: str, offset: int) -> None:
        """Send an acknowledgement; of several that wait for the same topic, only the last one leaves."""
        self._outbox.put((Ack, topic), self._frame(Ack(topic=topic, offset=offset)))

    def carry_out(self, plan: Plan) -> None:
        """Ask the server for what the session wants of it; at the end of a connection, the next one does it."""
        if self.loss is not None:
            return
        for topic in plan.unsubscribe:
            self.tell(Unsubscribe(id=UNNUMBERED, topic=topic))
        for feed in plan.subscribe:
            self._nursery.start_soon(self._subscribe, feed)
        for feed in plan.going_on:
            self._acknowledge_again(feed)

    async def _subscribe(self, feed: Feed) -> None:
        while self._session.has(feed):
            asked = feed.since
            request = Subscribe(id=UNNUMBERED, topic=feed.topic, since=asked)
            try:
                await self.request(request, Subscribed, partial(self._begin_feed, feed, asked))
            except RequestError as refusal:
                delay_s = retry_delay_s(refusal)
                if delay_s is None:
                    self._session.withdraw(feed, refusal)
                else:
                    await trio.sleep(delay_s)
            else:
                return

    def _begin_feed(self, feed: Feed, asked: Since, reply: Subscribed) -> None:
        feed.begin(asked, reply)
        self._acknowledge_again(feed)

    def _acknowledge_again(self, feed: Feed) -> None:
        """Repeat what may have been lost with the connection before."""
        done, position = feed.acknowledged, feed.position
        if done is not None and position is not None and done.epoch == position.epoch:
            self.acknowledge(feed.topic, done.offset)

    def _frame(self, request: Request) -> Frame:
        encoding = self._options.encoding
        try:
            payload = encode(request, encoding)
        except UnicodeEncodeError as error:
            raise RequestError(ErrorCode.BAD_REQUEST, f"a text is not valid Unicode: {error}") from None
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise RequestError(ErrorCode.TOO_LARGE, f"a message of {len(payload)} bytes does not fit a frame")
        return Frame(_FRAME_TYPES[encoding], int(time.time() * 1000), payload)

    async def _write(self, link: ClientLink) -> None:
        try:
            while frames := await self._outbox.take():
                await link.send(frames)
            await link.close(self._goodbye)
        except LinkClosed as closed:
            await trio.sleep(GOODBYE_S)  # the reader may still come upon the server's last word
            self._end(self._farewell(closed))
        else:
            self._end(ConnectionLoss("closed"))

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def _read(self, link: ClientLink) -> None:
        try:
            while True:
                for count, frame in enumerate(await link.receive(), start=1):
                    self._receive(frame)
                    if count % EVENTS_A_TURN == 0:
                        await trio.lowlevel.checkpoint()
        except LinkClosed as closed:
            if self._parting is None:  # else the writer is about to close the link, and says when
                self._end(self._farewell(closed))
        except RemoteProtocolError as error:
            self.finish(ConnectionLoss(f"the server broke the protocol: {error.message}"), CloseCode.PROTOCOL_ERROR)

    def _heard(self) -> None:
        self._liveness.heard(trio.current_time())

    def _receive(self, frame: Frame) -> None:
        if frame.type is FrameType.PING:
            self._outbox.put(FrameType.PONG.name, Frame(FrameType.PONG, frame.timestamp_ms))
        elif frame.type is FrameType.PONG:
            round_trip_s = self._liveness.pong(frame.timestamp_ms, trio.current_time())
            if round_trip_s is not None:
                self._options.on_beat(round_trip_s)
        else:
            message = decode_server_message(frame.payload, _ENCODINGS[frame.type])
            if message is not None:
                self._dispatch(message)

    def _dispatch(self, message: ServerMessage) -> None:
        if isinstance(message, (Message, Gap, Joined, Left)):
            self._session.push(message)
        elif isinstance(message, GoAway):
            self._plan_move(message)
        elif isinstance(message, (Error, Unsubscribed)) and message.id is UNSET:
            if isinstance(message, Error):
                self._last_word = message
            else:
                self._session.push(message)
        else:
            self._replies.resolve(message)

    def _farewell(self, closed: LinkClosed) -> ConnectionLoss:
        """Say why the link closed: a device link has no close code, the last `error` stands for it."""
        if closed.code is not None or self._last_word is None:
            return ConnectionLoss(closed.reason, closed.code)
        word = to_request_error(self._last_word)
        return ConnectionLoss(word.message, self._last_word.code, word.retry_after_s)

    # --- what time brings --------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Send a PING when one is due; end the connection when only silence follows."""
        liveness = self._liveness
        while True:
            await trio.sleep_until(liveness.due_s)
            now_s = trio.current_time()
            beat = liveness.beat(now_s)
            if beat is Beat.LOST:
                self._end(ConnectionLoss(f"nothing was heard for {liveness.timeout_s:g} s", CloseCode.HEARTBEAT_LOST))
                return
            if beat is Beat.PING:
                self._outbox.put(FrameType.PING.name, Frame(FrameType.PING, liveness.ping(now_s)))

    def _plan_move(self, goaway: GoAway) -> None:
        after_s, within_s = bounded_s(goaway.after), bounded_s(goaway.within)
        self.move_at_s = trio.current_time() + after_s + within_s * random()
        self._nursery.start_soon(self._move, self.move_at_s, goaway.reason)

    async def _move(self, at_s: float, reason: str) -> None:
        await trio.sleep_until(at_s)
        if self.move_at_s == at_s:
            self.finish(ConnectionLoss(f"the server asked to reconnect: {reason}"), CloseCode.GOING_AWAY)


def retry_delay_s(refusal: RequestError) -> float | None:
    """Return how long to wait before asking again, None where that makes no sense."""
    if refusal.code not in RETRIED or refusal.retry_after_s is None:
        return None
    return bounded_s(refusal.retry_after_s)


def bounded_s(wish_s: float) -> float:
    """Return a delay that a server wished, from 0 to an hour: NaN and other nonsense must not end the client."""
    return min(max(0.0, wish_s), MAX_WISH_S)
