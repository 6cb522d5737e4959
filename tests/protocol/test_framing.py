from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol
from wsproto.frame_protocol import Frame as WsprotoFrame
from wsproto.frame_protocol import Opcode as WsprotoOpcode

from protocol.codec import Frame, FrameType, encode_heartbeat, frames_of_message
from protocol.errors import CloseCode, LocalProtocolError
from protocol.framing import (
    MAX_CLOSE_REASON_BYTES,
    Encoding,
    Form,
    Opcode,
    close_frame,
    heartbeat_to_wire,
    to_wire,
    websocket_frame,
)

PAYLOAD = b'{"op":"pong","id":1}'


def received(data: bytes) -> WsprotoFrame:
    """Read exactly one WebSocket frame, as a client does, with a library nobody here wrote."""
    peer = FrameProtocol(client=True, extensions=[])
    peer.receive_bytes(data)
    (frame,) = list(peer.received_frames())
    assert frame.frame_finished
    assert frame.message_finished
    return frame


def read_by_wsproto(data: bytes) -> tuple[WsprotoOpcode, bytes]:
    frame = received(data)
    payload: Any = frame.payload
    return frame.opcode, payload.encode() if isinstance(payload, str) else bytes(payload)


@pytest.mark.parametrize(
    ("form", "encoding", "is_device"),
    [
        (Form.WEBSOCKET_JSON, Encoding.JSON, False),
        (Form.WEBSOCKET_MSGPACK, Encoding.MSGPACK, False),
        (Form.DEVICE_JSON, Encoding.JSON, True),
        (Form.DEVICE_MSGPACK, Encoding.MSGPACK, True),
    ],
)
def test_a_form_is_a_transport_and_an_encoding(form: Form, encoding: Encoding, is_device: bool) -> None:
    assert (form.encoding, form.is_device) == (encoding, is_device)


def test_a_json_websocket_gets_text() -> None:
    assert read_by_wsproto(to_wire(Form.WEBSOCKET_JSON, PAYLOAD, 5)) == (WsprotoOpcode.TEXT, PAYLOAD)


def test_a_msgpack_websocket_gets_a_binary_message_of_one_frame() -> None:
    opcode, message = read_by_wsproto(to_wire(Form.WEBSOCKET_MSGPACK, PAYLOAD, 5))
    assert opcode is WsprotoOpcode.BINARY
    assert list(frames_of_message(message)) == [Frame(FrameType.MSGPACK, 5, PAYLOAD)]


@pytest.mark.parametrize(
    ("form", "kind"), [(Form.DEVICE_JSON, FrameType.JSON), (Form.DEVICE_MSGPACK, FrameType.MSGPACK)]
)
def test_a_device_gets_a_bare_frame(form: Form, kind: FrameType) -> None:
    assert list(frames_of_message(to_wire(form, PAYLOAD, 5))) == [Frame(kind, 5, PAYLOAD)]


@pytest.mark.parametrize("form", Form)
def test_a_heartbeat_is_16_bytes_on_every_transport(form: Form) -> None:
    heartbeat = encode_heartbeat(FrameType.PONG, 5)
    wire = heartbeat_to_wire(form, heartbeat)
    assert (wire if form.is_device else read_by_wsproto(wire)) == (
        heartbeat if form.is_device else (WsprotoOpcode.BINARY, heartbeat)
    )


@pytest.mark.parametrize("size_bytes", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_frames_are_what_another_implementation_reads(size_bytes: int) -> None:
    payload = b"x" * size_bytes
    assert read_by_wsproto(websocket_frame(Opcode.BINARY, payload)) == (WsprotoOpcode.BINARY, payload)
    assert read_by_wsproto(websocket_frame(Opcode.TEXT, payload)) == (WsprotoOpcode.TEXT, payload)


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_a_control_frame_holds_125_bytes(opcode: Opcode) -> None:
    assert len(websocket_frame(opcode, bytes(125))) == 127
    with pytest.raises(LocalProtocolError, match=f"a {opcode.name} frame carries at most 125 bytes, not 126"):
        websocket_frame(opcode, bytes(126))


@given(st.sampled_from(CloseCode), st.text(st.characters(), max_size=200))
@example(CloseCode.TOO_SLOW, "é" * 100)
@example(CloseCode.TOO_SLOW, "x" * 122 + "😀")
@example(CloseCode.TOO_SLOW, "half a pair: \ud83d")
def test_a_close_frame_carries_its_code_and_as_much_of_the_reason_as_fits(code: CloseCode, reason: str) -> None:
    payload: Any = received(close_frame(code, reason)).payload
    told_code, told = payload[0], payload[1] or ""
    assert told_code == code
    assert len(told.encode()) <= MAX_CLOSE_REASON_BYTES
    sent = reason.encode(errors="replace").decode()
    assert sent.startswith(told)
    assert told == sent or len(told.encode()) > MAX_CLOSE_REASON_BYTES - 4


def test_wsproto_knows_the_registered_codes_by_the_same_numbers() -> None:
    for ours, theirs in (
        (CloseCode.RESTART, CloseReason.SERVICE_RESTART),
        (CloseCode.MESSAGE_TOO_BIG, CloseReason.MESSAGE_TOO_BIG),
        (CloseCode.INVALID_TEXT, CloseReason.INVALID_FRAME_PAYLOAD_DATA),
        (CloseCode.UNSUPPORTED_DATA, CloseReason.UNSUPPORTED_DATA),
        (CloseCode.POLICY_VIOLATION, CloseReason.POLICY_VIOLATION),
    ):
        assert int(ours) == int(theirs)
