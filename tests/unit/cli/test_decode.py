import contextlib
import json
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.cli.decode import describe_frames, find_fault, read_hex
from notifyd.errors import NotifydError
from protocol.codec import FrameType, encode_frame, encode_heartbeat
from protocol.errors import RemoteProtocolError
from protocol.frames import parse_frame
from tests.unit.cli.command_line import Run

PING = encode_heartbeat(FrameType.PING, 123456789)
JSON = encode_frame(FrameType.JSON, b'{"op":"ping","id":1}', 1790000000123)


def test_a_heartbeat_field_by_field(run: Run) -> None:
    expected = (
        "frame 1: bytes 0 to 15\n"
        "  magic      48454152          HEAR\n"
        "  type       00                PING\n"
        "  timestamp  00000000075bcd15  123456789 ms on the sender's clock\n"
        "  reserved   000000            zero, as in every heartbeat\n"
    )
    assert run("decode", PING.hex()) == (0, expected, "")
    assert run("decode", PING.hex(" ").upper()) == (0, expected, "")
    assert run("decode", *PING.hex(" ").split()) == (0, expected, "")
    assert run("decode", "0x" + PING.hex()) == (0, expected, "")
    assert run("decode", "-", stdin=PING) == (0, expected, "")
    assert run("decode", stdin=PING) == (0, expected, "")
    assert run("decode", "-", stdin=PING.hex(":").encode() + b"\n") == (0, expected, "")


def test_several_frames_of_every_type(run: Run) -> None:
    packed = encode_frame(FrameType.MSGPACK, msgspec.msgpack.encode({"data": b"\x01"}))
    code, out, err = run("decode", (encode_heartbeat(FrameType.PONG, 7) + JSON + packed).hex())
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "frame 1: bytes 0 to 15",
        "  magic      48454152          HEAR",
        "  type       01                PONG",
        "  timestamp  0000000000000007  7 ms, echoed from the PING",
        "  reserved   000000            zero, as in every heartbeat",
        "frame 2: bytes 16 to 51",
        "  magic      48454152          HEAR",
        "  type       02                JSON",
        "  timestamp  000001a0c4506c7b  1790000000123 ms, 2026-09-21 14:13:20.123000 UTC",
        "  length     000014            20 bytes",
        '  payload    {"op":"ping","id":1}',
        "frame 3: bytes 52 to 76",
        "  magic      48454152          HEAR",
        "  type       03                MSGPACK",
        "  timestamp  0000000000000000  0, no clock",
        "  length     000009            9 bytes",
        '  payload    {"data":"AQ=="}',
    ]


def test_what_is_unusual_is_told(run: Run) -> None:
    frame = encode_frame(FrameType.JSON, json.dumps("x" * 70_000).encode(), 2**64 - 1)
    out = run("decode", "-", stdin=frame).out
    assert "18446744073709551615 ms, beyond the calendar" in out
    assert "70002 bytes, above the default limit of 65536" in out
    one = encode_frame(FrameType.JSON, b"1")
    assert "  length     000001            1 byte\n" in run("decode", one.hex()).out
    extended = encode_frame(FrameType.MSGPACK, msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(5, b"x")}))
    assert "extension type 5: 78" in run("decode", extended.hex()).out


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HEAS" + PING[4:], "frame 1, byte 3 of the input: 0x53 where the magic 48454152 ('HEAR') has 0x52"),
        (PING + b"HEX", "frame 2, byte 18 of the input: 0x58 where the magic"),
        (PING[:7], "frame 1, byte 7 of the input: the input ends after 7 of the 16 bytes of a header"),
        (b"HEAR\x04" + PING[5:], "frame 1, byte 4 of the input: type 4 is unknown; 0 PING, 1 PONG"),
        (PING[:14] + b"\x02\0", "frame 1, byte 14 of the input: 0x02 in the reserved bytes of a heartbeat"),
        (JSON[:-3], "frame 1, byte 33 of the input: the input ends after 17 of the 20 bytes of the payload"),
        (encode_frame(FrameType.JSON, b"{x}"), "frame 1, byte 16 of the input: the payload is not JSON: "),
        (encode_frame(FrameType.JSON, b"[" * 5000), "frame 1, byte 16 of the input: the payload is not JSON: nested"),
        (encode_frame(FrameType.JSON, b'"\xff"'), "the payload is not JSON: "),
        (encode_frame(FrameType.MSGPACK, b"\xc1"), "frame 1, byte 16 of the input: the payload is not MessagePack: "),
        (encode_frame(FrameType.MSGPACK, b""), "the payload is not MessagePack: "),
        (b"\xff\xfe", "frame 1, byte 0 of the input: 0xff where the magic"),
    ],
)
def test_a_bad_frame_is_bad_at_a_place(data: bytes, error: str, run: Run) -> None:
    for outcome in (run("decode", data.hex()), run("decode", "-", stdin=data)):
        assert outcome.code == 1
        assert outcome.err.startswith(error) or error in outcome.err


