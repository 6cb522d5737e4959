"""The request head: what is read of a good one, and each kind of bad one."""

import json

import pytest

from notifyd.transport.request_head import HEAD_BYTES, HeadError, HeadReader, RequestHead, response, upgrade
from tests.unit.transport.heads import KEY, head, outcome_in_cuts


def read(data: bytes) -> RequestHead:
    found = HeadReader().receive(data)
    assert found is not None
    return found


def refusal(data: bytes) -> HeadError:
    with pytest.raises(HeadError) as caught:
        HeadReader().receive(data)
    return caught.value


# --- what is read ---------------------------------------------------------------------------------------------------


def test_a_browsers_request_is_read() -> None:
    found = read(
        head(
            "Origin: https://app.example.com",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            "Sec-WebSocket-Protocol: notifyd.v1.msgpack, notifyd.v1.json",
            "Authorization: Bearer a.b.c",
            "Cookie: a=b; c=d",
            "Pragma:no-cache",
            line="GET /ws?token=a.b-c_d&topics=chat:room1,orders%3Astatus&topics=%E2%82%AC HTTP/1.1",
        )
    )
    assert (found.method, found.path, found.host) == ("GET", "/ws", "notify.example.com:7500")
    assert found.target == "/ws?token=a.b-c_d&topics=chat:room1,orders%3Astatus&topics=%E2%82%AC"
    assert found.query == {"token": ["a.b-c_d"], "topics": ["chat:room1,orders:status", "€"]}
    assert found.origins == ["https://app.example.com"]
    assert found.authorization == ["Bearer a.b.c"]
    assert found.subprotocols == ("notifyd.v1.msgpack", "notifyd.v1.json")
    assert found.headers["pragma"] == ["no-cache"]
    assert found.trailing == b""


def test_the_answer_is_that_of_the_rfc() -> None:
    """Its key and what proves it: RFC 6455 section 1.3."""
    assert read(head()).key == KEY
    lines = upgrade(KEY, "notifyd.v1.json").decode().split("\r\n")
    assert lines == [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: notifyd.v1.json",
        "",
        "",
    ]
    assert upgrade(KEY, None).decode().split("\r\n") == [*lines[:4], "", ""]


def test_nothing_that_is_absent_is_invented() -> None:
    found = read(head())
    assert (found.query, found.origins, found.authorization, found.subprotocols) == ({}, [], [], ())


def test_every_origin_is_handed_on_for_the_origin_check() -> None:
    assert read(head("Origin: https://a", "origin:https://b", "Origin: null")).origins == [
        "https://a",
        "https://b",
        "null",
    ]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("?", {}),
        ("?&&", {}),
        ("?a", {"a": [""]}),
        ("?a=", {"a": [""]}),
        ("?=b", {"": ["b"]}),
        ("?a=b=c", {"a": ["b=c"]}),
        ("?a=1&a=2&b=3", {"a": ["1", "2"], "b": ["3"]}),
        ("?a=x+y%20z%2B", {"a": ["x+y z+"]}),
        ("?%61=%00%26", {"a": ["\0&"]}),
        ("?a=%f0%9f%99%82", {"a": ["🙂"]}),
        ("?a=?/:@{}|[]", {"a": ["?/:@{}|[]"]}),
    ],
)
def test_the_query_is_percent_decoded(query: str, fields: dict[str, list[str]]) -> None:
    assert read(head(line=f"GET /ws{query} HTTP/1.1")).query == fields


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: keep-alive, Upgrade",),
        ("Connection: keep-alive", "Connection: upgrade"),
        ("Connection: UPGRADE ,\tTE", "Connection: keep-alive"),
        ("connection:Upgrade,",),
    ],
)
def test_connection_is_a_list(headers: tuple[str, ...]) -> None:
    assert read(head(*headers, without="connection")).path == "/ws"


@pytest.mark.parametrize("header", ["Upgrade: WebSocket", "UPGRADE:websocket", "upgrade: \twebsocket \t"])
def test_upgrade_ignores_case_and_space(header: str) -> None:
    assert read(head(header, without="upgrade")).path == "/ws"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a_b-c.example.",
        "127.0.0.1:1",
        "[::1]",
        "[::ffff:1.2.3.4]:65535",
        "xn--bcher-kva.example:80",
        "a" * 63,
        "1",
    ],
)
def test_hosts(host: str) -> None:
    assert read(head(f"Host: {host}", without="host")).host == host


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        (["a"], ("a",)),
        (["a,b , c"], ("a", "b", "c")),
        (["a", "b,c"], ("a", "b", "c")),
        ([",a,,b,"], ("a", "b")),
        (["", "a"], ("a",)),
        (["a", "A"], ("a", "A")),
    ],
)
def test_subprotocols(headers: list[str], names: tuple[str, ...]) -> None:
    assert read(head(*(f"Sec-WebSocket-Protocol: {value}" for value in headers))).subprotocols == names


