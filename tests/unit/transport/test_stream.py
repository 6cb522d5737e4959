"""What a ByteStream promises, held by the socket and by the memory stream that tests use in its place."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from notifyd.errors import StreamBroken
from notifyd.transport.stream import LINGER_BYTES, ByteStream, SocketStream
from tests.kit.memory_stream import memory_pair

Pair = tuple[ByteStream, ByteStream]

MUCH = b"x" * 1_000_000


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback, with small kernel buffers."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        client.connect(listening.getsockname())
        server, _ = listening.accept()
    return server, client


def reset(end: socket.socket) -> None:
    """Close with RST."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()


@pytest.fixture(params=["socket", "memory"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The server's and the client's end."""
    if request.param == "memory":
        yield memory_pair()
        return
    server, client = tcp_pair()
    ends = SocketStream(client, peer="a:1", local="b:2"), SocketStream(server)
    yield ends
    server.close()
    client.close()


@pytest.fixture
def reset_peer(pair: Pair) -> Callable[[], None]:
    """Resets the connection from the second end."""
    second = pair[1]
    return (lambda: reset(second._socket)) if isinstance(second, SocketStream) else second.reset


async def read_all(stream: ByteStream) -> bytes:
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)


async def send_all(stream: ByteStream, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.send_now(rest) :]
        if rest:
            await stream.wait_writable()


async def send_to_nobody(stream: ByteStream) -> None:
    for _ in range(3):
        stream.send_now(b"x")
        await wait_all_tasks_blocked()


async def test_bytes_arrive_as_they_were_sent(pair: Pair) -> None:
    first, second = pair
    assert first.send_now(b"hello") == 5
    assert first.send_now(memoryview(b"!")) == 1
    received = b""
    while len(received) < 6:
        received += await second.receive_some(4)
    assert received == b"hello!"
    assert not first.has_unsent


async def test_sending_never_waits_and_tells_how_much_was_taken(pair: Pair) -> None:
    first, second = pair
    with assert_no_checkpoints():
        taken = 0
        while more := first.send_now(MUCH):
            taken += more
        assert taken > 0
        assert first.send_now(MUCH) == 0
        assert first.send_now(b"") == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.wait_writable)
        await wait_all_tasks_blocked()
        read = 0
        while read < taken:
            read += len(await second.receive_some())
    assert first.send_now(b"more") == 4


async def test_much_passes_both_ways_at_once(pair: Pair) -> None:
    first, second = pair
    results: list[bytes] = []

    async def talk(stream: ByteStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, stream, MUCH)
            received = 0
            while received < len(MUCH):
                received += len(await stream.receive_some())
            results.append(b"")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, first)
        nursery.start_soon(talk, second)
    assert len(results) == 2


async def test_receiving_is_always_a_checkpoint(pair: Pair) -> None:
    first, second = pair
    first.send_now(b"ab")
    await wait_all_tasks_blocked()
    with assert_checkpoints():
        assert await second.receive_some(1) == b"a"
    with trio.move_on_after(0) as scope:
        await second.receive_some(1)
    assert scope.cancelled_caught
    assert await second.receive_some(1) == b"b", "cancelled, no byte is lost"


async def test_the_end_comes_behind_what_was_sent(pair: Pair) -> None:
    first, second = pair
    first.send_now(b"last")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.finish, 10)
        assert await read_all(second) == b"last"
        assert await second.receive_some() == b""
        assert second.send_now(b"still heard") == 11
        second.close()


async def test_finishing_reads_away_what_still_comes_and_closes(pair: Pair) -> None:
    first, second = pair
    second.send_now(b"unread")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.finish, 10)
        assert await second.receive_some() == b""
        await second.finish(10)
    for stream in pair:
        with pytest.raises(StreamBroken):
            stream.send_now(b"x")
        with pytest.raises(StreamBroken):
            await stream.receive_some()


async def test_finishing_ends_at_its_deadline(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    first, second = pair
    began_s = trio.current_time()
    await first.finish(7)
    assert trio.current_time() - began_s == 7
    with pytest.raises(StreamBroken):
        first.send_now(b"x")
    second.close()


async def test_cancelled_finishing_closes_all_the_same(pair: Pair) -> None:
    first, second = pair
    with trio.move_on_after(0):
        await first.finish(100)
    with pytest.raises(StreamBroken):
        first.send_now(b"x")
    assert await second.receive_some() == b""
    with pytest.raises(StreamBroken):
        await send_to_nobody(second)


async def test_closing_tells_who_waits(pair: Pair) -> None:
    first, _ = pair
    while first.send_now(MUCH):
        pass
    told = []

    async def wait(waiting: Callable[[], object]) -> None:
        with pytest.raises(StreamBroken):
            await waiting()
        told.append(waiting)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, first.receive_some)
        nursery.start_soon(wait, first.wait_writable)
        await wait_all_tasks_blocked()
        first.close()
        first.close()
    assert len(told) == 2


async def test_a_closed_stream_is_broken_for_its_owner(pair: Pair) -> None:
    first, _ = pair
    first.close()
    with pytest.raises(StreamBroken):
        first.send_now(b"x")
    with pytest.raises(StreamBroken):
        await first.receive_some()
    with pytest.raises(StreamBroken):
        await first.wait_writable()
    await first.finish(1)


async def test_a_reset_breaks_it(pair: Pair, reset_peer: Callable[[], None]) -> None:
    first, _ = pair
    reset_peer()
    with pytest.raises(StreamBroken):
        await first.receive_some()
    with pytest.raises(StreamBroken):
        first.send_now(b"x")
    await first.finish(1)


async def test_a_reset_wakes_who_waits_to_send(pair: Pair, reset_peer: Callable[[], None]) -> None:
    first, _ = pair
    while first.send_now(MUCH):
        pass

    async def send() -> None:
        with pytest.raises(StreamBroken):
            await send_all(first, MUCH)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        reset_peer()


class TestSocketOnly:
    @pytest.fixture
    async def ends(self) -> AsyncIterator[tuple[SocketStream, socket.socket]]:
        server, client = tcp_pair()
        yield SocketStream(server), client
        server.close()
        client.close()

    async def test_it_says_who_is_at_its_ends(self) -> None:
        first, second = socket.socketpair()
        with first, second:  # not TCP: what only TCP has is left alone
            stream = SocketStream(first, peer="a:1", local="b:2")
            assert (stream.peer, stream.local) == ("a:1", "b:2")
            assert stream.send_now(b"x") == 1

    async def test_small_frames_leave_at_once(self, ends: tuple[SocketStream, socket.socket]) -> None:
        assert ends[0]._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    async def test_a_peer_that_sends_for_ever_is_cut_off(self, ends: tuple[SocketStream, socket.socket]) -> None:
        stream, client = ends
        flooding = SocketStream(client)

        async def flood() -> None:
            with pytest.raises(StreamBroken):
                await send_all(flooding, 100 * MUCH)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with trio.fail_after(5):
                await stream.finish(1000)
        assert len(100 * MUCH) > LINGER_BYTES


async def test_who_counts_sockets_is_told_once_that_one_is_closed() -> None:
    told: list[str] = []
    first, second = (SocketStream(end) for end in socket.socketpair())
    first.on_closed = lambda: told.append("closed")
    await second.finish(0)
    assert told == []
    first.close()
    first.close()
    assert told == ["closed"]


async def test_what_came_while_nobody_read_is_read_though_the_last_read_emptied_the_socket() -> None:
    first, second = (SocketStream(end) for end in socket.socketpair())
    second.send_now(b"one")
    assert await first.receive_some() == b"one"
    second.send_now(b"two")
    second.close()
    assert await first.receive_some(2) == b"tw"
    assert await first.receive_some(2) == b"o"
    assert await first.receive_some(2) == b""
    first.close()
    with pytest.raises(StreamBroken):
        await first.receive_some()
