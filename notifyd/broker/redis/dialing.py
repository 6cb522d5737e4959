"""Opening the transport of a link: TCP, TLS on it, or a unix socket; within a deadline, failing in words."""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator

import trio

from notifyd.broker.redis.link import Dial, LinkLost
from notifyd.broker.redis.target import Endpoint

CONNECT_DEADLINE_S = 5.0
"""For the TCP connection and the TLS handshake together."""

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds, times. A link asks its server every two seconds; this is for what hangs while nobody is left."""


def dial_server(
    endpoint: Endpoint, tls: ssl.SSLContext | None = None, *, deadline_s: float = CONNECT_DEADLINE_S
) -> Dial:
    """Make a function that connects to this server: its unix socket, or its host and port, with `tls` encrypted.

    The certificate has to be valid for the endpoint's host, unless the context says otherwise. Raises LinkLost.
    """

    async def dial() -> trio.abc.Stream:
        awaited = "connection"
        with trio.move_on_after(deadline_s), _told_in_words():
            transport = await _connect(endpoint)
            if tls is None:
                return transport
            awaited = "TLS handshake"
            return await _secured(transport, tls, endpoint.host)
        raise LinkLost(f"no {awaited} within {deadline_s:g} s")

    return dial


async def _connect(endpoint: Endpoint) -> trio.SocketStream:
    if endpoint.path:
        return await trio.open_unix_socket(endpoint.path)
    transport = await trio.open_tcp_stream(endpoint.host, endpoint.port)  # sets TCP_NODELAY
    _keep_alive(transport)
    return transport


def _keep_alive(transport: trio.SocketStream) -> None:
    with contextlib.suppress(OSError):  # a kernel that lacks one of them
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                transport.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _secured(transport: trio.abc.Stream, tls: ssl.SSLContext, host: str) -> trio.abc.Stream:
    stream = trio.SSLStream(transport, tls, server_hostname=host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(transport)
        raise
    return stream


@contextlib.contextmanager
def _told_in_words() -> Iterator[None]:
    try:
        yield
    except (OSError, trio.BrokenResourceError) as error:
        raise LinkLost(_describe(error)) from None


def _describe(error: BaseException) -> str:
    """Say it as the system or the TLS library does, without the layers that Trio puts around it."""
    cause = error
    while cause.__cause__ is not None or isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"no TLS handshake: {(cause.reason or str(cause)).replace('_', ' ').lower()}"
    if isinstance(cause, socket.gaierror):
        return f"the host is not known: {cause.strerror}"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__