def test_good_frames_before_a_bad_one_are_shown(run: Run) -> None:
    code, out, _ = run("decode", (PING + b"x").hex())
    assert code == 1
    assert out.startswith("frame 1: bytes 0 to 15\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "error"),
    [
        (["4845x"], b"", "notifyd decode: 'x' at character 5 is no hex digit"),
        (["484"], b"", "notifyd decode: 3 hex digits are no whole number of bytes; one is missing"),
        (["-"], b"", "notifyd decode: no bytes; a frame has at least 16"),
        (["-"], b" \n", "notifyd decode: no bytes; a frame has at least 16"),
        (["-"], b"48 45 4z\n", "notifyd decode: 'z' at character 8 is no hex digit"),
        (["48\u20ac"], b"", "notifyd decode: '?' at character 3 is no hex digit"),
    ],
)
def test_input_that_is_no_hex(arguments: list[str], stdin: bytes, error: str, run: Run) -> None:
    assert run("decode", *arguments, stdin=stdin) == (1, "", error + "\n")


def test_a_terminal_is_not_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifyd.cli.decode.sys", type("Terminal", (), {"stdin": sys.stdin}))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    code, _, err = run("decode")
    assert code == 2
    assert "give frames in hex, or - and the bytes on stdin" in err


FRAMES = st.one_of(
    st.builds(encode_heartbeat, st.sampled_from([FrameType.PING, FrameType.PONG]), st.integers(0, 2**64 - 1)),
    st.builds(
        encode_frame,
        st.just(FrameType.JSON),
        st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3).map(msgspec.json.encode),
        st.integers(0, 2**64 - 1),
    ),
    st.builds(
        encode_frame, st.just(FrameType.MSGPACK), st.text().map(msgspec.msgpack.encode), st.integers(0, 2**64 - 1)
    ),
)


@given(st.lists(FRAMES, min_size=1, max_size=5))
def test_any_frames_are_described(frames: list[bytes]) -> None:
    lines = list(describe_frames(b"".join(frames)))
    assert sum(line.startswith("frame ") for line in lines) == len(frames)
    assert read_hex(b"".join(frames).hex(" ").encode()) == b"".join(frames)


@given(FRAMES, st.integers(0, 40), st.integers(0, 255))
def test_a_damaged_frame_is_described_or_its_fault_found(frame: bytes, place: int, byte: int) -> None:
    damaged = frame[:place] + bytes([byte]) + frame[place + 1 :]
    with contextlib.suppress(NotifydError):
        assert list(describe_frames(damaged))
        return
    with pytest.raises(NotifydError, match=r"^frame \d+, byte \d+ of the input: .+$"):
        list(describe_frames(damaged))


@given(st.binary(max_size=40) | st.binary(max_size=30).map(b"HEAR".__add__))
def test_the_fault_is_where_no_frame_could_go_on(data: bytes) -> None:
    try:
        parse_frame(data)
    except RemoteProtocolError:
        place, problem = find_fault(data)
        assert problem
        assert 0 <= place <= len(data)
        assert find_fault(data[:place])[0] == place or place == 4
