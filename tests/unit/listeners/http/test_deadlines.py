"""What slow peers get, in virtual time."""

import pytest
import trio
from trio.testing import MockClock

from notifyd.errors import StreamBroken
from notifyd.listeners.http.connection import DISCARD_S, HTTP_LINGER_S, HttpConnection, HttpLimits, Server
from tests.recorded_events import RecordedEvents
from tests.unit.listeners.http.conftest import new_server
from tests.unit.listeners.http.fake_peer import FakePeer
from tests.unit.listeners.http.node_stand_in import NodeStandIn

LIMITS = HttpLimits(head_s=10.0, exchange_s=75.0)
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: 22\r\n\r\n"


@pytest.fixture
def server(backend: NodeStandIn, events: RecordedEvents) -> Server:
    return new_server(backend, events, LIMITS)


async def served(stream: FakePeer, server: Server) -> float:
    """Serve the peer to its end; return how many seconds it had."""
    await HttpConnection(stream, server).serve()
    assert stream.closed_at_s is not None
    return stream.closed_at_s


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0.5, b"G")] + [(0.5, b"E")] * 100,
        [(9.9, GET[:-2])],
        [(1.0, GET + GET[:-1])],
        [(0.1, bytes([byte])) for byte in GET * 3],
    ],
)
async def test_a_head_has_ten_seconds_from_the_last_answer(
    autojump_clock: MockClock, server: Server, events: RecordedEvents, pieces: list[tuple[float, bytes]]
) -> None:
    stream = FakePeer(list(pieces))
    answers_s = 0.0
    lasted_s = await served(stream, server)
    for _ in range(stream.sent.count(b"HTTP/1.1 200")):
        answers_s += 0.1 * len(GET) if len(pieces) > 101 else 1.0
    assert lasted_s == pytest.approx(answers_s + LIMITS.head_s)
    assert events.lines == []


async def test_a_body_is_given_up_with_an_answer(
    autojump_clock: MockClock, server: Server, backend: NodeStandIn
) -> None:
    stream = FakePeer([(1.0, POST)] + [(5.0, b" ")] * 20)
    lasted_s = await served(stream, server)
    assert stream.sent.startswith(b"HTTP/1.1 408 ")
    assert lasted_s == pytest.approx(1.0 + 30.0 + DISCARD_S + HTTP_LINGER_S)
    assert backend.published == []


async def test_a_peer_that_does_not_read_is_cut_off(autojump_clock: MockClock, server: Server) -> None:
    stream = FakePeer([(1.0, GET)], takes_bytes=50)
    assert await served(stream, server) == pytest.approx(1.0 + LIMITS.exchange_s)
    assert len(stream.sent) == 50


async def test_a_peer_that_is_gone_when_it_is_answered(
    autojump_clock: MockClock, server: Server, events: RecordedEvents
) -> None:
    stream = FakePeer([(1.0, GET)], takes_bytes=-1)
    assert await served(stream, server) == pytest.approx(1.0)
    assert events.lines == []


async def test_a_peer_that_resets_while_it_is_read(
    autojump_clock: MockClock, server: Server, events: RecordedEvents
) -> None:
    stream = FakePeer([(1.0, POST)])

    async def receive_some(max_bytes: int = 65536) -> bytes:
        if stream.pieces:
            return stream.pieces.pop(0)[1]
        raise StreamBroken("reset")

    stream.receive_some = receive_some  # type: ignore[method-assign]
    assert await served(stream, server) == 0.0
    assert events.lines == []


async def test_nobody_holds_a_connection_with_a_body_that_nobody_reads(
    autojump_clock: MockClock, server: Server
) -> None:
    head = b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999\r\n\r\n"
    stream = FakePeer([(0.0, head)] + [(0.0, b"x" * 65536)] * 80)
    assert await served(stream, server) == pytest.approx(DISCARD_S + HTTP_LINGER_S)
    assert stream.sent.startswith(b"HTTP/1.1 405 ")


async def test_who_is_answered_before_its_body_was_read_is_told_that_it_was_the_last_answer(
    autojump_clock: MockClock, server: Server
) -> None:
    head = b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n"
    stream = FakePeer([(0.0, head), (1.0, b"x" * 10), (60.0, GET)])
    assert await served(stream, server) == pytest.approx(1.0 + HTTP_LINGER_S)  # no longer than its body takes
    assert stream.sent.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nconnection: close\r\n" in stream.sent


async def test_cancelled_at_every_checkpoint_it_is_closed_and_nothing_is_left(
    server: Server, events: RecordedEvents
) -> None:
    pieces = [(0.0, GET), (0.0, POST), (0.0, b'{"topic":"a","data":1}'), (0.0, b"nonsense\r\n\r\n")]
    for checkpoint in range(200):
        stream = FakePeer(list(pieces))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(HttpConnection(stream, server).serve)
                for _ in range(checkpoint):
                    await trio.lowlevel.checkpoint()
                finished = stream.closed_at_s is not None
                scope.cancel()
        assert stream.closed_at_s is not None
        if b"HTTP/1.1 400" in stream.sent:
            break
    assert not finished or checkpoint > 10
    assert events.lines == []
    assert events.counted("barrier_hits") == 0
