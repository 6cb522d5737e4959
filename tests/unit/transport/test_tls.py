"""TLS over a stream of ours: handshakes, blocked sends, endings; with a client that is Python's own ssl."""

import math
import ssl

import pytest
import trio
import trio.testing

from notifyd.errors import StreamBroken
from notifyd.transport.tls import HELD_BYTES, READS_AT_ONCE, SEND_BYTES, server_context
from tests.certificates import Certificates, certificates
from tests.unit.transport.wire import Pair, TlsClient, handshake

__all__ = ["certificates"]

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


@pytest.fixture
async def pair(certificates: Certificates, version: ssl.TLSVersion) -> Pair:
    context = server_context(certificates.tls())
    found = await handshake(context, TlsClient(certificates.client_context(version=version)))
    assert found.client.tls.version() == {VERSIONS[0]: "TLSv1.2", VERSIONS[1]: "TLSv1.3"}[version]
    return found


# --- both directions ------------------------------------------------------------------------------------------------


async def test_bytes_go_both_ways(pair: Pair) -> None:
    assert (pair.stream.peer, pair.stream.local) == ("peer", "local")
    assert pair.stream.send_now(b"hello") == 5
    assert pair.stream.send_now(memoryview(b"!")) == 1
    assert not pair.stream.has_unsent
    assert pair.arrived() == b"hello!"
    pair.wire.deliver(pair.client.encrypt(b"answer"))
    assert await pair.stream.receive_some() == b"answer"


async def test_nothing_is_sent_for_nothing(pair: Pair) -> None:
    assert pair.stream.send_now(b"") == 0
    assert pair.wire.take_sent() == b""


async def test_received_bytes_come_in_the_size_asked_for(pair: Pair) -> None:
    pair.wire.deliver(pair.client.encrypt(b"a" * 40000))
    parts = [await pair.stream.receive_some(15000) for _ in range(3)]
    assert [len(part) for part in parts] == [15000, 15000, 10000]


async def test_receiving_what_is_there_is_a_checkpoint(pair: Pair) -> None:
    pair.wire.deliver(pair.client.encrypt(b"a" * 100))
    await pair.stream.receive_some(50)
    with trio.testing.assert_checkpoints():
        assert len(await pair.stream.receive_some(50)) == 50


