import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.codec import (
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameDecoder,
    FrameType,
    encode_frame,
    encode_heartbeat,
    frames_of_message,
)
from protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from protocol.frames import TruncatedFrame, parse_frame
from tests.protocol.strategies import SMALL_LIMIT_BYTES, chunks_of, streams, timestamps_ms, valid_streams

PING = encode_heartbeat(FrameType.PING, 1)

Outcome = tuple[list[Frame], CloseCode | int]
"""The frames of a stream, then the error's code, or how many bytes wait for more."""


def by_construct(stream: bytes, limit_bytes: int) -> Outcome:
    frames: list[Frame] = []
    start = 0
    while True:
        try:
            fields = parse_frame(stream[start:], limit_bytes)
        except TruncatedFrame:
            return frames, len(stream) - start
        except RemoteProtocolError as error:
            return frames, error.close_code
        frames.append(Frame(FrameType(fields.type), fields.timestamp_ms, fields.get("payload", b"")))
        start += fields.size_bytes


def by_codec(chunks: Iterable[bytes], limit_bytes: int) -> Outcome:
    decoder = FrameDecoder(limit_bytes)
    frames: list[Frame] = []
    try:
        for chunk in chunks:
            decoder.receive(chunk)
            while (frame := decoder.next_frame()) is not None:
                frames.append(frame)
    except RemoteProtocolError as error:
        return frames, error.close_code
    return frames, decoder.buffered_bytes


@given(chunks_of(streams))
@example([PING * 3 + encode_frame(FrameType.JSON, b"x" * SMALL_LIMIT_BYTES) * 2])
@example([PING, b"HEAR\x09"])
@example([PING, b"HEAX"])
def test_the_codec_equals_the_declared_layout_however_the_stream_is_cut(chunks: list[bytes]) -> None:
    assert by_codec(chunks, SMALL_LIMIT_BYTES) == by_construct(b"".join(chunks), SMALL_LIMIT_BYTES)


@given(streams)
def test_a_binary_message_is_a_stream_that_must_end_with_a_frame(message: bytes) -> None:
    frames, rest = by_construct(message, SMALL_LIMIT_BYTES)
    read: list[Frame] = []
    error = None
    try:
        for frame in frames_of_message(message, SMALL_LIMIT_BYTES):
            read.append(frame)  # noqa: PERF402 - what came before the error counts
    except RemoteProtocolError as failure:
        error = failure.close_code
    assert read == frames
    if isinstance(rest, CloseCode):
        assert error is rest
    else:
        assert error is (CloseCode.PROTOCOL_ERROR if rest or not message else None)


@given(chunks_of(valid_streams))
def test_what_was_decoded_encodes_to_the_same_bytes(chunks: list[bytes]) -> None:
    frames, rest = by_codec(chunks, SMALL_LIMIT_BYTES)
    assert rest == 0
    assert b"".join(encoded(frame) for frame in frames) == b"".join(chunks)


@given(st.sampled_from(FrameType), timestamps_ms, st.binary(max_size=200))
def test_what_was_encoded_decodes_to_the_same_frame(kind: FrameType, timestamp_ms: int, payload: bytes) -> None:
    frame = Frame(kind, timestamp_ms, payload if kind > FrameType.PONG else b"")
    assert list(frames_of_message(encoded(frame))) == [frame]


def encoded(frame: Frame) -> bytes:
    assert isinstance(frame.payload, bytes)
    if frame.type <= FrameType.PONG:
        return encode_heartbeat(frame.type, frame.timestamp_ms)
    return encode_frame(frame.type, frame.payload, frame.timestamp_ms)


@pytest.mark.parametrize("limit_bytes", [0, 1, 1000, MAX_PAYLOAD_BYTES])
def test_a_payload_above_the_limit_is_refused_from_its_header(limit_bytes: int) -> None:
    decoder = FrameDecoder(limit_bytes)
    header = encode_frame(FrameType.JSON, b"")[:-3]
    decoder.receive(header + limit_bytes.to_bytes(3, "big"))
    if limit_bytes:
        assert decoder.next_frame() is None
    else:
        assert decoder.next_frame() == Frame(FrameType.JSON, 0, b"")
    if limit_bytes < MAX_PAYLOAD_BYTES:
        decoder = FrameDecoder(limit_bytes)
        decoder.receive(header + (limit_bytes + 1).to_bytes(3, "big"))
        with pytest.raises(RemoteProtocolError, match=f"above the limit of {limit_bytes}") as caught:
            decoder.next_frame()
        assert caught.value.close_code is CloseCode.TOO_LARGE


def test_the_limit_may_change_between_frames() -> None:
    decoder = FrameDecoder(10)
    decoder.receive(encode_frame(FrameType.JSON, b"x" * 10) + encode_frame(FrameType.JSON, b"y" * 11))
    assert decoder.next_frame() is not None
    decoder.payload_limit_bytes = 11
    assert decoder.next_frame() == Frame(FrameType.JSON, 0, b"y" * 11)


