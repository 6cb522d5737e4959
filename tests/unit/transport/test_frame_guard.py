"""The frame guard: what passes, what is refused with which code, and that the cutting of the stream does not matter."""

import pytest

from notifyd.transport.frame_guard import MAX_FRAGMENTS, FrameGuard, GuardError
from protocol.errors import CloseCode, RemoteProtocolError
from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, frame, unmasked

LIMIT = 1000


def pass_through(guard: FrameGuard, *segments: bytes, into: list[bytes] | None = None) -> list[bytes]:
    """Feed segment by segment; return the pieces handed on (collected `into` a list, they survive an error)."""
    pieces = [] if into is None else into
    for segment in segments:
        guard.feed(segment)
        while (piece := guard.next_piece()) is not None:
            assert piece
            pieces.append(piece)
    return pieces


def refused(data: bytes, limit_bytes: int = LIMIT) -> tuple[bytes, CloseCode]:
    """What was handed on before the refusal, and its code; the same in one segment and byte by byte."""
    outcomes = []
    for segments in ([data], [data[at : at + 1] for at in range(len(data))]):
        pieces: list[bytes] = []
        with pytest.raises(GuardError) as caught:
            pass_through(FrameGuard(limit_bytes), *segments, into=pieces)
        outcomes.append((b"".join(pieces), caught.value.close_code))
        assert caught.value.message
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


PASSING = {
    "text": frame(TEXT, b"hello"),
    "empty text": frame(TEXT),
    "125": frame(BINARY, b"a" * 125),
    "126": frame(BINARY, b"a" * 126),
    "the text limit": frame(TEXT, b"a" * LIMIT),
    "the binary limit": frame(BINARY, b"a" * (LIMIT + 16)),
    "fragments": frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", final=False) + frame(CONTINUATION, b"c"),
    "fragments up to the limit": frame(TEXT, b"a" * 600, final=False) + frame(CONTINUATION, b"b" * 400),
    "binary fragments up to the limit": frame(BINARY, b"a" * 600, final=False) + frame(CONTINUATION, b"b" * 416),
    "control frames between": frame(TEXT, final=False) + frame(PING, b"p" * 125) + frame(PONG) + frame(CONTINUATION),
    "two messages": frame(TEXT, b"a" * LIMIT) + frame(TEXT, b"a" * LIMIT),
    "fragments then a message": frame(TEXT, final=False) + frame(CONTINUATION) + frame(BINARY),
    "close": frame(TEXT) + frame(CLOSE, b"\x03\xe8"),
}


@pytest.mark.parametrize("data", PASSING.values(), ids=PASSING.keys())
def test_what_passes(data: bytes) -> None:
    assert b"".join(pass_through(FrameGuard(LIMIT), data)) == data
    guard = FrameGuard(LIMIT)
    assert b"".join(pass_through(guard, *(data[at : at + 1] for at in range(len(data))))) == data


WHOLE_LENGTH = b"\x81\xff" + (2**40).to_bytes(8)

