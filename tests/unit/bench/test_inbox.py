from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.bench.dialect import Dialect, mask_with_zeros
from notifyd.bench.inbox import HeardMessage, Inbox, LinkEnded, last_words, read_heard
from notifyd.bench.payload import FIRST_ID, MARK, PublishRequest
from protocol.codec import Frame, FrameType, encode_heartbeat, frames_of_message
from protocol.errors import CloseCode
from protocol.framing import Encoding, Form, Opcode, close_frame, heartbeat_to_wire, to_wire, websocket_frame
from protocol.messages import Error, Published, decode_request, encode

DIALECTS = [Dialect(transport, encoding) for transport in ("websocket", "device") for encoding in ("json", "msgpack")]


def frames_of(inbox: Inbox) -> list[Frame]:
    frames = []
    while (frame := inbox.next_frame()) is not None:
        frames.append(frame)
    return frames


@given(st.sampled_from(list(Form)), st.lists(st.integers(0, 70_000), max_size=5), st.data())
def test_any_cut_gives_the_same_frames(form: Form, sizes: list[int], data: st.DataObject) -> None:
    texts = ["x" * size for size in sizes]
    sent = [to_wire(form, encode(Published(id=1, topic=text), form.encoding), 0) for text in texts]
    sent = [part for whole in sent for part in (whole, heartbeat_to_wire(form, encode_heartbeat(FrameType.PONG, 5)))]
    stream = b"".join(sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    inbox, frames = Inbox(is_device=form.is_device), []
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        inbox.receive(stream[start:end])
        frames += frames_of(inbox)
    assert [frame.timestamp_ms for frame in frames if frame.type is FrameType.PONG] == [5] * len(texts)
    heard = [read_heard(frame) for frame in frames if frame.type is not FrameType.PONG]
    assert heard == [HeardMessage(op="published", id=1)] * len(texts)
    assert inbox.take_rest() == b""


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (close_frame(CloseCode.TOO_SLOW, "too slow"), "closed 4009"),
        (websocket_frame(Opcode.CLOSE, b""), "closed"),
        (b"\x01\x05parts", "bad frame"),
        (websocket_frame(Opcode.BINARY, b"HEAP" + bytes(12)), "bad frame"),
    ],
)
def test_what_ends_a_websocket(data: bytes, kind: str) -> None:
    inbox = Inbox(is_device=False)
    inbox.receive(data)
    with pytest.raises(LinkEnded, match=f"^{kind}$"):
        inbox.next_frame()


def test_what_is_no_message_ends_a_link() -> None:
    for frame in (Frame(FrameType.JSON, 0, b"{"), Frame(FrameType.MSGPACK, 0, b"\xc1")):
        with pytest.raises(LinkEnded, match="bad message"):
            read_heard(frame)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_last_words_of_a_server(encoding: Encoding) -> None:
    too_slow = Error(code=4009, reason="too_slow", message="more than 1048576 bytes wait for this client")
    pushed = to_wire(Form(Form.DEVICE_JSON + encoding), encode(too_slow, encoding), 1)
    before = to_wire(Form(Form.DEVICE_JSON + encoding), encode(Published(id=1, topic="t"), encoding), 1)
    assert last_words(before + pushed, is_device=True) == "closed 4009"
    assert last_words(pushed + before, is_device=True) == "closed"
    assert last_words(before[:-3], is_device=True) == "closed"
    assert last_words(b"", is_device=True) == "closed"


def test_the_last_words_of_a_websocket() -> None:
    data = bytes(300) + close_frame(CloseCode.RESTART, "the node stops")
    assert last_words(data, is_device=False) == "closed 1012"
    assert last_words(data + b"x", is_device=False) == "closed"
    assert last_words(b"", is_device=False) == "closed"


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_mask_of_zeros_leaves_the_payload(size: int) -> None:
    payload = b"a" * size
    frame = mask_with_zeros(websocket_frame(Opcode.TEXT, payload))
    assert frame[1] & 0x80
    head = len(frame) - size
    assert frame[head - 4 :] == bytes(4) + payload
    assert frame[0] == 0x81


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.form.name.lower())
def test_a_publish_is_what_it_says(dialect: Dialect) -> None:
    request = PublishRequest(dialect, "bench:run:0", 150)
    first, second = request.make(FIRST_ID, 1), request.make(2**32 - 1, 10**18)
    for made, request_id, stamp in ((first, FIRST_ID, 1), (second, 2**32 - 1, 10**18)):
        publish = decode_request(payload_of(dialect, made), dialect.form.encoding)
        assert msgspec.structs.asdict(publish) | {"data": ""} == {
            "topic": "bench:run:0",
            "data": "",
            "id": request_id,
            "key": None,
            "echo": True,
            "trace": None,
        }
        assert publish.data == (MARK + b"%020d" % stamp).decode().ljust(150, ".")


def payload_of(dialect: Dialect, sent: bytes) -> bytes:
    """Take a client's bytes apart as a server does."""
    if dialect.form.is_device:
        (frame,) = frames_of_message(sent)
        return bytes(frame.payload)
    head = {126: 8, 127: 14}.get(sent[1] & 0x7F, 6)
    assert sent[1] & 0x80
    if dialect.form is Form.WEBSOCKET_JSON:
        return sent[head:]
    (frame,) = frames_of_message(sent[head:])
    return bytes(frame.payload)
