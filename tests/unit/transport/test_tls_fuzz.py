"""TLS with any cutting of both directions, any room in the socket, and any one byte changed on its way."""

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from notifyd.errors import StreamBroken
from notifyd.transport.tls import TlsStream, server_context
from tests.certificates import write_certificates
from tests.unit.transport.wire import Pair, TlsClient, Wire, handshake

with TemporaryDirectory() as directory:  # module level: one set for all examples
    _certificates = write_certificates(Path(directory))
    SERVER = server_context(_certificates.tls())
    CLIENTS = [
        _certificates.client_context(version=version) for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    ]

clients = st.sampled_from(CLIENTS)
pieces = st.lists(st.integers(1, 20000).map(lambda size: bytes([size % 251]) * size), max_size=4)
steps = st.lists(st.integers(1, 5000), min_size=1, max_size=8)


async def read_to_the_end(pair: Pair) -> bytes:
    received = b""
    while data := await pair.stream.receive_some(10000):
        received += data
    return received


@given(clients, pieces, steps)
async def test_received_bytes_in_any_cutting(context: ssl.SSLContext, sent: list[bytes], cuts: list[int]) -> None:
    pair = await handshake(SERVER, TlsClient(context))
    ciphertext = b"".join(map(pair.client.encrypt, sent)) + pair.client.close()
    received: list[bytes] = []

    async def read() -> None:
        received.append(await read_to_the_end(pair))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        at = 0
        while at < len(ciphertext):
            step_bytes = cuts[at % len(cuts)]
            pair.wire.deliver(ciphertext[at : at + step_bytes])
            at += step_bytes
            await trio.lowlevel.checkpoint()
    assert received == [b"".join(sent)]


@given(clients, pieces, steps)
async def test_sent_bytes_with_any_room(context: ssl.SSLContext, sent: list[bytes], rooms: list[int]) -> None:
    pair = await handshake(SERVER, TlsClient(context))
    pair.wire.make_room(0)
    arrived, turn = b"", 0
    for piece in sent:
        rest = memoryview(piece)
        while rest or pair.stream.has_unsent:
            rest = rest[pair.stream.send_now(rest) :]
            turn += 1
            pair.wire.make_room(rooms[turn % len(rooms)])
            arrived += pair.arrived()
    assert arrived == b"".join(sent)


@given(clients, pieces, st.integers(min_value=0), st.integers(1, 255))
async def test_a_changed_byte_lets_nothing_wrong_through(
    context: ssl.SSLContext, sent: list[bytes], place: int, change: int
) -> None:
    pair = await handshake(SERVER, TlsClient(context))
    ciphertext = bytearray(b"".join(map(pair.client.encrypt, sent)) + pair.client.close())
    ciphertext[place % len(ciphertext)] ^= change
    pair.wire.deliver(bytes(ciphertext), end=True)
    received = b""
    try:
        received = await read_to_the_end(pair)
    except StreamBroken:
        return
    assert b"".join(sent).startswith(received)  # a longer length in a record's header ends like a cut


@given(clients, st.integers(min_value=0), st.binary(min_size=1, max_size=8))
async def test_a_changed_hello_fails_or_works(context: ssl.SSLContext, place: int, change: bytes) -> None:
    hello = bytearray(TlsClient(context).shake_hands())
    place %= len(hello)
    hello[place : place + len(change)] = change
    wire = Wire()
    wire.deliver(bytes(hello), end=True)
    with pytest.raises(StreamBroken):
        await TlsStream(wire, SERVER).handshake()
