"""The device link: a bare stream of frames from the first byte.

Source: spec/wire.md, "Transports".
"""

from typing import Protocol

from notifyd.hub.outbox import Outbox
from notifyd.transport.stream import ByteStream
from protocol.codec import Frame, FrameDecoder
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.framing import Form, to_wire
from protocol.messages import Error, encode


class Ears(Protocol):
    """Who is to know that a device lives."""

    def heard(self) -> None:
        """Take note that bytes arrived, whatever they are."""


class DeviceTransport:
    """The receiving half of a device link; see notifyd.connection.transport.Transport.

    `ears` are told whenever bytes arrive. Until `set_payload_limit` is called frames are judged and returned one by
    one: what follows `connect` is held to the limits of a connected client, however the stream was cut.
    """

    __slots__ = ("_decoder", "_ears", "_one_by_one", "_outbox", "_stream")

    form = Form.DEVICE_JSON

    def __init__(self, stream: ByteStream, payload_limit_bytes: int, ears: Ears) -> None:
        self._stream = stream
        self._ears = ears
        self._decoder = FrameDecoder(payload_limit_bytes)
        self._one_by_one = True
        self._outbox: Outbox | None = None

    async def receive(self) -> list[Frame] | None:
        """Wait for whole frames; None when the peer ended the stream, also in the middle of one."""
        while True:
            if frames := self._take_frames():
                return frames
            data = await self._stream.receive_some()
            if not data:
                return None
            self._ears.heard()
            self._decoder.receive(data)

    def _take_frames(self) -> list[Frame]:
        frames: list[Frame] = []
        try:
            while (frame := self._decoder.next_frame()) is not None:
                frames.append(frame)
                if self._one_by_one:
                    break
        except RemoteProtocolError:
            if not frames:  # the decoder raises it again once the frames before it have been handled
                raise
        return frames

    def attach(self, outbox: Outbox) -> None:
        """Remember the outbox: its form is the encoding the peer chose."""
        self._outbox = outbox

    def set_payload_limit(self, limit_bytes: int) -> None:
        """Refuse payloads above this from their header alone."""
        self._decoder.payload_limit_bytes = limit_bytes
        self._one_by_one = False

    def final_frame(self, code: CloseCode, message: str) -> bytes:
        """Build the `error` push that tells a device why its link ends."""
        form = self.form if self._outbox is None else self._outbox.form
        error = Error(code=code, reason=code.reason, message=message)
        return to_wire(form, encode(error, form.encoding), 0)
