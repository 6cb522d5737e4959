import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import MAX_PAYLOAD_BYTES, FrameType, encode_frame, encode_heartbeat
from protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from protocol.frames import DATA_TYPES, HEARTBEAT_TYPES, Heartbeat, TruncatedFrame, build_frame, parse_frame
from tests.protocol.strategies import timestamps_ms


def test_a_heartbeat_is_16_bytes() -> None:
    assert Heartbeat.sizeof() == 16
    assert build_frame(FrameType.PING, 1000).hex() == "484541520000000000000003e8000000"


@given(st.sampled_from(HEARTBEAT_TYPES), timestamps_ms)
def test_heartbeats_are_built_as_the_codec_does(kind: FrameType, timestamp_ms: int) -> None:
    assert build_frame(kind, timestamp_ms) == encode_heartbeat(kind, timestamp_ms)


@given(st.sampled_from(DATA_TYPES), timestamps_ms, st.binary(max_size=300))
def test_data_frames_are_built_as_the_codec_does(kind: FrameType, timestamp_ms: int, payload: bytes) -> None:
    assert build_frame(kind, timestamp_ms, payload) == encode_frame(kind, payload, timestamp_ms)


@given(st.sampled_from(FrameType), timestamps_ms, st.binary(min_size=1, max_size=100), st.binary(max_size=20))
def test_parsing_gives_back_what_was_built(kind: FrameType, timestamp_ms: int, payload: bytes, more: bytes) -> None:
    payload = payload if kind in DATA_TYPES else b""
    frame = build_frame(kind, timestamp_ms, payload)
    fields = parse_frame(frame + more)
    assert (fields.magic, fields.type, fields.timestamp_ms) == (b"HEAR", kind, timestamp_ms)
    assert fields.size_bytes == len(frame)
    assert fields.payload == payload if kind in DATA_TYPES else fields.reserved == bytes(3)


@pytest.mark.parametrize("size_bytes", range(18))
def test_the_beginning_of_a_frame_is_truncated(size_bytes: int) -> None:
    with pytest.raises(TruncatedFrame, match=f"cut off after {size_bytes} bytes"):
        parse_frame(build_frame(FrameType.JSON, 5, b"{}")[:size_bytes])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"X", "a frame begins with 48454152"),
        (b"HEX", "a frame begins with 48454152"),
        (b"XXXX" + bytes(12), "magic"),
        (b"HEAR\x04" + bytes(11), "type"),
        (b"HEAR\x00" + bytes(10) + b"\x01", "reserved"),
    ],
)
def test_what_is_no_frame_says_where_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(RemoteProtocolError, match=said) as caught:
        parse_frame(data)
    assert not isinstance(caught.value, TruncatedFrame)
    assert caught.value.close_code is CloseCode.PROTOCOL_ERROR
    assert "\n" not in caught.value.message


def test_a_payload_above_the_limit_is_refused_before_it_is_read() -> None:
    header = build_frame(FrameType.JSON, 0, bytes(33))[:16]
    with pytest.raises(TruncatedFrame):
        parse_frame(header, 33)
    with pytest.raises(RemoteProtocolError, match="payload_bytes") as caught:
        parse_frame(header, 32)
    assert caught.value.close_code is CloseCode.TOO_LARGE


@pytest.mark.parametrize(
    ("kind", "timestamp_ms", "payload_bytes"),
    [
        (FrameType.PING, 0, 1),
        (FrameType.PONG, -1, 0),
        (FrameType.JSON, 2**64, 0),
        (FrameType.JSON, 0, MAX_PAYLOAD_BYTES + 1),
        (7, 0, 0),
    ],
)
def test_what_no_frame_can_hold_is_our_own_mistake(kind: FrameType, timestamp_ms: int, payload_bytes: int) -> None:
    with pytest.raises(LocalProtocolError):
        build_frame(kind, timestamp_ms, bytes(payload_bytes))
