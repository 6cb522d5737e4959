from itertools import pairwise

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given

from notifyd.transport.device import DeviceTransport
from protocol.codec import Frame, FrameType, encode_frame, encode_heartbeat
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.framing import Form
from tests.kit.frames import read_frames
from tests.kit.memory_stream import MemoryStream, memory_pair
from tests.kit.scripted_sink import ScriptedSink, make_outbox

PING = encode_heartbeat(FrameType.PING, 7)
SMALL = encode_frame(FrameType.JSON, b"{}")
LARGE = encode_frame(FrameType.MSGPACK, b"x" * 200)


class Ears:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.times = 0

    def heard(self) -> None:
        self.times += 1


def opened(limit_bytes: int = 100) -> tuple[DeviceTransport, MemoryStream, Ears]:
    server, client = memory_pair()
    ears = Ears()
    return DeviceTransport(server, limit_bytes, ears), client, ears


async def received(transport: DeviceTransport) -> tuple[list[Frame], str | None]:
    """Every frame until the end, and what ended it."""
    frames: list[Frame] = []
    try:
        while (more := await transport.receive()) is not None:
            frames += more
    except RemoteProtocolError as fault:
        return frames, fault.close_code.reason
    return frames, None


async def test_frames_that_arrived_together_are_returned_together() -> None:
    transport, client, ears = opened()
    transport.set_payload_limit(100)
    client.send_now(PING + SMALL + PING[:5])
    assert await transport.receive() == [Frame(FrameType.PING, 7), Frame(FrameType.JSON, 0, b"{}")]
    client.send_now(PING[5:])
    assert await transport.receive() == [Frame(FrameType.PING, 7)]
    assert ears.times == 2, "each arrival is heard"


async def test_until_the_limit_is_set_they_come_one_by_one() -> None:
    """So that what follows `connect` is judged by the limit that then holds."""
    transport, client, _ = opened(limit_bytes=10)
    client.send_now(SMALL + LARGE)
    assert await transport.receive() == [Frame(FrameType.JSON, 0, b"{}")]
    transport.set_payload_limit(200)
    assert await transport.receive() == [Frame(FrameType.MSGPACK, 0, b"x" * 200)]


@pytest.mark.parametrize("rest", [b"", PING[:3], LARGE[:40]])
async def test_the_end_is_none_also_inside_a_frame(rest: bytes) -> None:
    transport, client, _ = opened(300)
    client.send_now(rest)
    client.end()
    assert await transport.receive() is None


async def test_what_came_before_a_fault_is_returned_first() -> None:
    transport, client, _ = opened()
    transport.set_payload_limit(100)
    client.send_now(PING + SMALL + LARGE)
    assert len(await transport.receive() or ()) == 2
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as fault:
            await transport.receive()
        assert fault.value.close_code is CloseCode.TOO_LARGE


async def test_cancelled_no_frame_is_lost() -> None:
    transport, client, _ = opened()
    for place in range(1, len(SMALL)):
        client.send_now(SMALL[:place])
        with trio.move_on_after(0):
            await transport.receive()
        client.send_now(SMALL[place:])
        assert await transport.receive() == [Frame(FrameType.JSON, 0, b"{}")]


@pytest.mark.parametrize("form", [None, Form.DEVICE_JSON, Form.DEVICE_MSGPACK])
def test_the_last_word_is_an_error_push_in_the_peers_encoding(form: Form | None) -> None:
    transport, _, _ = opened()
    if form is not None:
        transport.attach(make_outbox(ScriptedSink(), form))
    last = read_frames(form or Form.DEVICE_JSON, transport.final_frame(CloseCode.TOO_SLOW, "you are"))
    assert last == [{"op": "error", "code": 4009, "reason": "too_slow", "message": "you are"}]


@given(
    st.lists(st.sampled_from([PING, SMALL, LARGE, b"HEAX", encode_frame(FrameType.JSON, b"x" * 300)[:16]]), max_size=6),
    st.lists(st.integers(0, 900), max_size=6),
    st.booleans(),
)
def test_the_cutting_of_a_stream_changes_nothing(parts: list[bytes], cuts: list[int], connected: bool) -> None:
    data = b"".join(parts)

    async def feed(pieces: list[bytes]) -> tuple[list[Frame], str | None]:
        transport, client, _ = opened(250)
        if connected:
            transport.set_payload_limit(250)
        outcome: list[tuple[list[Frame], str | None]] = []

        async def read() -> None:
            outcome.append(await received(transport))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for piece in pieces:
                client.send_now(piece)
                await trio.testing.wait_all_tasks_blocked()
            client.end()
        return outcome[0]

    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    whole = trio.run(feed, [data])
    assert trio.run(feed, [data[a:b] for a, b in pairwise(places)]) == whole
    if len(data) <= 200:
        assert trio.run(feed, [data[place : place + 1] for place in range(len(data))]) == whole
