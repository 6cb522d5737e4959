"""What comes before a client's own first byte: a proxy's word about who it is, and the TLS handshake."""

from collections.abc import Collection

from notifyd.errors import StreamBroken
from notifyd.events import Events
from notifyd.policy.forwarding import UNKNOWN, is_among
from notifyd.settings import Network
from notifyd.transport.proxy_header import ProxyHeader, ProxyHeaderError, ProxyHeaderReader
from notifyd.transport.stream import ByteStream
from notifyd.transport.tls import TlsStream


async def introduce(stream: ByteStream, proxies: Collection[Network], events: Events) -> None:
    """Read the PROXY header where the peer is one of `proxies`, then shake hands where the stream is a TLS one.

    Afterwards `stream.peer` is the client's address. One of `proxies` has to send the header; of anybody else it would
    be the client's own first bytes, and no good ones. The caller sets the deadline. Raises StreamBroken.
    """
    if is_among(stream.peer, proxies):
        below = stream.transport if isinstance(stream, TlsStream) else stream
        try:
            header = await _read_header(below)
        except ProxyHeaderError as problem:
            events.count("refusals", reason="proxy_header")
            events.log("warning", "proxy_header_refused", proxy=stream.peer, problem=str(problem))
            raise StreamBroken(f"PROXY header: {problem}") from None
        if not header.is_local:
            stream.peer = UNKNOWN if header.source is None else str(header.source)
    if isinstance(stream, TlsStream):
        await stream.handshake()


async def _read_header(stream: ByteStream) -> ProxyHeader:
    reader = ProxyHeaderReader()
    while True:
        data = await stream.receive_some(reader.wanted_bytes)
        if not data:
            raise StreamBroken("the proxy left before its PROXY header was complete")
        header = reader.receive(data)
        if header is not None:
            return header
