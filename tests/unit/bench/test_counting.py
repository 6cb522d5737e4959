"""Whatever the cuts, every message is counted once, every PING is seen, and the latencies are those of the stamps."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.bench import counting
from notifyd.bench.counting import NO_CARRY, Arrivals
from notifyd.bench.payload import MARK, STAMP_BYTES
from protocol.codec import FrameType, encode_heartbeat
from protocol.framing import Encoding, Form, heartbeat_to_wire, to_wire
from protocol.messages import Message, Subscribed, encode

FORMS = st.sampled_from(list(Form))


def delivery(form: Form, stamp_ns: int, padding: int = 0) -> bytes:
    data = (MARK + b"%020d" % stamp_ns).decode() + "." * padding
    message = Message(topic="bench:run:0", data=data, time=1_790_000_000_123, epoch="e1", offset=7)
    return to_wire(form, encode(message, form.encoding), 1_790_000_000_123)


def other(form: Form) -> bytes:
    return to_wire(form, encode(Subscribed(id=2, topic="bench:run:0"), Encoding(form.encoding)), 0)


def take_all(arrivals: Arrivals, data: bytes, cuts: list[int]) -> list[int]:
    """Have it take the data in pieces; return the PINGs seen."""
    pings, carry = [], NO_CARRY
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in pairwise(places):
        if end == start:
            continue
        arrivals.space[: end - start] = data[start:end]
        _, ping, carry = arrivals.take(carry, end - start)
        if ping is not None:
            pings.append(ping)
    return pings


@given(FORMS, st.lists(st.integers(0, 300), max_size=12), st.lists(st.integers(1, 6000), max_size=40))
def test_any_cut_gives_the_same_count(form: Form, paddings: list[int], cuts: list[int]) -> None:
    data = other(form) + b"".join(delivery(form, 1, padding) + other(form) for padding in paddings)
    arrivals = Arrivals()
    take_all(arrivals, data, cuts)
    assert arrivals.count == len(paddings)
    assert arrivals.histogram.total == len(paddings)


@given(FORMS, st.lists(st.integers(1, 2**63), max_size=5), st.integers(1, 40))
def test_pings_are_seen_between_messages_however_they_are_cut(form: Form, stamps: list[int], piece: int) -> None:
    data = delivery(form, 1)
    for stamp in stamps:
        beat = heartbeat_to_wire(form, encode_heartbeat(FrameType.PING, stamp))
        data += heartbeat_to_wire(form, encode_heartbeat(FrameType.PONG, 9)) + beat + delivery(form, 1)
    pings = take_all(Arrivals(), data, list(range(piece, len(data), piece)))
    assert pings == stamps


def test_a_mark_without_its_stamp_waits_for_it() -> None:
    arrivals = Arrivals()
    data = delivery(Form.WEBSOCKET_JSON, 1)
    stamped = data.index(MARK) + len(MARK) + STAMP_BYTES
    arrivals.space[: stamped - 1] = data[: stamped - 1]
    found, _, carry = arrivals.take(NO_CARRY, stamped - 1)
    assert found == 0
    arrivals.space[:1] = data[stamped - 1 : stamped]
    assert arrivals.take(carry, 1)[0] == 1


def test_latencies_are_read_off_the_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5_000_000_000)
    arrivals = Arrivals()
    ages_ms = [1, 2, 3, 400]
    take_all(arrivals, b"".join(delivery(Form.DEVICE_MSGPACK, 5_000_000_000 - age * 1_000_000) for age in ages_ms), [])
    found = arrivals.histogram.percentiles()
    assert found is not None
    assert (round(found.p50), round(found.max), arrivals.histogram.total) == (2, 400, 4)


def test_at_high_rates_a_few_are_timed_for_all_whatever_their_place_in_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 10**10)
    monkeypatch.setattr(counting, "MOST_TIMED_PER_S", 200)
    arrivals = Arrivals(seed=1)
    # The first of each chunk is the youngest: who took always the first, or the last, would not find the mean.
    chunk = b"".join(delivery(Form.WEBSOCKET_JSON, 10**10 - (1 + place) * 1_000_000) for place in range(50))
    for _ in range(600):
        take_all(arrivals, chunk, [])
        arrivals.adapt(1.0)
    found = arrivals.histogram.percentiles()
    assert found is not None
    assert arrivals.count == 30_000
    assert arrivals.histogram.total == pytest.approx(30_000, rel=0.1)
    assert len(arrivals.histogram.counts) > 40
    assert found.mean == pytest.approx(25.5, rel=0.1)
    assert found.p90 == pytest.approx(45, rel=0.1)
