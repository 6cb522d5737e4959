"""The frame guard under any bytes and any cutting, against a slow reading of the RFC and against wsproto itself."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from notifyd.transport.frame_guard import FrameGuard, GuardError
from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, MASK, PING, TEXT, frame, unmasked

Outcome = tuple[bytes, int]
"""What was handed on, and the Close code of the refusal, 0 without one."""


def guarded(data: bytes, cuts: list[int], limit_bytes: int, extra_bytes: int) -> Outcome:
    guard, handed_on, start = FrameGuard(limit_bytes, extra_bytes), b"", 0
    try:
        for cut in [*cuts, len(data)]:
            guard.feed(data[start:cut])
            start = cut
            while (piece := guard.next_piece()) is not None:
                handed_on += piece
    except GuardError as error:
        return handed_on, int(error.close_code)
    return handed_on, 0


def reference(data: bytes, limit_bytes: int, extra_bytes: int) -> Outcome:
    """Read the frames as RFC 6455 sections 5.2 to 5.5 tell it, one after the other, sparing nothing."""
    at = 0
    message: list[int] = []  # the opcode it began with, then the payload size of each fragment
    while len(data) - at >= 2:
        bits = f"{data[at]:08b}{data[at + 1]:08b}"
        final, reserved, opcode, is_masked, length = bits[0], bits[1:4], int(bits[4:8], 2), bits[8], int(bits[9:], 2)
        control = opcode in (8, 9, 10)
        if reserved != "000" or not (control or opcode in (0, 1, 2)) or (control and final == "0"):
            return data[:at], 1002
        if (opcode == 0 and not message) or (opcode in (1, 2) and message):
            return data[:at], 1002
        if opcode == 0 and len(message) - 1 == 1024:
            return data[:at], 1008
        if is_masked == "0" or (control and length > 125):
            return data[:at], 1002
        extended = {126: 2, 127: 8}.get(length, 0)
        if len(data) - at < 2 + extended:
            return data[:at], 0
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
            if length < (126 if extended == 2 else 65536) or length >= 2**63:
                return data[:at], 1002
        if not control:
            message = [*(message or [opcode]), length]
            if sum(message[1:]) > limit_bytes + (extra_bytes if message[0] == 2 else 0):
                return data[:at], 1009
            message = [] if final == "1" else message
        at += 2 + extended + 4 + length
        if opcode == 8 or at >= len(data):
            break
    return data[:at], 0


sizes = st.one_of(st.integers(0, 12), st.sampled_from([125, 126, 127, 300]))
good_frames = st.builds(
    lambda opcode, size, final: frame(opcode, b"a" * size, final=final),
    st.sampled_from([TEXT, BINARY, CONTINUATION, CONTINUATION]),
    sizes,
    st.booleans(),
)
control_frames = st.builds(frame, st.sampled_from([PING, 0xA]), st.binary(max_size=125))
odd_frames = st.one_of(
    st.builds(frame, st.integers(0, 15), st.binary(max_size=3), final=st.booleans(), reserved=st.integers(0, 7)),
    st.builds(frame, st.integers(0, 10), st.just(b"a" * 100), form=st.sampled_from([2, 8])),
    st.builds(unmasked, st.integers(0, 2), st.just(b"a")),
    st.just(frame(CLOSE, b"\x03\xe8")),
    st.builds(lambda length: b"\x82\xff" + length.to_bytes(8, "big") + MASK, st.integers(0, 2**64 - 1)),
)
streams = st.builds(
    lambda frames, tail: b"".join(frames) + tail,
    st.lists(st.one_of(good_frames, good_frames, control_frames, odd_frames), max_size=24),
    st.binary(max_size=16),
)
limits = st.sampled_from([0, 10, 100, 500])
cut_lists = st.lists(st.integers(0, 1500), max_size=30).map(sorted)


@settings(max_examples=4 * settings().max_examples)
@given(st.one_of(streams, st.binary(max_size=100)), cut_lists, limits, st.sampled_from([0, 16]))
@example(frame(TEXT, final=False) + frame(CONTINUATION, final=False) * 1024, [], 10, 16)
@example(frame(CLOSE) + frame(3), [3], 10, 16)
def test_any_cutting_equals_the_reference(data: bytes, cuts: list[int], limit_bytes: int, extra_bytes: int) -> None:
    expected = reference(data, limit_bytes, extra_bytes)
    assert guarded(data, [], limit_bytes, extra_bytes) == expected
    assert guarded(data, cuts, limit_bytes, extra_bytes) == expected
    assert guarded(data, list(range(len(data))), limit_bytes, extra_bytes) == expected


FRAMING_FAULTS = ("Invalid opcode", "fragment control", "payload len > 125", "when", "non-zero MSB", "Reserved bit")
ORDER_FAULTS = ("unmasked", "unexpected CONTINUATION", "expected CONTINUATION")


def faults_found_by_wsproto(data: bytes) -> list[str]:
    """What wsproto's server finds wrong, in its words; an orderly Close frame is nothing wrong."""
    server = Connection(ConnectionType.SERVER)
    server.receive_data(data)
    closings = [event for event in server.events() if isinstance(event, CloseConnection)]
    return [event.reason or "" for event in closings if server.state is ConnectionState.OPEN]


