"""What a load's clients say, as bytes, on either transport in either encoding.

A client's WebSocket frames are masked (RFC 6455 section 5.3); a key of zeros is one, and leaves the bytes as they
are.
"""

from notifyd.bench.load import EncodingName, TransportName
from protocol.codec import FrameType, encode_heartbeat
from protocol.framing import Form, Opcode, to_wire, websocket_frame
from protocol.messages import Request, encode

_FORMS: dict[tuple[TransportName, EncodingName], Form] = {
    ("websocket", "json"): Form.WEBSOCKET_JSON,
    ("websocket", "msgpack"): Form.WEBSOCKET_MSGPACK,
    ("device", "json"): Form.DEVICE_JSON,
    ("device", "msgpack"): Form.DEVICE_MSGPACK,
}


class Dialect:
    """A transport and an encoding, spoken by a client."""

    def __init__(self, transport: TransportName, encoding: EncodingName) -> None:
        self.form = _FORMS[transport, encoding]
        self._subprotocol = f"notifyd.v1.{encoding}"

    def request(self, message: Request) -> bytes:
        """Write a request down."""
        frame = to_wire(self.form, encode(message, self.form.encoding), 0)
        return frame if self.form.is_device else mask_with_zeros(frame)

    def heartbeat(self, kind: FrameType, timestamp: int) -> bytes:
        """Write a PING or a PONG down."""
        beat = encode_heartbeat(kind, timestamp)
        return beat if self.form.is_device else mask_with_zeros(websocket_frame(Opcode.BINARY, beat))

    def upgrade(self, authority: str, target: str) -> bytes:
        """Write down the request that opens a WebSocket connection."""
        return (
            f"GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: bm90aWZ5ZCBiZW5jaCAhIQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {self._subprotocol}\r\n\r\n"
        ).encode()


def mask_with_zeros(frame: bytes) -> bytes:
    """Make a client's frame of an unmasked one."""
    head_bytes = {126: 4, 127: 10}.get(frame[1], 2)
    return bytes((frame[0], frame[1] | 0x80)) + frame[2:head_bytes] + bytes(4) + frame[head_bytes:]
