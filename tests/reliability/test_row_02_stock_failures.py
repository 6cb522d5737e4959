"""RELIABILITY row 2: each failure of the stock server (RELIABILITY's first table), tried on a running node."""

import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio

from tests.reliability.healthy import healthy_connections
from tests.reliability.node_process import NodeProcess, started_node
from tests.reliability.raw_clients import UPGRADE, RawDevice, RawWebSocket, data_frame, heartbeat, let_go_of_all
from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame, unmasked

TRIES = 100
LIMIT = 64 * 1024
QUEUE_BYTES = 64 * 1024
FRAGMENTS = 1024
RESET = struct.pack("ii", 1, 0)
CONNECT = b'{"op":"connect","id":1}'


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with started_node(
        {"LIMITS__QUEUE": f'"{QUEUE_BYTES}B"', "LIMITS__MESSAGES": "{ rate = 1e4, burst = 1e4 }"}
    ) as node:
        yield node


@pytest.fixture(autouse=True)
async def _nothing_hits_the_barrier(node: NodeProcess) -> AsyncIterator[None]:
    """After each test: the same process serves, nobody's connection is left, and no bug was seen."""
    yield
    let_go_of_all()
    await node.wait_metric("connections", 0)
    good = await RawWebSocket.connected(node.ports["websocket"])
    good.close()
    assert await node.metric("barrier_hits_total") == 0
    assert node.failures == []


