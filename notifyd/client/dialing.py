"""Opening the byte stream below a link: TCP, and TLS on it where the address asks for it."""

import os
import socket
import ssl
from collections.abc import Awaitable, Callable

import trio

from notifyd.client.address import ServerAddress
from notifyd.client.link import LinkClosed

DialNode = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to a host and a port: TCP by default; a tunnel, a proxy or a test hands in its own."""


async def open_stream(address: ServerAddress, dial: DialNode, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    """Open the stream, TLS handshake included. Raises LinkClosed; cancelled, nothing stays open."""
    try:
        stream = await dial(address.host, address.port)
        if address.is_secure:
            stream = await _secure(stream, address.host, ssl_context or ssl.create_default_context())
    except (OSError, trio.BrokenResourceError) as error:
        raise LinkClosed(_describe(error)) from None
    return stream


async def _secure(stream: trio.abc.Stream, host: str, context: ssl.SSLContext) -> trio.abc.Stream:
    secured = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def _describe(error: BaseException) -> str:
    """Say what went wrong: the cause at the bottom knows best (Trio puts "all attempts failed" above it)."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {cause.verify_message}"
    told = cause or error
    if isinstance(told, OSError) and told.errno and not isinstance(told, ssl.SSLError | socket.gaierror):
        return os.strerror(told.errno)
    return (isinstance(told, OSError) and told.strerror) or str(told) or type(told).__name__
