"""What travels on a topic's channel is read as it was written, and nothing else is."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.broker.redis.envelope import Arrived, pack_change, pack_message, read_change, read_kept, read_message
from notifyd.model import Notification, SessionId
from protocol.messages import Joined, Left
from protocol.position import Position

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


def as_published(packed: bytes, position: Position | None, time_ms: int = 1_790_000_000_123) -> bytes:
    """As lua/publish.lua puts it together."""
    place = f"{position.epoch}:{position.offset}" if position else ":"
    return f"m{place}:{time_ms}:".encode() + packed


notifications = st.builds(
    Notification,
    topic=st.just("a:b"),
    data=values,
    time_ms=st.integers(0, 2**53),
    position=st.none() | st.builds(Position, st.text("0123456789abcdef", min_size=12), st.integers(1, 2**53)),
    sender=st.none() | texts,
    origin=st.none() | st.builds(SessionId, texts),
    trace=st.none() | st.just(TRACE),
)


@given(notifications, texts, st.integers(0, 2**63))
def test_a_message_arrives_as_it_was_published(message: Notification, node: str, sequence: int) -> None:
    packed = pack_message(message.data, message.sender, message.origin, node, sequence, trace=message.trace)
    arrived = read_message("a:b", as_published(packed, message.position, message.time_ms))
    assert arrived == Arrived(message, node, sequence)
    if message.position:
        kept = read_kept("a:b", message.position.epoch, message.position.offset, message.time_ms, packed)
        assert kept == message


PACKED = pack_message([1, ":"], "ann", None, "n1", 7)


def test_a_trace_takes_its_bytes_only_where_there_is_one() -> None:
    assert len(pack_message(1, None, None, "n1", 7, trace=TRACE)) == len(pack_message(1, None, None, "n1", 7)) + 57


@pytest.mark.parametrize("trace", ["", "00-1-2-3", TRACE.upper(), TRACE + "\n", "x" * 100_000])
def test_what_is_no_trace_does_not_keep_a_message_from_arriving(trace: str) -> None:
    arrived = read_message("a:b", as_published(pack_message(1, None, None, "n1", 7, trace=trace), None))
    assert (arrived.notification.data, arrived.notification.trace) == (1, None)


def test_what_a_later_version_adds_is_left_out() -> None:
    later = msgspec.msgpack.encode((1, "ann", None, "n1", 7, TRACE, {"more": True}, 8))
    assert read_message("a:b", as_published(later, None)).notification.trace == TRACE


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"m",
        b"m:::",
        b"p" + as_published(PACKED, None)[1:],
        as_published(PACKED, None)[:-1],
        as_published(PACKED, None) + b"\0",
        b"me:1:" + PACKED,
        b"me:x:5:" + PACKED,
        b"me:-1:5:" + PACKED,
        b"me::5:" + PACKED,
        b"me:1::" + PACKED,
        b"me:1:-5:" + PACKED,
        b"m\xff:1:5:" + PACKED,
        b"m::5:\xc1",
        b"m::5:" + b"\x91" * 100_000,
        b"m::5:\x95\xc0\xc0\xc0\xc0\xc0",
        as_published(msgspec.msgpack.encode((1, None, None, "n1", 7, 8)), None),
        b"me:" + b"9" * 10_000 + b":5:" + PACKED,
    ],
)
def test_whatever_else_arrives_is_one_kind_of_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no message of a topic"):
        read_message("a:b", payload)


@given(st.binary() | st.binary().map(lambda tail: b"me:1:5:" + tail))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    for read in (read_message, read_change):
        with suppress(ValueError):
            read("a:b", payload)


def test_a_kept_message_that_is_none_is_the_same_error() -> None:
    with pytest.raises(ValueError, match="no kept message"):
        read_kept("a:b", "e", 1, 5, b"\xc1")


@given(kind=st.sampled_from([Joined, Left]), user=texts, session=texts)
def test_a_change_arrives_as_it_was_announced(kind: type[Joined | Left], user: str, session: str) -> None:
    change = kind(topic="a:b", user=user, session=session)
    assert read_change("a:b", pack_change(change)) == change


@pytest.mark.parametrize("payload", [b"", b"p", b"m\x93", b"p\x93\xa4gone\xa1u\xa1s", b"p\x92\xa4left\xa1u"])
def test_whatever_else_is_no_change(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no change of presence"):
        read_change("a:b", payload)
