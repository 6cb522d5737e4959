"""The request head under any bytes and any cutting, with h11 and wsproto's own server as a second opinion."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from notifyd.transport.request_head import HeadError, HeadReader, upgrade
from tests.unit.transport.heads import GOOD_HEADERS, KEY, head, outcome_in_cuts


def second_opinion(data: bytes, subprotocol: str | None) -> bytes | None:
    """How wsproto's server, reading with h11, answers `data`; None where it makes no upgrade request of it."""
    server = WSConnection(ConnectionType.SERVER)
    try:
        server.receive_data(data)
        if any(isinstance(event, Request) for event in server.events()):
            return server.send(AcceptConnection(subprotocol=subprotocol))
    except Exception:  # the point: some of what it raises is no protocol error
        return None
    return None


def agree(data: bytes) -> None:
    """Whatever wsproto refuses is refused; whatever is accepted is answered as its server does."""
    try:
        found = HeadReader().receive(data)
    except HeadError:
        return
    if found is None:
        return
    chosen = found.subprotocols[-1] if found.subprotocols else None
    if (
        len(found.headers["connection"]) == 1
    ):  # several are one list (RFC 9110 section 5.3); wsproto reads only the last
        assert second_opinion(data, chosen) == upgrade(found.key, chosen)


names = st.sampled_from(
    ["Host", "Upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Expect", "Origin", "X"]
    + [f"Sec-WebSocket-{name}" for name in ("Key", "Version", "Protocol", "Extensions")]
)
values = st.one_of(
    st.sampled_from(
        ["websocket", "Upgrade", "13", KEY, "a", "a,b", "localhost:1", "xn--a", "xn--", "[::1]", "chunked", "0", ""]
    ),
    st.text('aA0 ,:;.-=/\t"[]xn\xe9\x00\r\n', max_size=12),
    st.text(st.characters(max_codepoint=255), max_size=6),
)
header_lines = st.builds("{}{}{}".format, names, st.sampled_from([": ", ":", " :", ""]), values)
request_lines = st.one_of(
    st.just("GET /ws HTTP/1.1"),
    st.builds("GET /{} HTTP/1.1".format, st.text(st.characters(max_codepoint=255), max_size=8)),
    st.builds(
        "{} {} {}".format, *[st.sampled_from(["GET", "PUT", "/", "*", "/a?b=%41", "HTTP/1.1", "HTTP/1.0", ""])] * 3
    ),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads near good ones: headers changed, dropped and doubled, perhaps a byte changed, perhaps a tail."""
    lines = list(draw(st.permutations(GOOD_HEADERS)))
    for _ in range(draw(st.integers(0, 2))):
        del lines[draw(st.integers(0, len(lines) - 1))]
    lines += draw(st.lists(header_lines, max_size=3))
    data = bytearray("\r\n".join([draw(request_lines), *lines, "", ""]).encode("latin-1"))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(data) - 1))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data) + draw(st.binary(max_size=20))


@settings(max_examples=4 * settings().max_examples)
@given(heads())
@example(head("Sec-WebSocket-Protocol: a, b") + b"tail")
@example(head("Host: a..b", without="host"))
@example(head("Host: xn--0", without="host"))
def test_h11_and_wsproto_agree(data: bytes) -> None:
    agree(data)


@settings(max_examples=4 * settings().max_examples)
@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_else(data: bytes) -> None:
    agree(data)


@settings(max_examples=4 * settings().max_examples)
@given(heads(), st.lists(st.integers(0, 400)).map(sorted))
def test_any_cutting_gives_the_same(data: bytes, cuts: list[int]) -> None:
    cuts = [min(cut, len(data)) for cut in cuts]
    assert outcome_in_cuts(data, cuts) == outcome_in_cuts(data, ())


def test_byte_by_byte_and_with_a_tail() -> None:
    data = head("Sec-WebSocket-Protocol: a") + b"\x81\x80abcd"
    whole = outcome_in_cuts(data, ())
    assert whole[0] == "accepted"
    assert whole[2] == b"\x81\x80abcd"
    assert outcome_in_cuts(data, range(1, len(data))) == whole
    for cut in range(len(data)):
        assert outcome_in_cuts(data, [cut]) == whole
