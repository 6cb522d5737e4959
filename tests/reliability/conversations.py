"""Whole conversations with a node, as a program that knows the protocol would hold them."""

import base64
import contextlib
import functools
import json
import random
import ssl
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec

from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

Chance: TypeAlias = random.Random


class Pause(NamedTuple):
    """Do nothing for so long."""

    seconds: float


class Listen(NamedTuple):
    """Wait for an answer, for so long at most."""

    seconds: float


Step: TypeAlias = bytes | Pause | Listen
"""Bytes are one send."""

Said: TypeAlias = tuple[str, list[Step]]
"""A listener ("websocket", "device" or "http") and what is done there."""

UPGRADE_S = 1.0
"""How long a client waits for the answer to its upgrade before it goes on regardless."""

ANSWER_S = 0.2
"""The same for any other answer."""

TOPICS = ("fuzz:a", "fuzz:b:c", "fuzz:" + "x" * 200, "$server", "fuzz:é", "", "fuzz: space", "*")
DATA: tuple[Any, ...] = (None, 7, -(2**63), 2**64 - 1, 1.5, "text", [1, [2, [3]]], {"a": {"b": []}}, "é" * 100, True)
TOKENS = ("", "x.y.z", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "A" * 3000)


def requests(chance: Chance) -> list[dict[str, Any]]:
    """Some requests in a sensible order, `connect` first."""
    topic = chance.choice(TOPICS)
    connect: dict[str, Any] = {"op": "connect", "id": 1}
    if chance.random() < 0.1:
        connect["token"] = chance.choice(TOKENS)
    if chance.random() < 0.2:
        connect |= {"session": "nobody's", "heartbeat": chance.choice((30, 0.001, -1, "x"))}
    since = chance.choice(("latest", "earliest", {"epoch": "e", "offset": 3}, 17))
    others = [
        {"op": "subscribe", "id": 2, "topic": topic, "since": since},
        {"op": "subscribe", "id": 3, "topic": chance.choice(TOPICS)},
        {"op": "publish", "id": 4, "topic": topic, "data": chance.choice(DATA)},
        {"op": "publish", "topic": topic, "data": "x" * chance.choice((10, 5000)), "key": "k", "echo": False},
        {"op": "ack", "id": 5, "topic": topic, "offset": chance.randrange(5)},
        {"op": "presence", "id": 6, "topic": topic},
        {"op": "history", "id": 7, "topic": topic, "since": "earliest", "limit": chance.choice((1, 1000, -1))},
        {"op": "call", "id": 8, "method": "orders.create", "data": {}},
        {"op": "refresh", "id": 9, "token": chance.choice(TOKENS)},
        {"op": "ping", "id": 10},
        {"op": "unsubscribe", "id": 11, "topic": topic},
        {"op": chance.choice(("nonsense", "", "connect")), "id": chance.choice((0, 2**32, 12, "x"))},
    ]
    return [connect, *chance.sample(others, chance.randrange(len(others)))]


def device_frame(chance: Chance, message: Any) -> bytes:
    """A frame of type 2 or 3."""
    kind = chance.choice((2, 3))
    payload = json.dumps(message).encode() if kind == 2 else msgspec.msgpack.encode(message)
    return struct.pack("!4sBQ", b"HEAR", kind, chance.getrandbits(64)) + len(payload).to_bytes(3, "big") + payload


def beat(chance: Chance) -> bytes:
    """A heartbeat."""
    return struct.pack("!4sBQ3s", b"HEAR", chance.choice((0, 1)), chance.getrandbits(64), bytes(3))


def say_on_device(chance: Chance) -> Said:
    steps: list[Step] = []
    for request in requests(chance):
        steps.append(device_frame(chance, request))
        if chance.random() < 0.2:
            steps.append(beat(chance))
        if chance.random() < 0.2:
            steps.append(Listen(ANSWER_S))
    return "device", steps