def test_the_error_names_the_wrong_byte() -> None:
    with pytest.raises(RemoteProtocolError, match="byte 3 is 0x54, not 0x52"):
        list(frames_of_message(b"HEAT" + PING[4:]))
    with pytest.raises(RemoteProtocolError, match="unknown frame type 7"):
        list(frames_of_message(b"HEAR\x07" + PING[5:]))
    with pytest.raises(RemoteProtocolError, match="must be zero, not 000100"):
        list(frames_of_message(PING[:13] + b"\x00\x01\x00"))


def test_an_error_is_final_and_what_follows_is_not_kept() -> None:
    decoder = FrameDecoder()
    decoder.receive(PING + b"no frame")
    assert decoder.next_frame() == Frame(FrameType.PING, 1)
    with pytest.raises(RemoteProtocolError) as first:
        decoder.next_frame()
    for _ in range(3):
        decoder.receive(PING * 1000)
        assert decoder.buffered_bytes == 0
        with pytest.raises(RemoteProtocolError, match="a frame begins with") as again:
            decoder.next_frame()
        assert again.value is not first.value  # an exception raised again would grow its traceback each time
        assert (again.value.message, again.value.close_code) == (first.value.message, first.value.close_code)


@pytest.mark.parametrize("kind", [FrameType.JSON, FrameType.MSGPACK])
def test_a_heartbeat_of_another_type_is_our_own_mistake(kind: FrameType) -> None:
    with pytest.raises(LocalProtocolError, match="is not a heartbeat"):
        encode_heartbeat(kind, 0)


@pytest.mark.parametrize(
    ("kind", "payload_bytes", "timestamp_ms", "said"),
    [
        (FrameType.PING, 0, 0, "carries no payload"),
        (FrameType.PONG, 0, 0, "carries no payload"),
        (FrameType.JSON, MAX_PAYLOAD_BYTES + 1, 0, "does not fit the 24-bit length"),
        (FrameType.MSGPACK, 1, -1, "timestamp -1"),
        (FrameType.MSGPACK, 1, 2**64, "timestamp 18446744073709551616"),
    ],
)
def test_what_no_frame_can_hold_is_our_own_mistake(
    kind: FrameType, payload_bytes: int, timestamp_ms: int, said: str
) -> None:
    with pytest.raises(LocalProtocolError, match=said):
        encode_frame(kind, bytes(payload_bytes), timestamp_ms)


# --- memory ----------------------------------------------------------------------------------------------------------


ROOM_BYTES = 8 * 1024
"""For what has a fixed size: the decoder, an exception, a frame."""


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 65536, 10**6])
def test_the_decoder_holds_at_most_twice_its_input(chunk_bytes: int) -> None:
    stream = encode_frame(FrameType.JSON, bytes(200_000 if chunk_bytes > 1 else 5_000))
    decoder = FrameDecoder(MAX_PAYLOAD_BYTES)
    received_bytes = 0
    tracemalloc.start()
    try:
        for start in range(0, len(stream), chunk_bytes):
            chunk = stream[start : start + chunk_bytes]
            decoder.receive(chunk)
            received_bytes += len(chunk)
            assert tracemalloc.get_traced_memory()[0] <= 2 * received_bytes + ROOM_BYTES
            tracemalloc.reset_peak()
            frame = decoder.next_frame()
            assert tracemalloc.get_traced_memory()[1] <= 3 * received_bytes + ROOM_BYTES  # with the payload itself
        assert frame is not None
    finally:
        tracemalloc.stop()


def test_an_endless_stream_of_small_frames_does_not_pile_up() -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        for _ in range(2000):
            decoder.receive(PING * 10 + PING[:7])
            while decoder.next_frame() is not None:
                pass
            decoder.receive(PING[7:])
            assert decoder.next_frame() == Frame(FrameType.PING, 1)
        assert tracemalloc.get_traced_memory()[1] <= ROOM_BYTES
    finally:
        tracemalloc.stop()


def test_a_refused_announcement_costs_nothing() -> None:
    decoder = FrameDecoder()
    decoder.receive(encode_frame(FrameType.JSON, b"")[:-3] + b"\xff\xff\xff")
    tracemalloc.start()
    try:
        for _ in range(100):
            with pytest.raises(RemoteProtocolError):
                decoder.next_frame()
            decoder.receive(bytes(65536))
        assert tracemalloc.get_traced_memory()[0] <= ROOM_BYTES
    finally:
        tracemalloc.stop()


def test_a_decoder_that_has_handed_out_everything_holds_nothing() -> None:
    decoder = FrameDecoder()
    stream = encode_frame(FrameType.JSON, bytes(60_000))
    for chunk in (stream, stream[:30_000], stream[30_000:]):
        decoder.receive(chunk)
        while decoder.next_frame() is not None:
            pass
    assert decoder.buffered_bytes == 0
    assert decoder._buffer == b""
