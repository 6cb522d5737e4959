"""Where a client's frames come in: heartbeats are answered here, requests go to their handlers."""

import trio

from notifyd.connection.connecting import connect
from notifyd.connection.connection import Connection
from notifyd.connection.requests import answer, to_error
from notifyd.connection.transport import Opened
from notifyd.errors import BrokerUnavailable
from notifyd.hub.traffic import form_of
from protocol.codec import HEADER_BYTES, Frame, FrameType, encode_heartbeat
from protocol.errors import CloseCode, RequestError
from protocol.framing import Encoding, Form

EVENTS_PER_CHECKPOINT = 16
"""A client that sends much at once lets others have their turn after so many frames."""


async def welcome(connection: Connection, opened: Opened) -> None:
    """Connect a client whose handshake said everything: `connected` is the first it hears."""
    if opened.identity is None or opened.hello is None:
        return
    try:
        await connect(connection, opened.hello, opened.identity, opened.topics)
    except RequestError as error:
        connection.send(to_error(error, None))
        connection.end(CloseCode.UNAUTHORIZED, error.message)
    except BrokerUnavailable:
        connection.end(CloseCode.RESTART, "the broker is away")
    connection.outbox.flush()


async def handle(connection: Connection, frames: list[Frame]) -> None:
    """Do what frames that arrived together ask for, in order. Raises RemoteProtocolError.

    Replies leave together, but not those that would have to wait for another request's.
    """
    may_wait = connection.context.hub.broker.is_shared
    for count, frame in enumerate(frames, start=1):
        if may_wait:
            connection.outbox.flush()
        if connection.subscriber is None:
            connection.count_before_connect(HEADER_BYTES + len(frame.payload))
        if frame.type <= FrameType.PONG:
            _handle_heartbeat(connection, frame)
        else:
            await _handle_request(connection, frame)
        if connection.ended:
            break
        if count % EVENTS_PER_CHECKPOINT == 0:
            connection.outbox.flush()
            await trio.lowlevel.checkpoint()
    connection.outbox.flush()


def _handle_heartbeat(connection: Connection, frame: Frame) -> None:
    liveness = connection.watch.liveness
    now_s = liveness.heard_s
    connection.limits.take_heartbeats(1, now_s)
    if frame.type is FrameType.PING:
        connection.send_heartbeat(encode_heartbeat(FrameType.PONG, frame.timestamp_ms))
        return
    round_trip_s = liveness.pong(frame.timestamp_ms, now_s)
    if round_trip_s is not None:
        connection.context.events.observe("round_trip_seconds", round_trip_s, transport=connection.transport_name)


async def _handle_request(connection: Connection, frame: Frame) -> None:
    encoding = Encoding.MSGPACK if frame.type is FrameType.MSGPACK else Encoding.JSON
    if connection.subscriber is None and connection.outbox.form.is_device:
        # A device link is answered in the encoding of its `connect`, and until then in that of its last frame.
        connection.outbox.form = Form.DEVICE_JSON if encoding is Encoding.JSON else Form.DEVICE_MSGPACK
    connection.context.hub.traffic.came_in(form_of(connection.outbox.form, encoding), len(frame.payload))
    await answer(connection, frame.payload, encoding)
