"""The device link from the client's side: a stream of frames from the first byte.

Source: spec/wire.md, "Transports".
"""

from collections.abc import Iterable, Sequence

import trio

from notifyd.client.link import Heard, LinkClosed
from protocol.codec import MAX_PAYLOAD_BYTES, Frame, FrameDecoder, FrameType, encode_frame, encode_heartbeat
from protocol.errors import CloseCode


class DeviceClientLink:
    """A ClientLink over any byte stream, plain or TLS."""

    def __init__(self, stream: trio.abc.Stream, heard: Heard) -> None:
        self._stream = stream
        self._heard = heard
        self._decoder = FrameDecoder(MAX_PAYLOAD_BYTES)

    async def send(self, frames: Sequence[Frame]) -> None:
        """Send frames in one write."""
        try:
            await self._stream.send_all(b"".join(map(to_bytes, frames)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkClosed(f"the connection broke: {error}") from None

    async def receive(self) -> Iterable[Frame]:
        """Wait for bytes; see ClientLink."""
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkClosed(f"the connection broke: {error}") from None
        if not data:
            raise LinkClosed("the server closed the connection")
        self._heard()
        self._decoder.receive(bytes(data))
        return iter(self._decoder.next_frame, None)

    async def close(self, code: CloseCode) -> None:  # noqa: ARG002 - a device link has no close code
        """Announce the end of the stream."""
        try:
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            else:
                await self._stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def to_bytes(frame: Frame) -> bytes:
    """Write one frame down as it travels."""
    if frame.type <= FrameType.PONG:
        return encode_heartbeat(frame.type, frame.timestamp_ms)
    payload = frame.payload.encode() if isinstance(frame.payload, str) else frame.payload
    return encode_frame(frame.type, payload, frame.timestamp_ms)
