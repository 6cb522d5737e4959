"""One client as a node holds it: its socket, its outbox, its deadlines, and the reason it ends. `life` is its story."""

from math import inf
from typing import Any, NamedTuple

import trio

from notifyd.connection.context import Context
from notifyd.connection.heartbeat import Watch
from notifyd.connection.limits import CONNECT_BYTES, CONTROL_FRAME_BYTES, RequestLimits
from notifyd.connection.transport import Transport
from notifyd.hub.outbox import REPLAY_SHARE, Outbox
from notifyd.hub.recovery import CatchUp
from notifyd.hub.registry import Subscriber
from notifyd.model import Identity
from notifyd.settings import Overflow, Settings
from notifyd.transport.stream import ByteStream
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.framing import heartbeat_to_wire, to_wire
from protocol.messages import ServerMessage, encode

WRITE_DEADLINE_S = 10.0
"""A peer that takes not one byte for so long is too slow."""

SMALL_REPLY_BYTES = 4096
"""Replies up to this are queued at once, whoever does not read them: those are for the queue's bound."""


class Ending(NamedTuple):
    """Why a connection ends, in the words its client gets."""

    code: CloseCode
    message: str


class Connection:
    """One client. `end` may be called from anywhere, at any time; the rest is for the connection's own tasks."""

    __slots__ = (
        "_is_let_in",
        "_opened_bytes",
        "context",
        "ending",
        "identity",
        "is_local",
        "limits",
        "needs_token",
        "number",
        "nursery",
        "opened_ms",
        "outbox",
        "scheduled_s",
        "stream",
        "subscriber",
        "transport",
        "watch",
    )

    transport: Transport
    outbox: Outbox
    nursery: trio.Nursery

    def __init__(self, stream: ByteStream, context: Context) -> None:
        settings = context.settings
        self.number = next(context.connections.numbers)
        self.stream = stream
        self.context = context
        self.opened_ms = context.clock.unix_ms()
        self.ending: Ending | None = None
        self.scheduled_s = inf
        self.is_local = False
        self.needs_token = False
        self.identity: Identity | None = None
        self.subscriber: Subscriber | None = None
        self.watch = Watch(settings.heartbeat, settings.limits.handshake_s, context.clock)
        self.limits = RequestLimits(settings.limits.messages, context.clock.monotonic_s())
        self._is_let_in = False
        self._opened_bytes = 0

    @property
    def id(self) -> str:
        """What every line of the log calls it by: short, hardly ever the same on another node or in another life."""
        return f"{self.context.connections.life}-{self.number}"

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write a line about this connection."""
        self.context.events.log(level, event, connection=self.id, **fields)

    def refused(self, reason: str) -> None:
        """Note that it is refused before it was served."""
        self.context.events.count("refusals", reason=reason)
        self.log("info", "connection_refused", reason=reason, address=self.stream.peer)

    # --- its state ----------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether a reason to end was given."""
        return self.ending is not None

    def end(self, code: CloseCode, message: str) -> None:
        """End the connection; the first reason given is the one the client gets. Synchronous, returns at once."""
        if self.ending is None:
            self.ending = Ending(code, message)
            self.nursery.cancel_scope.cancel()

    def attach(self, transport: Transport) -> None:
        """Take over an open transport: from now on everything that leaves goes through the outbox."""
        self.transport = transport
        self.outbox = Outbox(self.stream, transport.form, self.context.settings.limits.queue_bytes, self)
        transport.attach(self.outbox)

    @property
    def is_open(self) -> bool:
        """Whether the transport's handshake is done."""
        return hasattr(self, "outbox")

    @property
    def transport_name(self) -> str:
        """The transport's name for people and metrics."""
        return "device" if self.transport.form.is_device else "websocket"

    def reload(self, settings: Settings, *, new_user_rate: bool) -> None:
        """Let new limits hold for this client, and when it is lost; the heartbeat that was agreed with it stays."""
        self.watch.reload(settings.heartbeat)
        self.limits.reload(settings.limits.messages, self.now_s)
        if self.is_open:
            self.outbox.budget_bytes = settings.limits.queue_bytes
        if self.subscriber is not None:
            self.transport.set_payload_limit(settings.limits.payload_bytes)
            if new_user_rate:
                self.limits.user = self.context.user_buckets.acquire(self.subscriber.user, self.now_s)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: ServerMessage) -> None:
        """Queue a message for this client alone; the reader's flush sends it."""
        form = self.outbox.form
        self._put_message(to_wire(form, encode(message, form.encoding), self._unix_ms()))

    async def reply(self, message: ServerMessage) -> None:
        """Queue the reply to a request; a large one, and the reader with it, waits until what is queued has left.

        That a client asked for much says nothing about how fast it reads. Raises LocalProtocolError, and nothing is
        queued, for what no frame holds.
        """
        form, outbox = self.outbox.form, self.outbox
        frame = to_wire(form, encode(message, form.encoding), self._unix_ms())
        room_bytes = self.context.settings.limits.queue_bytes // REPLAY_SHARE
        if len(frame) > SMALL_REPLY_BYTES and outbox.queued_bytes + len(frame) > room_bytes:
            outbox.flush()
            await outbox.wait_drained()
        self._put_message(frame)

    def _put_message(self, frame: bytes) -> None:
        self.outbox.put_frame(frame)
        self.context.hub.traffic.goes_out(self.outbox.form, len(frame))

    def send_heartbeat(self, heartbeat: bytes) -> None:
        """Queue 16 bytes of PING or PONG."""
        self.outbox.put_frame(heartbeat_to_wire(self.outbox.form, heartbeat))

    def replay(self, catch_up: CatchUp, *, tell_gap: bool = False) -> None:
        """Let an answered subscription go on to its messages: at once, or by a task when there are many."""
        if not catch_up.release(tell_gap=tell_gap):
            self.nursery.start_soon(catch_up.run)

    def outbox_blocked(self) -> None:
        """Start a writer; see notifyd.hub.outbox.Owner."""
        # A nursery about to close takes no task, and the fan-out must not be told: `life` sends what is left.
        if not self.nursery.cancel_scope.cancel_called:
            self.nursery.start_soon(self._write)

    async def _write(self) -> None:
        """Send what waits; the writer lives only while the socket would block."""
        try:
            await self.outbox.drain(WRITE_DEADLINE_S)
        except trio.TooSlowError:
            self.end(CloseCode.TOO_SLOW, f"nothing was read for {WRITE_DEADLINE_S:g} s")

    def outbox_broken(self) -> None:
        """End, without a word: nobody would hear it."""
        self.nursery.cancel_scope.cancel()

    def gap_told(self, reason: str) -> None:
        """Count it."""
        self.context.events.count("gaps", reason=reason)

    def outbox_overflowed(self, policy: Overflow) -> None:
        """Count it, and end a client that is to have all or nothing."""
        self.context.events.count("overflows", policy=policy.value)
        if policy is Overflow.DISCONNECT:
            self.end(CloseCode.TOO_SLOW, "more is unsent than limits.queue allows")

    def beat(self, now_s: float) -> None:
        """Do what fell due in silence: send a PING, or end a client that ran out of time."""
        try:
            heartbeat = self.watch.beat(now_s)
        except RemoteProtocolError as error:
            self.end(error.close_code, error.message)
            return
        if heartbeat and self.is_open:
            self.send_heartbeat(heartbeat)
            self.outbox.flush()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def heard(self, control_frames: int) -> None:
        """Note that bytes arrived, whatever they are, with so many control frames of a WebSocket's own among them.

        Raises RemoteProtocolError (4029) for a flood of them.
        """
        self.watch.heard()
        if control_frames:
            self.limits.take_heartbeats(control_frames, self.watch.liveness.heard_s)
            if self.subscriber is None:
                self.count_before_connect(control_frames * CONTROL_FRAME_BYTES)

    def count_before_connect(self, size_bytes: int) -> None:
        """Count what a client sends before it is connected. Raises RemoteProtocolError (4001) above the limit."""
        self._opened_bytes += size_bytes
        if self._opened_bytes > CONNECT_BYTES:
            raise RemoteProtocolError(f"more than {CONNECT_BYTES} bytes before connect", CloseCode.UNAUTHORIZED)

    async def let_in(self) -> None:
        """Wait until it is this client's turn to come in, once. Raises Crowded."""
        if self._is_let_in:
            return
        door = self.context.door
        if not door.lets_in():
            with self.watch.waiting():
                await door.pass_through()
            self.context.connections.schedule(self)
        self._is_let_in = True

    def enter(self, identity: Identity, subscriber: Subscriber) -> None:
        """Become a connected client, registered until the connection is over."""
        hub, limits = self.context.hub, self.context.settings.limits
        self.identity = identity
        self.subscriber = subscriber
        hub.registry.attach(subscriber)
        self.limits.user = self.context.user_buckets.acquire(identity.user, self.now_s)
        self.transport.set_payload_limit(limits.payload_bytes)
        self.watch.connected(identity.expires_s)
        self.context.connections.schedule(self)

    async def leave(self) -> None:
        """Unregister what `enter` registered, and leave the session in the hub's care: its client may be back."""
        subscriber = self.subscriber
        if subscriber is not None:
            try:
                await self.context.hub.detach(subscriber, self.id)
            finally:
                self.context.hub.registry.detach(subscriber)
                self.context.user_buckets.release(subscriber.user, self.limits.user)

    def forget(self) -> None:
        """Cut the circle of references once all is over: its memory returns at once, not when the collector comes by.

        `end` may still be called, by whoever has not heard yet.
        """
        self.subscriber = None
        if self.is_open:
            del self.transport, self.outbox

    @property
    def now_s(self) -> float:
        """The time on the node's monotonic clock."""
        return self.context.clock.monotonic_s()

    def _unix_ms(self) -> int:
        return self.context.clock.unix_ms()
