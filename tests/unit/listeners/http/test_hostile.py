"""What strangers send: each gets its answer or its end; nothing is logged, and nobody else is harmed."""

import re
import socket
import struct
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from notifyd.listeners.http.connection import HttpConnection, HttpLimits
from tests.http_client import HttpClient
from tests.recorded_events import RecordedEvents
from tests.unit.listeners.http.conftest import new_server
from tests.unit.listeners.http.fake_peer import FakePeer
from tests.unit.listeners.http.node_stand_in import NodeStandIn

HOST = b"host: localhost\r\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
UPGRADE = b"upgrade: websocket\r\nconnection: upgrade\r\n"

ANSWERS: dict[bytes, int] = {
    b"\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": 400,  # a TLS hello
    b"HEAR\x00" + bytes(11): 400,  # a heartbeat of the device link
    b"nonsense\r\n\r\n": 400,
    b"GET / HTTP/9.9\r\n" + HOST + b"\r\n": 200,
    b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n": 400,
    b"G\xc9T / HTTP/1.1\r\n" + HOST + b"\r\n": 400,
    b"GET / HTTP/1.1\r\nhost: \xff\r\n\r\n": 403,
    b"GET / HTTP/1.1\r\n" + HOST + b"x: \x00\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n": 403,
    b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"y" * 200_000 + b"\r\n\r\n": 431,
    b"GET /" + b"y" * 20_000: 431,
    b"GET / HTTP/1.1\r\n" + HOST + b"x: y\r\n" * 4_000: 431,
    b"GET http://localhost/health HTTP/1.1\r\n" + HOST + b"\r\n": 404,
    b"GET *?x HTTP/1.1\r\n" + HOST + b"\r\n": 404,
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n": 404,
    b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n": 404,
    b"CONNECT /health HTTP/1.1\r\n" + HOST + b"\r\n": 405,
    b"GET /health?%ff=%00 HTTP/1.1\r\n" + HOST + b"\r\n": 200,
    b"GET /v1/topics?\x7f HTTP/1.1\r\n" + HOST + b"\r\n": 400,
    b"GET /v1/topics/%/history HTTP/1.1\r\n" + HOST + b"\r\n": 200,
    b"GET /health HTTP/1.1\r\n" + HOST + UPGRADE + KEY + b"\r\n": 200,
    b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + KEY + b"\r\n\x81\x80abcd": 404,
    b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"sec-websocket-protocol: \xff\r\n" + KEY + b"\r\n": 404,
    b"GET /health HTTP/1.1\r\n" + HOST + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    b"http2-settings: AAMAAABk\r\n\r\n": 200,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9): 403,
    b"POST /health HTTP/1.1\r\n" + HOST + b"content-length: 5\r\n\r\nhello": 405,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"content-length: -1\r\n\r\n": 400,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n": 400,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"content-length: 99999999999999999999\r\n\r\n": 413,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"transfer-encoding: gzip\r\n\r\n": 501,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n": 400,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 30: 400,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n": 400,
    b"POST /v1/publish HTTP/1.1\r\n" + HOST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}": 100,
    b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n" + b"\xff" * 100: 200,
}


@pytest.mark.parametrize("said", ANSWERS, ids=lambda said: repr(said[:60]))
async def test_a_stranger_gets_an_answer_in_our_form(client: HttpClient, events: RecordedEvents, said: bytes) -> None:
    good = await client.open()
    async with good.stream:
        assert (await good.ask("GET", "/health")).status == 200
        answer = await client.say(said)
        status = re.match(rb"HTTP/1\.1 (\d+) ", answer)
        assert status, answer
        assert int(status[1]) == ANSWERS[said], answer
        if ANSWERS[said] >= 400:
            assert b'{"error":{"code":' + status[1] in answer
        assert (await good.ask("GET", "/health")).status == 200
    assert events.lines == []
    assert events.counted("barrier_hits") == 0


async def test_a_stranger_that_resets_is_no_event(client: HttpClient, events: RecordedEvents) -> None:
    for said in (b"", b"GET", b"nonsense\r\n\r\n", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 50):
        stream = await trio.open_tcp_stream("127.0.0.1", client.port)
        if said:
            await stream.send_all(said)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
    assert (await client.get("/health")).status == 200
    assert events.lines == []


POST = b'POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: 22\r\n\r\n{"topic":"a","data":1}'
CHUNKED = (
    b"POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    b'16\r\n{"topic":"a","data":1}\r\n0\r\n\r\n'
)
WHOLE = [
    POST,
    CHUNKED,
    b"GET /v1/topics/a%3Ab/history?since=e:1&limit=5 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"DELETE /v1/connections/s1 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n\r\n",
    b"GET / HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nhost: localhost\r\n" + UPGRADE + KEY + b"\r\n",
]


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Whole requests one behind the other, with a few bytes changed, lost or put in, or bytes of no sense at all."""
    if draw(st.booleans()) and draw(st.booleans()):
        return draw(st.binary(max_size=300))
    said = bytearray(b"".join(draw(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(said)))
        lost = draw(st.integers(0, 3))
        said[place : place + lost] = draw(st.one_of(st.binary(max_size=4), st.sampled_from([b"\r\n", b"\r\n\r\n"])))
    return bytes(said)


@given(said=conversations(), cuts=st.lists(st.integers(0, 400), max_size=6), leaves=st.booleans(), data=st.data())
def test_no_conversation_is_an_event(said: bytes, cuts: list[int], leaves: bool, data: Any) -> None:
    """Whatever comes, in whatever pieces, from a peer that stays, leaves or stops reading: it ends, and in time."""
    takes_bytes = data.draw(st.sampled_from([10**9, 10**9, 100, 0, -1]))
    events = RecordedEvents()
    server = new_server(NodeStandIn(), events, HttpLimits(head_s=10.0, exchange_s=75.0))
    places = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    pieces = [(0.0, said[start:end]) for start, end in pairwise(places) if end > start]
    peer = FakePeer(pieces, takes_bytes=takes_bytes, leaves=leaves)

    async def serve() -> float:
        await HttpConnection(peer, server).serve()
        return trio.current_time()

    began_s = (clock := MockClock(autojump_threshold=0)).current_time()
    ended_s = trio.run(serve, clock=clock)
    assert peer.closed_at_s is not None
    assert ended_s - began_s <= 100.0
    assert events.lines == []
    assert events.counted("barrier_hits") == 0
    assert peer.sent == b"" or peer.sent.startswith(b"HTTP/1.1 "[: max(takes_bytes, 0)])