async def test_tiny_records_do_not_keep_the_others_waiting(pair: Pair) -> None:
    data = b"".join(pair.client.encrypt(b"a") for _ in range(READS_AT_ONCE + 10))
    pair.wire.deliver(data)
    assert len(await pair.stream.receive_some()) == READS_AT_ONCE
    assert len(await pair.stream.receive_some()) == 10


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    ciphertext = pair.client.encrypt(b"hello")
    for cut in range(len(ciphertext)):
        pair.wire.deliver(ciphertext[cut : cut + 1])
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time()
            await pair.stream.receive_some()
        async with trio.open_nursery() as nursery:
            if cut < len(ciphertext) - 1:
                nursery.start_soon(pair.stream.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    assert await pair.stream.receive_some() == b"hello"


# --- a socket that would block --------------------------------------------------------------------------------------


async def test_what_the_socket_does_not_take_is_held_within_a_bound(pair: Pair) -> None:
    pair.wire.make_room(0)
    data = bytes(range(256)) * 4000
    taken = pair.stream.send_now(data)
    assert 0 < taken <= SEND_BYTES
    assert pair.stream.has_unsent
    assert pair.stream.send_now(data[taken:]) == 0
    pair.wire.make_room(SEND_BYTES)
    assert pair.stream.send_now(b"") == 0
    assert pair.stream.has_unsent
    assert len(pair.wire.sent) == SEND_BYTES
    pair.wire.make_room(None)
    assert pair.stream.send_now(data[taken:]) == len(data) - taken
    assert not pair.stream.has_unsent
    assert pair.arrived() == data


async def test_any_room_sends_the_same_bytes(pair: Pair) -> None:
    data = bytes(range(256)) * 1000
    rest, room = memoryview(data), 1
    pair.wire.make_room(0)
    arrived = b""
    while rest or pair.stream.has_unsent:
        rest = rest[pair.stream.send_now(rest) :]
        room = room * 3 % 50021
        pair.wire.make_room(room)
        await pair.stream.wait_writable()
        arrived += pair.arrived()
    assert arrived == data


async def test_a_peer_that_makes_us_answer_and_does_not_read_is_cut_off(pair: Pair) -> None:
    pair.wire.make_room(0)
    pair.stream.send_now(b"a" * SEND_BYTES)
    pair.stream._outgoing.write(b"answers" * (HELD_BYTES // 7 - SEND_BYTES // 7))  # as the TLS layer does while reading
    with pytest.raises(StreamBroken, match="does not read"):
        await pair.stream.receive_some()


async def test_received_bytes_are_not_lost_when_sending_fails(pair: Pair) -> None:
    pair.wire.make_room(0)
    pair.stream.send_now(b"unsent")
    pair.wire.deliver(pair.client.encrypt(b"last words") + pair.client.close())
    pair.wire.send_fails = True
    assert await pair.stream.receive_some() == b"last words"
    assert await pair.stream.receive_some() == b""
    with pytest.raises(StreamBroken):
        pair.stream.send_now(b"")


# --- the end --------------------------------------------------------------------------------------------------------


async def test_close_notify_is_the_end(pair: Pair) -> None:
    pair.wire.deliver(pair.client.encrypt(b"bye") + pair.client.close())
    assert await pair.stream.receive_some() == b"bye"
    assert await pair.stream.receive_some() == b""
    assert await pair.stream.receive_some() == b""


async def test_a_cut_without_close_notify_is_the_end_too(pair: Pair) -> None:
    pair.wire.deliver(pair.client.encrypt(b"bye") + pair.client.encrypt(b"cut")[:-1], end=True)
    assert await pair.stream.receive_some() == b"bye"
    assert await pair.stream.receive_some() == b""
    assert pair.stream.send_now(b"still heard") == 11
    assert pair.arrived() == b"still heard"


async def test_a_cut_is_the_end_where_the_context_is_strict(certificates: Certificates) -> None:
    context = server_context(certificates.tls())
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    pair = await handshake(context, TlsClient(certificates.client_context()))
    pair.wire.deliver(b"", end=True)
    assert await pair.stream.receive_some() == b""


async def test_finish_sends_what_is_held_then_close_notify(pair: Pair) -> None:
    pair.wire.make_room(0)
    pair.stream.send_now(b"held")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.stream.finish, 5)
        await trio.testing.wait_all_tasks_blocked()
        assert not pair.wire.closed
        pair.wire.make_room(None)
    assert pair.wire.finished_within_s is not None
    assert 4 < pair.wire.finished_within_s <= 5
    assert pair.arrived() == b"held"
    assert pair.client.ended
    with pytest.raises(StreamBroken):
        pair.stream.send_now(b"more")


async def test_finish_waits_no_longer_than_told(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    pair.wire.make_room(0)
    pair.stream.send_now(b"held")
    start_s = trio.current_time()
    await pair.stream.finish(5)
    assert math.isclose(trio.current_time() - start_s, 5)
    assert pair.wire.finished_within_s == 0
    assert pair.wire.closed


async def test_close_is_at_once_and_wakes_the_reader(pair: Pair) -> None:
    async def receive() -> None:
        with pytest.raises(StreamBroken):
            await pair.stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        pair.stream.close()
        pair.stream.close()
    assert pair.wire.closed
    assert pair.wire.take_sent() == b""
    with pytest.raises(StreamBroken):
        pair.stream.send_now(b"a")
    with pytest.raises(StreamBroken):
        await pair.stream.receive_some()
    await pair.stream.finish(5)


# --- corrupted ciphertext -------------------------------------------------------------------------------------------


async def test_corrupted_bytes_break_the_stream_after_the_good_ones(pair: Pair) -> None:
    good, bad = pair.client.encrypt(b"good"), bytearray(pair.client.encrypt(b"bad"))
    bad[-1] ^= 1
    pair.wire.deliver(good + bad + pair.client.encrypt(b"late"))
    assert await pair.stream.receive_some() == b"good"
    with pytest.raises(StreamBroken, match="BAD_RECORD_MAC"):
        await pair.stream.receive_some()
    with pytest.raises(StreamBroken):
        await pair.stream.receive_some()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        pair.arrived()


async def test_corrupted_bytes_alone(pair: Pair) -> None:
    pair.wire.deliver(b"\x17\x03\x03\x00\x05hello")
    with pytest.raises(StreamBroken, match="TLS: "):
        await pair.stream.receive_some()


async def test_half_a_message_of_the_tls_layer_breaks_a_send_instead_of_stalling_it(certificates: Certificates) -> None:
    pair = await handshake(server_context(certificates.tls()), TlsClient(certificates.client_context()))

    class HalfWay:
        def write(self, data: bytes) -> int:
            raise ssl.SSLWantReadError

    pair.stream._ssl = HalfWay()  # type: ignore[assignment]
    with pytest.raises(StreamBroken):
        pair.stream.send_now(b"a")