def upgrade_head(chance: Chance) -> bytes:
    """An upgrade request with every header that a client may send, some of them left out."""
    fields = [
        (0.05, "token", chance.choice(TOKENS)),
        (0.2, "topics", "fuzz:a,fuzz:b"),
        (0.2, "heartbeat", "20"),
        (0.2, "session", "s"),
        (0.2, "x", "%C3%A9"),
    ]
    query = "&".join(f"{name}={value}" for share, name, value in fields if chance.random() < share)
    optional = [
        (0.3, "Sec-WebSocket-Protocol", chance.choice(("notifyd.v1.json", "notifyd.v1.msgpack, notifyd.v1.json"))),
        (0.3, "Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        (0.05, "Authorization", f"Bearer {chance.choice(TOKENS)}"),
        (0.3, "Cookie", "a=b; c=" + "d" * chance.choice((5, 3000))),
        (0.3, "User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        (0.3, "Origin", "http://127.0.0.1"),
        (0.03, "Origin", "https://evil.example"),
        (0.3, "Pragma", "no-cache"),
    ]
    key = base64.b64encode(chance.randbytes(16)).decode()
    headers = [("Host", "127.0.0.1"), ("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade")]
    headers += [("Sec-WebSocket-Key", key), ("Sec-WebSocket-Version", "13")]
    headers += [(name, value) for share, name, value in optional if chance.random() < share]
    chance.shuffle(headers)
    target = f"/ws?{query}" if query else "/ws"
    return "\r\n".join([f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]).encode()


def websocket_frames(chance: Chance, message: Any) -> list[bytes]:
    """One message: as text or binary, whole or in fragments, perhaps with a control frame in between."""
    if chance.random() < 0.6:
        opcode, payload = TEXT, json.dumps(message).encode()
    else:
        opcode, payload = BINARY, device_frame(chance, message) + beat(chance) * chance.choice((0, 0, 1))
    if chance.random() < 0.7:
        frames = [frame(opcode, payload)]
    else:
        cut = chance.randrange(len(payload) + 1)
        frames = [frame(opcode, payload[:cut], final=False)]
        frames += [frame(CONTINUATION, b"", final=False)] * chance.randrange(3)
        frames.append(frame(CONTINUATION, payload[cut:]))
    if chance.random() < 0.3:
        frames.insert(chance.randrange(len(frames) + 1), frame(chance.choice((PING, PONG)), chance.randbytes(5)))
    return frames


def say_on_websocket(chance: Chance) -> Said:
    steps: list[Step] = [upgrade_head(chance)]
    if chance.random() < 0.7:
        steps.append(Listen(UPGRADE_S))
    for request in requests(chance):
        steps += websocket_frames(chance, request)
        if chance.random() < 0.2:
            steps.append(Listen(ANSWER_S))
    if chance.random() < 0.5:
        code = chance.choice((1000, 1001, 1002, 3000, 4000, 1005, 0, 65535))
        steps.append(frame(CLOSE, chance.choice((b"", struct.pack("!H", code), struct.pack("!H", code) + b"bye"))))
    return "websocket", steps


def _only_head(chance: Chance) -> Said:
    return "websocket", [upgrade_head(chance)]


def say_on_http(chance: Chance) -> Said:
    one = {"topic": chance.choice(TOPICS), "data": chance.choice(DATA), "key": "k"}
    bodies = {"POST /v1/publish": one, "POST /v1/publish?x=1": [one] * chance.choice((0, 3))}
    reads = ["/v1/topics?match=fuzz:*", "/v1/topics/fuzz%3Aa/history?since=earliest", "/v1/tree", "/", "/ready"]
    steps: list[Step] = []
    for _ in range(chance.randrange(1, 4)):
        if chance.random() < 0.5:
            line, value = chance.choice(list(bodies.items()))
            body = json.dumps(value).encode()
            head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
            steps += [head.encode() + body] if chance.random() < 0.5 else [head.encode(), body]
        else:
            steps.append(f"GET {chance.choice(reads)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        steps.append(Listen(ANSWER_S))
    return "http", steps


def _tls_hello(chance: Chance) -> Said:
    """What a TLS client says to a plain port."""
    return chance.choice(("websocket", "device", "http")), [_make_hello(), Listen(ANSWER_S)]


@functools.cache
def _make_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def _wrong_door(chance: Chance) -> Said:
    """A good conversation with a listener of another kind."""
    listener, steps = chance.choice((say_on_device, say_on_websocket, say_on_http))(chance)
    return chance.choice([name for name in ("websocket", "device", "http") if name != listener]), steps


def _noise(chance: Chance) -> Said:
    return chance.choice(("websocket", "device", "http")), [chance.randbytes(chance.choice((1, 16, 300, 9000)))]


KINDS: dict[str, tuple[int, Callable[[Chance], Said]]] = {
    "websocket": (45, say_on_websocket),
    "head": (12, _only_head),
    "device": (28, say_on_device),
    "http": (6, say_on_http),
    "tls": (1, _tls_hello),
    "wrong door": (5, _wrong_door),
    "noise": (3, _noise),
}
"""What kinds there are, each with its share and what makes one."""