REFUSED = {
    "over the text limit": (frame(TEXT, b"a" * (LIMIT + 1)), 1009),
    "over the binary limit": (frame(BINARY, b"a" * (LIMIT + 17)), 1009),
    "over the limit in fragments": (frame(TEXT, b"a" * LIMIT, final=False) + frame(CONTINUATION, b"b"), 1009),
    "over the limit in fragments, not finished": (
        frame(BINARY, b"a" * (LIMIT + 16), final=False) + frame(CONTINUATION, b"b", final=False),
        1009,
    ),
    "1 TiB announced": (WHOLE_LENGTH, 1009),
    "2^63 - 1 announced": (b"\x82\xff\x7f" + b"\xff" * 7, 1009),
    "unmasked": (unmasked(TEXT, b"a"), 1002),
    "unmasked and long": (unmasked(TEXT, b"a" * 200), 1002),
    "unmasked ping": (unmasked(PING, b"a"), 1002),
    "RSV1": (frame(TEXT, b"a", reserved=4), 1002),
    "RSV2": (frame(PING, reserved=2), 1002),
    "RSV3": (frame(CLOSE, reserved=1), 1002),
    **{f"opcode {opcode}": (frame(opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": (frame(PING, final=False), 1002),
    "fragmented close": (frame(CLOSE, final=False), 1002),
    "ping of 126": (frame(PING, b"a" * 126), 1002),
    "close of 65536": (frame(CLOSE, b"a" * 65536)[:10], 1002),
    "pong with long form": (frame(PONG, b"a", form=2), 1002),
    "two-byte length that fits one": (frame(TEXT, b"a" * 125, form=2), 1002),
    "eight-byte length that fits two": (frame(TEXT, b"a" * 126, form=8), 1002),
    "negative length": (b"\x81\xff\x80" + b"\0" * 7, 1002),
    "continuation without start": (frame(CONTINUATION, b"a"), 1002),
    "continuation after the end": (frame(TEXT, final=False) + frame(CONTINUATION) + frame(CONTINUATION), 1002),
    "message inside a message": (frame(TEXT, final=False) + frame(TEXT), 1002),
    "binary inside a text": (frame(TEXT, final=False) + frame(BINARY, final=False), 1002),
    "too many fragments": (
        frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", final=False) * MAX_FRAGMENTS,
        1008,
    ),
    "too many empty fragments": (frame(TEXT, final=False) + frame(CONTINUATION, final=False) * MAX_FRAGMENTS, 1008),
    "one fragment too many, the last": (
        frame(TEXT, final=False) + frame(CONTINUATION, final=False) * (MAX_FRAGMENTS - 1) + frame(CONTINUATION),
        1008,
    ),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(data: bytes, code: int) -> None:
    good = frame(TEXT, b"good") + frame(PING)
    handed_on, close_code = refused(good + data, 2000 if code == 1008 else LIMIT)
    assert close_code == code
    assert (good + data).startswith(handed_on)
    assert len(handed_on) >= len(good)


def test_an_error_is_a_protocol_error_and_stays() -> None:
    guard = FrameGuard(LIMIT)
    guard.feed(frame(3) + frame(TEXT))
    for _ in range(3):
        with pytest.raises(RemoteProtocolError, match="opcode 3"):
            guard.next_piece()
        guard.feed(b"a" * 1000)


def test_1024_fragments_pass_again_and_again() -> None:
    message = frame(BINARY, final=False) + frame(CONTINUATION, final=False) * (MAX_FRAGMENTS - 2) + frame(CONTINUATION)
    guard = FrameGuard(LIMIT)
    assert b"".join(pass_through(guard, message * 3)) == message * 3
    assert guard.messages_seen == 3


def test_a_piece_holds_16_frames_at_most() -> None:
    one = frame(PING, b"12")
    guard = FrameGuard(LIMIT)
    assert pass_through(guard, one * 40) == [one * 16, one * 16, one * 8]
    assert pass_through(guard, one[:5], one[5:] + one * 16) == [one[:5], one[5:] + one * 15, one]
    assert guard.pings_seen == 57


def test_payload_is_handed_on_as_it_comes_and_headers_once_judged() -> None:
    long = frame(BINARY, b"a" * 500)
    guard = FrameGuard(LIMIT)
    assert pass_through(guard, long[:3]) == []
    assert pass_through(guard, long[3:6]) == [long[:6]]
    assert pass_through(guard, long[6:100]) == [long[6:100]]
    assert pass_through(guard, long[100:] + b"\x81") == [long[100:]]
    assert pass_through(guard, b"\x80") == [b"\x81\x80"]
    assert pass_through(guard, MASK) == [MASK]


def test_what_follows_a_close_is_thrown_away() -> None:
    closing = frame(CLOSE, b"\x03\xe8bye")
    guard = FrameGuard(LIMIT)
    assert not guard.close_seen
    assert pass_through(guard, closing[:-1]) == [closing[:-1]]
    assert guard.close_seen
    assert pass_through(guard, closing[-1:] + frame(3) + frame(TEXT)) == [closing[-1:]]
    assert pass_through(guard, frame(3), b"a" * 100000) == []
    assert pass_through(FrameGuard(LIMIT), closing + frame(3)) == [closing]


def test_frames_are_counted() -> None:
    guard = FrameGuard(LIMIT)
    pass_through(
        guard, frame(PING) * 3 + frame(PONG) * 2 + frame(TEXT, final=False) + frame(CONTINUATION) + frame(BINARY)
    )
    assert (guard.pings_seen, guard.pongs_seen, guard.messages_seen) == (3, 2, 2)


def test_the_limit_may_change_between_messages() -> None:
    guard = FrameGuard(10)
    pass_through(guard, frame(TEXT, b"a" * 10))
    guard.limit_bytes = 20
    pass_through(guard, frame(TEXT, b"a" * 20))
    guard.binary_extra_bytes = 0
    with pytest.raises(GuardError, match="20 bytes"):
        pass_through(guard, frame(BINARY, b"a" * 21))


class TestWholeMessages:
    """What the guard takes out of the stream itself."""

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (frame(TEXT), ""),
            (frame(TEXT, "é".encode()), "é"),
            (frame(TEXT, b"a" * LIMIT), "a" * LIMIT),
            (frame(BINARY), b""),
            (frame(BINARY, bytes(range(125))), bytes(range(125))),
            (frame(BINARY, bytes(126)), bytes(126)),
            (frame(BINARY, b"\xff" * (LIMIT + 16)), b"\xff" * (LIMIT + 16)),
        ],
    )
    def test_one_is_unmasked(self, data: bytes, message: str | bytes) -> None:
        guard = FrameGuard(LIMIT)
        guard.feed(data)
        assert guard.next_messages() == [message]
        assert guard.messages_seen == 1
        assert guard.next_messages() == []
        assert guard.next_piece() is None

    @pytest.mark.parametrize(
        "data",
        [
            frame(TEXT, b"ab")[:-1],
            frame(TEXT, b"ab")[:5],
            frame(TEXT, b"a", final=False),
            frame(TEXT, b"\xff"),
            frame(PING),
            frame(CLOSE),
        ],
    )
    def test_what_is_not_as_plain_is_handed_on(self, data: bytes) -> None:
        guard = FrameGuard(LIMIT)
        guard.feed(frame(TEXT, b"1") + data)
        assert guard.next_messages() == ["1"]
        assert guard.next_messages() == []
        if guard.next_piece() is not None:
            assert guard.next_messages() == []

    @pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED.keys())
    def test_what_is_wrong_is_judged_as_ever(self, data: bytes, code: int) -> None:
        guard = FrameGuard(2000 if code == 1008 else LIMIT)
        guard.feed(data)
        with pytest.raises(GuardError) as caught:
            all(iter(lambda: guard.next_messages() or guard.next_piece(), None))
        assert caught.value.close_code == code

    def test_so_many_at_once_and_no_more(self) -> None:
        guard = FrameGuard(LIMIT)
        guard.feed(frame(TEXT, b"a") * 20)
        assert [len(guard.next_messages()) for _ in range(3)] == [16, 4, 0]
