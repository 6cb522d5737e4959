"""The device listener: raw frames over TCP, or over TLS."""

import ssl
from collections.abc import Awaitable, Callable

from notifyd.connection.connection import Connection
from notifyd.connection.context import Context
from notifyd.connection.life import serve_client
from notifyd.connection.limits import CONNECT_BYTES
from notifyd.connection.transport import Opened
from notifyd.listeners.introduction import introduce
from notifyd.transport.device import DeviceTransport
from notifyd.transport.stream import SocketStream
from notifyd.transport.tls import TlsStream
from protocol.errors import ErrorCode
from protocol.framing import Encoding, Form, to_wire
from protocol.messages import Error, encode

DEVICE_REFUSAL = to_wire(
    Form.DEVICE_JSON,
    encode(
        Error(code=ErrorCode.UNAVAILABLE, reason="unavailable", message="the connection limit is reached"),
        Encoding.JSON,
    ),
    0,
)
"""What a device over the connection limit gets before its link is closed."""


def device_server(context: Context, tls: ssl.SSLContext | None) -> Callable[[SocketStream], Awaitable[None]]:
    """Return what serves one accepted device link."""

    def serve(socket_stream: SocketStream) -> Awaitable[None]:
        stream = socket_stream if tls is None else TlsStream(socket_stream, tls)
        return serve_client(stream, context, _open)

    return serve


async def _open(connection: Connection) -> Opened:
    stream, context = connection.stream, connection.context
    await introduce(stream, context.settings.listen.proxy_protocol.device, context.events)
    return Opened(DeviceTransport(stream, CONNECT_BYTES, connection.watch))