@settings(max_examples=4 * settings().max_examples)
@given(streams)
@example(frame(CONTINUATION))
@example(b"\x82\xff\x80" + bytes(11))
def test_wsproto_finds_nothing_more_and_nothing_less(data: bytes) -> None:
    handed_on, code = guarded(data, [], 2**64, 0)
    faults = faults_found_by_wsproto(handed_on)
    assert not any(fault in text for text in faults for fault in (*FRAMING_FAULTS, *ORDER_FAULTS))
    if code == 1002:  # wsproto judges the order of frames at their payload only, so give it some
        assert faults_found_by_wsproto(data[: len(handed_on) + 10] + bytes(600))
    elif code == 0:
        assert faults_found_by_wsproto(data) == faults


def read_by_wsproto(server: Connection, data: bytes) -> list[str | bytes | None]:
    """The messages that wsproto reads; None for what ends the connection."""
    read: list[str | bytes | None] = []
    parts: list[str | bytes] = []
    server.receive_data(data)
    for event in server.events():
        if isinstance(event, CloseConnection):
            return [*read, None]
        if isinstance(event, TextMessage | BytesMessage):
            parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            if event.message_finished:
                read.append(parts[0][:0].join(parts))  # type: ignore[arg-type]
                parts.clear()
    return read


def read_by_both(data: bytes, cuts: list[int]) -> list[str | bytes | None]:
    """The messages that the guard takes out, and those that wsproto makes of the rest, in their order."""
    guard, server, read, start = FrameGuard(2**64, 0), _Fragments(), list[str | bytes | None](), 0
    try:
        for cut in [*cuts, len(data)]:
            guard.feed(data[start:cut])
            start = cut
            while messages := guard.next_messages() or server.read(guard.next_piece()):
                read += [message for message in messages if message is not _NOTHING_YET]
                if None in messages:
                    return read[: read.index(None) + 1]
    except GuardError:
        read.append(None)
    return read


_NOTHING_YET = "a piece of which there is no message yet, \uffff"


class _Fragments:
    """wsproto over pieces: what it reads of each, and at least something while there are any."""

    def __init__(self) -> None:
        self._data = b""
        self._read = 0

    def read(self, piece: bytes | None) -> list[str | bytes | None]:
        if piece is None:
            return []
        self._data += piece
        read = read_by_wsproto(Connection(ConnectionType.SERVER), self._data)
        new, self._read = read[self._read :], len(read)
        return [_NOTHING_YET, *new]


@settings(max_examples=2 * settings().max_examples)
@given(streams, cut_lists)
@example(frame(TEXT, b"\xff") + frame(TEXT, b"a"), [])
@example(frame(TEXT, b"a") + frame(TEXT, b"b", final=False) + frame(PING) + frame(CONTINUATION) + frame(BINARY), [])
def test_what_it_takes_out_itself_is_what_wsproto_would_read(data: bytes, cuts: list[int]) -> None:
    handed_on, code = guarded(data, [], 2**64, 0)
    expected = read_by_wsproto(Connection(ConnectionType.SERVER), handed_on)
    if code and None not in expected:
        expected.append(None)
    assert read_by_both(data, cuts) == expected
