"""What the property tests are fed with: frames, streams cut in any way, data, and messages of every type."""

import itertools
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st

from protocol import messages
from protocol.codec import MAX_TIMESTAMP_MS, FrameType, encode_frame, encode_heartbeat
from protocol.data import MAX_INTEGER, MIN_INTEGER
from protocol.position import Position

SMALL_LIMIT_BYTES = 32
"""A payload limit that small inputs reach and pass."""

# --- frames ----------------------------------------------------------------------------------------------------------

timestamps_ms = st.one_of(st.sampled_from([0, 1, 2**53 + 1, 2**63, MAX_TIMESTAMP_MS]), st.integers(0, MAX_TIMESTAMP_MS))
heartbeats = st.builds(encode_heartbeat, st.sampled_from([FrameType.PING, FrameType.PONG]), timestamps_ms)


def data_frames(most_bytes: int) -> st.SearchStrategy[bytes]:
    """JSON and MSGPACK frames with payloads of up to `most_bytes`."""
    kinds = st.sampled_from([FrameType.JSON, FrameType.MSGPACK])
    return st.builds(encode_frame, kinds, st.binary(max_size=most_bytes), timestamps_ms)


frames = heartbeats | data_frames(SMALL_LIMIT_BYTES)
valid_streams = st.lists(frames, max_size=8).map(b"".join)


@st.composite
def broken_streams(draw: st.DrawFn) -> bytes:
    """Frames in which something is wrong or missing: cut, changed, too large, or followed by anything."""
    stream = bytearray(
        draw(st.lists(frames | data_frames(SMALL_LIMIT_BYTES + 8), min_size=1, max_size=6).map(b"".join))
    )
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(stream) - 1))
        stream[place] = draw(st.integers(0, 255) | st.sampled_from([0, 1, 4, 0x48]))
    stop = draw(st.just(len(stream)) | st.integers(0, len(stream)))
    return bytes(stream[:stop]) + draw(st.just(b"") | st.binary(max_size=20))


streams = valid_streams | broken_streams() | st.binary(max_size=40)


@st.composite
def chunks_of(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    """Cut a stream anywhere: byte by byte, in few pieces, or not at all, so that many frames arrive in one chunk."""
    stream = draw(source)
    if draw(st.booleans()):
        return [stream]
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted) | st.just(list(range(len(stream)))))
    places = [0, *cuts, len(stream)]
    return [stream[start:stop] for start, stop in itertools.pairwise(places)]


# --- data and messages -----------------------------------------------------------------------------------------------

integers = st.integers(MIN_INTEGER, MAX_INTEGER)
json_scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Scalars, and lists and objects of them."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    )


json_data = nested(json_scalars)
data = nested(json_scalars | st.binary(max_size=20))
"""With `bytes` too, which JSON turns into text."""

offsets = st.integers(0, 2**63 - 1)
positions = st.builds(Position, st.text(max_size=8), offsets)
seconds = st.floats(1e-3, 1e9)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(1, 2**32 - 1),
    "data": json_data,
    "key": st.text(min_size=1, max_size=128),
    "echo": st.booleans(),
    "since": positions | st.sampled_from(["earliest", "latest"]),
    "limit": st.integers(1, 1000),
    "offset": offsets,
    "positions": st.dictionaries(st.text(max_size=8), positions, max_size=3),
    "client": st.builds(messages.ClientInfo, st.text(max_size=128), st.text(max_size=128)),
    "heartbeat": seconds,
    "resumed": st.booleans(),
    "recovered": st.booleans(),
    "more": st.booleans(),
    "scope": st.just("node"),
    "time": st.integers(0, 2**53),
    "expires": st.integers(0, 2**53),
    "first": offsets,
    "last": offsets,
    "code": st.integers(400, 4999),
    "after": seconds,
    "within": seconds,
    "retry_after": seconds,
}
"""By field name; every other field is text."""


def message_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Messages of one type, each optional field present or not."""
    fields = {}
    for field in msgspec.structs.fields(kind):
        strategy = FIELDS.get(field.name, st.text(max_size=20))
        fields[field.name] = strategy if field.required else st.just(field.default) | strategy
    return st.builds(kind, **fields)


FIELDS["members"] = st.lists(
    st.builds(messages.Member, user=st.text(), session=st.text(), since=st.integers(0, 2**53)), max_size=3
)
FIELDS["messages"] = st.lists(message_of(messages.Entry), max_size=3)
FIELDS["topics"] = st.dictionaries(st.text(max_size=8), message_of(messages.Restored), max_size=3)

requests = st.one_of([message_of(kind) for kind in get_args(messages.Request)])
server_messages = st.one_of([message_of(kind) for kind in get_args(messages.ServerMessage)])