# --- what is refused ------------------------------------------------------------------------------------------------

MANY_HEADERS = [f"X-{number}: y" for number in range(96)]

REFUSED = {
    # the request line
    "empty line first": (b"\r\n" + head(), 400),
    "nothing but an end": (b"\r\n\r\n", 400),
    "HTTP/1.0": (head(line="GET /ws HTTP/1.0"), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (head(line="GET /ws"), 400),
    "two spaces": (head(line="GET  /ws HTTP/1.1"), 400),
    "tab": (head(line="GET\t/ws HTTP/1.1"), 400),
    "space behind": (head(line="GET /ws HTTP/1.1 "), 400),
    "lower-case http": (head(line="GET /ws http/1.1"), 400),
    "POST": (head(line="POST /ws HTTP/1.1"), 405),
    "HEAD": (head(line="HEAD /ws HTTP/1.1"), 405),
    "get": (head(line="get /ws HTTP/1.1"), 405),
    "CONNECT": (head(line="CONNECT a:1 HTTP/1.1"), 405),
    "absolute form": (head(line="GET http://a/ws HTTP/1.1"), 400),
    "asterisk form": (head(line="GET * HTTP/1.1"), 400),
    "fragment": (head(line="GET /ws#a HTTP/1.1"), 400),
    "cut escape": (head(line="GET /ws?a=%4 HTTP/1.1"), 400),
    "bad escape": (head(line="GET /ws?%zz HTTP/1.1"), 400),
    "escaped Latin-1": (head(line="GET /ws?a=%ff HTTP/1.1"), 400),
    "escaped surrogate": (head(line="GET /%ed%a0%80 HTTP/1.1"), 400),
    "many fields": (head(line=f"GET /ws?{'a&' * 33} HTTP/1.1"), 400),
    # bytes
    "byte above 0x7f in Host": (head("Host: b\xfccher", without="host"), 400),
    "byte above 0x7f in Connection": (head("Connection: Upgrade, \xff", without="connection"), 400),
    "byte above 0x7f in Sec-WebSocket-Protocol": (head("Sec-WebSocket-Protocol: \x80"), 400),
    "byte above 0x7f in Sec-WebSocket-Extensions": (head("Sec-WebSocket-Extensions: \xe9"), 400),
    "byte above 0x7f in the target": (head(line="GET /\xe4 HTTP/1.1"), 400),
    "byte above 0x7f in a cookie": (head("Cookie: \xe4"), 400),
    "NUL": (head("X: a\0b"), 400),
    "DEL": (head("X: a\x7fb"), 400),
    "control character": (head("X: \x01"), 400),
    "vertical tab": (head("X: a\x0bb"), 400),
    "bare LF": (head().replace(b"\r\n", b"\n"), 400),
    "one bare LF": (head("X: a\nY: b"), 400),
    "bare CR": (head("X: a\rb"), 400),
    "CR CR LF": (head("X: a\r"), 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    # header lines
    "folded": (head("X: a", " b"), 400),
    "folded with tab": (head("X: a", "\tb"), 400),
    "folded first": (head(line="GET /ws HTTP/1.1\r\n a: b"), 400),
    "no colon": (head("X"), 400),
    "no name": (head(": a"), 400),
    "space before the colon": (head("Host : a", without="host"), 400),
    "no token": (head("X(y): a"), 400),
    "101 headers": (head(*MANY_HEADERS), 431),
    "too long": (head("X: " + "a" * HEAD_BYTES), 431),
    "too long, endless": (b"GET /" + b"a" * HEAD_BYTES, 431),
    # Host
    "no Host": (head(without="host"), 400),
    "two Hosts": (head("Host: notify.example.com:7500"), 400),
    "empty Host": (head("Host:", without="host"), 400),
    "Host with userinfo": (head("Host: a@b", without="host"), 400),
    "Host with path": (head("Host: a/b", without="host"), 400),
    "Host list": (head("Host: a, b", without="host"), 400),
    "Host with empty label": (head("Host: a..b", without="host"), 400),
    "Host of a dot": (head("Host: .", without="host"), 400),
    "Host with long label": (head(f"Host: {'a' * 64}", without="host"), 400),
    "Host too long": (head(f"Host: {'a.' * 131}", without="host"), 400),
    "Host that is no IDNA": (head("Host: xn--0", without="host"), 400),
    "Host that is no IPv6 address": (head("Host: [:::1]", without="host"), 400),
    "Host with bare IPv6 address": (head("Host: ::1", without="host"), 400),
    "Host with zone": (head("Host: [fe80::1%25eth0]", without="host"), 400),
    "port too large": (head("Host: a:65536", without="host"), 400),
    "port empty": (head("Host: a:", without="host"), 400),
    "port a word": (head("Host: a:http", without="host"), 400),
    # no body
    "Content-Length": (head("Content-Length: 5"), 400),
    "Content-Length 0": (head("Content-Length: 0"), 400),
    "Transfer-Encoding": (head("transfer-encoding: chunked"), 400),
    "Expect": (head("Expect: 100-continue"), 400),
    # the handshake
    "plain GET": (head(good=("Host: a",)), 426),
    "no Upgrade": (head(without="upgrade"), 426),
    "Upgrade to h2c": (head("Upgrade: h2c", without="upgrade"), 426),
    "Upgrade to several": (head("Upgrade: websocket, h2c", without="upgrade"), 426),
    "two Upgrades": (head("Upgrade: websocket"), 426),
    "no Connection": (head(without="connection"), 426),
    "Connection without upgrade": (head("Connection: keep-alive", without="connection"), 426),
    "Connection with part of the word": (head("Connection: upgrades", without="connection"), 426),
    "no version": (head(without="sec-websocket-version"), 426),
    "version 8": (head("Sec-WebSocket-Version: 8", without="sec-websocket-version"), 426),
    "versions": (head("Sec-WebSocket-Version: 13, 8", without="sec-websocket-version"), 426),
    "two versions": (head("Sec-WebSocket-Version: 13"), 426),
    "no key": (head(without="sec-websocket-key"), 400),
    "two keys": (head(f"Sec-WebSocket-Key: {KEY}"), 400),
    "empty key": (head("Sec-WebSocket-Key:", without="sec-websocket-key"), 400),
    "key of 15 bytes": (head("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA", without="sec-websocket-key"), 400),
    "key of 17 bytes": (head("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=", without="sec-websocket-key"), 400),
    "key not base64": (head("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA-_==", without="sec-websocket-key"), 400),
    # subprotocols
    "subprotocol not a token": (head("Sec-WebSocket-Protocol: a b"), 400),
    "subprotocol quoted": (head('Sec-WebSocket-Protocol: "a"'), 400),
    "subprotocol twice": (head("Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: a"), 400),
    "subprotocols none": (head("Sec-WebSocket-Protocol: ,"), 400),
    "subprotocols many": (head("Sec-WebSocket-Protocol: " + ",".join(f"a{number}" for number in range(33))), 400),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(data: bytes, status: int) -> None:
    error = refusal(data)
    assert error.status == status
    answer, _, body = error.response().partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body) == {"error": {"code": status, "reason": error.reason, "message": error.message}}
    assert outcome_in_cuts(data, range(1, len(data) + 1)) == outcome_in_cuts(data, ())


def test_what_may_just_be() -> None:
    assert len(read(head(*MANY_HEADERS[1:])).headers) == 100
    assert read(head(line=f"GET /ws?{'a&' * 32} HTTP/1.1")).query == {"a": [""] * 32}
    longest = head("X: " + "a" * (HEAD_BYTES - len(head("X: "))))
    assert len(longest) == HEAD_BYTES
    assert read(longest + b"tail").trailing == b"tail"


def test_an_answer_426_names_protocol_and_version() -> None:
    answer = refusal(head(good=("Host: a",))).response()
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


def test_a_response_is_a_whole_http_answer() -> None:
    assert response(503, "unavailable", 'a "full" house €', (("Retry-After", "5"),)) == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 79\r\n"
        b"Connection: close\r\nRetry-After: 5\r\n\r\n"
        + '{"error":{"code":503,"reason":"unavailable","message":"a \\"full\\" house €"}}\n'.encode()
    )


def test_a_long_header_of_spaces_costs_no_time() -> None:
    data = head("X: a" + " " * 15000 + "b")
    for _ in range(100):
        read(data)


def test_smaller_limits_hold() -> None:
    with pytest.raises(HeadError, match="431"):
        HeadReader(limit_bytes=20).receive(head())
    with pytest.raises(HeadError, match="431"):
        HeadReader(max_headers=4).receive(head())