def _send_and_reset(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        stranger.sendall(data)


@pytest.mark.parametrize(
    "header",
    ["Host", "Connection", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Upgrade", "Sec-WebSocket-Key", "X"],
)
async def test_bytes_above_ascii_in_a_header_are_answered_400(node: NodeProcess, header: str) -> None:
    for odd in (b"\x80", b"\xff", "é".encode(), b"a\xc3", b"\xf0\x9f\x92\xa9"):
        stranger = await RawWebSocket.open(node.ports["websocket"])
        line = f"{header}: ".encode() + odd + b"\r\n"
        assert b" 400 " in await stranger.upgrade(UPGRADE.removesuffix(b"\r\n") + line + b"\r\n")
        stranger.close()


@pytest.mark.parametrize(
    "said",
    [b"GARBAGE\r\n\r\n", b"GET /ws HTTP/1.1\r\nHost: \xff\r\n\r\n", b"GET /ws", UPGRADE, UPGRADE + frame(PING, b"x")],
    ids=["bad HTTP", "bad header", "half a line", "an upgrade", "an upgrade and a ping"],
)
async def test_something_and_then_a_reset_100_times(node: NodeProcess, said: bytes) -> None:
    for _ in range(TRIES):
        _send_and_reset(node.ports["websocket"], said)


async def test_resets_at_every_place_of_a_conversation(node: NodeProcess) -> None:
    for said in ([], [CONNECT], [CONNECT, b'{"op":"subscribe","id":2,"topic":"a"}']):
        for _ in range(TRIES // 4):
            stranger = await RawWebSocket.open(node.ports["websocket"])
            await stranger.upgrade()
            await stranger.send(b"".join(frame(TEXT, request) for request in said))
            if len(said) > 1:
                await stranger.frame()
            stranger.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stranger.close()


@pytest.mark.guard(30)
async def test_silence_after_a_message_over_the_limit_is_released_in_5_seconds(node: NodeProcess) -> None:
    silent = await RawWebSocket.connected(node.ports["websocket"])
    await silent.send(frame(TEXT, b" " * (LIMIT + 1)))
    began_s = time.monotonic()
    assert await silent.close_code(silent=True) == 1009
    await silent.wait_closed()
    assert time.monotonic() - began_s <= 6


@pytest.mark.guard(40)
@pytest.mark.parametrize("payload", [b"x", b""], ids=["one byte", "empty"])
async def test_fragments_for_ever_are_ended_and_not_felt(
    node: NodeProcess, payload: bytes, report: Callable[[str], None]
) -> None:
    fragments = frame(CONTINUATION, payload, final=False) * 256
    codes: list[int | None] = []

    async def attack() -> None:
        while True:
            stranger = await RawWebSocket.connected(node.ports["websocket"])
            with contextlib.suppress(trio.BrokenResourceError):
                await stranger.send(frame(TEXT, payload, final=False))
                for _ in range(8):
                    await stranger.send(fragments)
                    await trio.sleep(0.005)  # the healthy ones are measured by this process
            codes.append(await stranger.close_code())

    async with healthy_connections(node.ports["device"], every_s=0.1) as healthy:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack)
            await healthy.assert_p99(0.050)
            nursery.cancel_scope.cancel()
        report(f"row 2, {len(codes)} times {FRAGMENTS} fragments: others' p99 {healthy.p99_s() * 1000:.1f} ms")
    assert set(codes) == {1008}


async def test_as_many_fragments_as_are_allowed_are_one_message(node: NodeProcess) -> None:
    client = await RawWebSocket.open(node.ports["websocket"])
    await client.upgrade()
    pieces = [CONNECT[:5], *[b""] * (FRAGMENTS - 2), CONNECT[5:]]
    frames = [frame(CONTINUATION if n else TEXT, piece, final=False) for n, piece in enumerate(pieces)]
    await client.send(b"".join(frames[:-1]) + frame(CONTINUATION, pieces[-1]))
    assert b'"connected"' in (await client.frame())[1]


async def test_frames_in_the_segment_of_the_upgrade_are_kept(node: NodeProcess) -> None:
    more = [CONNECT, b'{"op":"subscribe","id":2,"topic":"a"}', b'{"op":"ping","id":3}']
    frames = b"".join(frame(TEXT, request) for request in more) + frame(BINARY, heartbeat(0, 5))
    for cut in (0, 1, 7, len(frames)):
        client = await RawWebSocket.open(node.ports["websocket"])
        assert b" 101 " in await client.upgrade(UPGRADE + frames[:cut])
        await client.send(frames[cut:])
        answers = [await client.frame() for _ in range(4)]
        assert [b'"connected"' in answers[0][1], b'"subscribed"' in answers[1][1]] == [True, True]
        assert answers[2][1] == b'{"op":"pong","id":3}'
        assert answers[3] == (BINARY, heartbeat(1, 5))


@pytest.mark.guard(40)
@pytest.mark.parametrize("wait_s", [0, 1.5], ids=["who reads again", "who does not"])
async def test_a_peer_that_stops_reading_gets_whole_frames_or_the_end(node: NodeProcess, wait_s: float) -> None:
    slow = await RawWebSocket.open(node.ports["websocket"], receive_bytes=4096)
    await slow.upgrade()
    topic = f"slow:{wait_s:g}"
    for request in (CONNECT, f'{{"op":"subscribe","id":2,"topic":"{topic}"}}'.encode()):
        await slow.send(frame(TEXT, request))
        await slow.frame()
    publisher = await RawDevice.connected(node.ports["device"])
    closed = await node.metric("connections_closed_total", reason="too_slow")
    offset = 0
    while await node.metric("connections_closed_total", reason="too_slow") == closed:
        for _ in range(10):
            reply = await publisher.request({"op": "publish", "id": 3, "topic": topic, "data": "x" * 8000})
            offset = reply["offset"]
    await trio.sleep(wait_s)
    codes, last = [], 0
    with contextlib.suppress(EOFError, trio.BrokenResourceError):
        while True:
            opcode, payload = await slow.frame()
            assert codes == [], "a frame behind the Close frame"
            if opcode == CLOSE:
                codes.append(int.from_bytes(payload[:2], "big"))
            else:
                last += 1
                assert payload.startswith(b'{"op":"message"')
                assert f'"offset":{last},'.encode() in payload[-200:]
    assert 0 < last < offset
    assert codes == ([] if wait_s else [4009])


VIOLATIONS: dict[str, tuple[bytes, int]] = {
    "not masked": (unmasked(TEXT, b"{}"), 1002),
    "a reserved bit": (frame(TEXT, b"{}", reserved=4), 1002),
    "an unknown opcode": (frame(3, b"{}"), 1002),
    "an unknown control opcode": (frame(11), 1002),
    "a fragmented ping": (frame(PING, b"x", final=False), 1002),
    "a long ping": (frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "a message inside a message": (frame(TEXT, b"{", final=False) + frame(TEXT, b"}"), 1002),
    "a length in too many bytes": (frame(TEXT, b"{}", form=2), 1002),
    "a length with its sign bit": (b"\x81\xff" + b"\xff" * 8 + b"mask", 1002),
    "a Close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a Close with code 999": (frame(CLOSE, b"\x03\xe7"), 1002),
    "a Close with code 1005": (frame(CLOSE, b"\x03\xed"), 1002),
    "a Close with bad text": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is not UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "text that ends too early": (frame(TEXT, "é".encode()[:1]), 1007),
    "text over the limit": (frame(TEXT, b" " * (LIMIT + 1)), 1009),
    "a length over the limit": (b"\x82\xff" + (2**40).to_bytes(8, "big") + b"mask", 1009),
    "no JSON": (frame(TEXT, b"hello"), 4000),
    "no object": (frame(TEXT, b"[1]"), 4000),
    "no op": (frame(TEXT, b'{"id":1}'), 4000),
    "empty text": (frame(TEXT), 4000),
    "empty binary": (frame(BINARY), 4000),
    "half a heartbeat": (frame(BINARY, heartbeat(0, 1)[:9]), 4000),
    "a heartbeat and a half": (frame(BINARY, heartbeat(0, 1) + b"HEAR"), 4000),
    "a heartbeat with a length": (frame(BINARY, heartbeat(0, 1)[:-1] + b"\1"), 4000),
    "an unknown type": (frame(BINARY, heartbeat(4, 1)), 4000),
    "MessagePack that is none": (frame(BINARY, data_frame(None)[:4] + b"\3" + bytes(10) + b"\1\xc1"), 4000),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_violation_is_answered_with_a_close_frame(node: NodeProcess, violation: str) -> None:
    said, code = VIOLATIONS[violation]
    client = await RawWebSocket.connected(node.ports["websocket"])
    await client.send(said)
    assert await client.close_code() == code


async def test_who_answers_the_close_is_let_go_at_once(node: NodeProcess) -> None:
    client = await RawWebSocket.connected(node.ports["websocket"])
    await client.send(frame(TEXT, b"hello"))
    began_s = time.monotonic()
    assert await client.close_code(silent=True) == 4000
    await client.send(frame(CLOSE, b"\x0f\xa0"))
    await client.tcp.send_eof()
    await client.wait_closed()
    assert time.monotonic() - began_s <= 2


async def test_a_ping_during_the_close_is_harmless(node: NodeProcess) -> None:
    """trio-websocket's issue 184: it ends a stock server."""
    for _ in range(TRIES):
        client = await RawWebSocket.connected(node.ports["websocket"])
        await client.send(frame(TEXT, b"hello") + frame(PING, b"1") * 3)
        with contextlib.suppress(trio.BrokenResourceError):
            await client.send(frame(PING, b"2") * 3)
        client.close()
