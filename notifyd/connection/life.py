"""The life of one client: opened, connected, serving, ended, closed.

A connection is one nursery and the exception barrier around it: whatever goes wrong inside ends this client and is
counted; nothing of it reaches the listener. Cancellation always passes.
"""

import contextlib
import traceback
from math import inf

import trio

from notifyd.connection.connection import Connection, Ending
from notifyd.connection.context import Context
from notifyd.connection.reader import handle, welcome
from notifyd.connection.transport import OpenTransport
from notifyd.errors import StreamBroken
from notifyd.transport.stream import ByteStream
from protocol.errors import CloseCode, RemoteProtocolError

CLOSE_DEADLINE_S = 5.0
"""From the end of a connection to the close of its socket, whatever the peer does."""

BLOCKED_DEADLINE_S = 1.0
"""The same for a peer that does not read: the frame it has half of is finished in this time, or never."""

STOPPED_DEADLINE_S = 0.5
"""The same when everything around is ended at once: time for the last word to be read, not for manners."""


ORDINARY = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.RESTART, CloseCode.REPLACED})
"""Endings that nobody needs to look into."""


async def serve_client(stream: ByteStream, context: Context, open_transport: OpenTransport) -> None:
    """Serve one client from its first byte to its closed socket. Returns when all is over; raises only Cancelled."""
    connection = Connection(stream, context)
    context.connections.add(connection)
    try:
        try:
            async with trio.open_nursery() as connection.nursery:
                if await _open(connection, open_transport):
                    # Nearly all of its life a connection waits here: a coroutine for this loop would take 220 bytes.
                    while not connection.ended and (frames := await connection.transport.receive()) is not None:
                        await handle(connection, frames)
                        del frames  # they would wait with us for the next
                connection.nursery.cancel_scope.cancel()
        finally:
            await _leave(connection)
    except* StreamBroken:
        pass  # the peer is gone: an ordinary end
    except* RemoteProtocolError as faults:
        _blame(connection, faults)
    except* Exception as bugs:
        _hit_barrier(connection, bugs)
    finally:
        context.connections.remove(connection)
        await _close(connection)
        connection.forget()


async def _open(connection: Connection, open_transport: OpenTransport) -> bool:
    """Perform the handshake; False when there is nothing left to read."""
    opened = await open_transport(connection)
    if opened is None:
        return False
    connection.attach(opened.transport)
    connection.context.events.count("connections_opened", transport=connection.transport_name)
    connection.log("debug", "connection_opened", transport=connection.transport_name, address=connection.stream.peer)
    if opened.hello is None or connection.context.hub.broker.is_shared:
        connection.outbox.flush()  # else what answers the handshake leaves with `connected`, which waits for nobody
    if opened.echo is not None:
        await opened.echo(connection)
        return False
    await welcome(connection, opened)
    return True


async def _leave(connection: Connection) -> None:
    """Unregister the client, within a deadline where the broker has to be asked."""
    with trio.move_on_after(CLOSE_DEADLINE_S, shield=True):
        await connection.leave()


async def _close(connection: Connection) -> None:
    """Close the socket, whatever happens on the way there."""
    try:
        await _say_last_word(connection)
    except Exception as bug:
        _hit_barrier(connection, bug)
    finally:
        connection.stream.close()


async def _say_last_word(connection: Connection) -> None:
    """Tell the peer why it ends if that can still be heard, and end the stream in order, within the deadline."""
    deadline_s = BLOCKED_DEADLINE_S if connection.is_open and connection.outbox.is_blocked else CLOSE_DEADLINE_S
    if trio.current_effective_deadline() == -inf:  # cancelled from outside: nobody gave this connection a reason
        connection.ending = connection.ending or Ending(CloseCode.RESTART, "the node shuts down")
        deadline_s = STOPPED_DEADLINE_S
    ending = connection.ending
    with trio.move_on_after(deadline_s, shield=True), contextlib.suppress(StreamBroken, trio.TooSlowError):
        if connection.is_open:
            code = CloseCode.NORMAL if ending is None else ending.code
            _count_ending(connection, code)
            final = b"" if ending is None else connection.transport.final_frame(ending.code, ending.message)
            connection.outbox.close(final, discard=code is CloseCode.TOO_SLOW)
            await connection.outbox.drain(CLOSE_DEADLINE_S)
        elif ending is not None and ending.code is CloseCode.UNAUTHORIZED:
            connection.refused("handshake_timeout")
        await connection.stream.finish(CLOSE_DEADLINE_S)


def _count_ending(connection: Connection, code: CloseCode) -> None:
    events, ending = connection.context.events, connection.ending
    connection.log(
        "debug" if code in ORDINARY else "info",
        "connection_closed",
        reason=code.reason,
        message="" if ending is None else ending.message,
        user=None if connection.identity is None else connection.identity.user,
        transport=connection.transport_name,
        address=connection.stream.peer,
        open_s=round((connection.context.clock.unix_ms() - connection.opened_ms) / 1000, 3),
    )
    events.count("connections_closed", transport=connection.transport_name, reason=code.reason)
    if code is CloseCode.HEARTBEAT_LOST:
        events.count("heartbeats_lost")
    elif code is CloseCode.RATE_LIMITED:
        events.count("rate_limited", kind="flood")


def _blame(connection: Connection, faults: BaseExceptionGroup[RemoteProtocolError]) -> None:
    """Tell a client that broke the protocol which rule it broke."""
    fault = faults.exceptions[0]
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    assert isinstance(fault, RemoteProtocolError)
    connection.ending = connection.ending or Ending(fault.close_code, fault.message)
    # The transport remembers the fault, whose way leads through the transport: a cycle, until garbage is collected.
    fault.__traceback__ = fault.__context__ = None


def _hit_barrier(connection: Connection, bugs: Exception | BaseExceptionGroup[Exception]) -> None:
    """Something nobody foresaw: a bug. It ends this client, and it is counted."""
    connection.ending = connection.ending or Ending(CloseCode.INTERNAL, "internal error")
    connection.context.events.count("barrier_hits", place="connection")
    text = "".join(traceback.format_exception(bugs))
    connection.log("error", "connection_failed", address=connection.stream.peer, traceback=text)
