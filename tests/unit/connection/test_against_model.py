"""One connection against a model of it: anything in any order, cut anywhere, in both encodings on both transports.

Every request with an id gets exactly one answer, of the right kind, and before the answer to what follows; pushes are
those that are due; the connection ends when the model says so, with the code it says, and never else.
"""

from typing import Any, NamedTuple

import hypothesis.strategies as st
from hypothesis import given, settings

from protocol.codec import FrameType, encode_frame, encode_heartbeat
from protocol.messages import MAX_KEY_CHARACTERS
from tests.kit.clients import Client
from tests.kit.memory_node import ENCODINGS, TRANSPORTS, MemoryNode, open_memory_node, policy, run_virtual
from tests.kit.memory_node import settings as node_settings

HISTORY, PLAIN, CLOSED, WRONG = "a:b", "plain:x", "service:x", "a::b"
TOPICS = st.sampled_from([HISTORY] * 9 + ["a:c", PLAIN, PLAIN, CLOSED, "$x", WRONG, ""])
GOOD_TOPICS = {HISTORY, "a:c", PLAIN}
IDS = st.one_of(st.integers(1, 2**32 - 1), st.none())
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


class Request(NamedTuple):
    """A request that decodes."""

    fields: dict[str, Any]


class Wrong(NamedTuple):
    """An object with an `op` that is no good request: answered with 400, with the id where it is one."""

    fields: dict[str, Any]


class Heartbeat(NamedTuple):
    kind: FrameType
    timestamp_ms: int


class Fault(NamedTuple):
    """What is no message at all: ends the connection."""

    payload: bytes


CONNECT = st.fixed_dictionaries({"op": st.just("connect"), "token": st.sampled_from([None, "good", "good", "bad"])})
SUBSCRIBE = st.fixed_dictionaries(
    {"op": st.just("subscribe"), "topic": TOPICS, "since": st.sampled_from(["latest", "earliest", "position"])}
)
PUBLISH = st.fixed_dictionaries(
    {
        "op": st.just("publish"),
        "topic": TOPICS,
        "data": DATA,
        "echo": st.booleans(),
        "key": st.sampled_from([None, None, "k", "x" * MAX_KEY_CHARACTERS]),
    }
)
ACK = st.fixed_dictionaries({"op": st.just("ack"), "topic": TOPICS, "offset": st.integers(0, 3)})
OTHERS = st.one_of(
    CONNECT,
    st.fixed_dictionaries({"op": st.just("unsubscribe"), "topic": TOPICS}),
    st.fixed_dictionaries({"op": st.just("presence"), "topic": TOPICS}),
    st.fixed_dictionaries({"op": st.just("history"), "topic": TOPICS, "limit": st.integers(1, 1000)}),
    st.fixed_dictionaries({"op": st.just("call"), "method": st.text(max_size=5), "data": DATA}),
    st.fixed_dictionaries({"op": st.just("refresh"), "token": st.sampled_from(["good", "good", "other", "bad"])}),
    st.fixed_dictionaries({"op": st.just("ping")}),
)
REQUESTS = st.one_of(SUBSCRIBE, PUBLISH, PUBLISH, ACK, ACK, OTHERS, OTHERS)
WRONGS = st.one_of(
    st.fixed_dictionaries({"op": st.text(min_size=1, max_size=8).filter(lambda op: op not in KNOWN)}),
    st.fixed_dictionaries({"op": st.sampled_from(["subscribe", "publish", "ack", "history", "call", "refresh"])}),
    st.fixed_dictionaries(
        {
            "op": st.just("subscribe"),
            "topic": st.none() | st.integers(-9, 9) | st.lists(st.text(max_size=3), max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {"op": st.just("history"), "topic": st.just("a:b"), "limit": st.sampled_from([0, 1001, "1"])}
    ),
    st.fixed_dictionaries({"op": st.just("ping"), "id": st.sampled_from([0, -1, 2**32, 1.5, "1", None])}),
)
KNOWN = {"connect", "subscribe", "unsubscribe", "publish", "ack", "presence", "history", "call", "refresh", "ping"}
STEPS = st.one_of(
    st.builds(Request, REQUESTS),
    st.builds(Request, REQUESTS),
    st.builds(Request, REQUESTS),
    st.builds(Wrong, WRONGS),
    st.builds(Heartbeat, st.sampled_from([FrameType.PING, FrameType.PONG]), st.integers(0, 2**64 - 1)),
)
FAULTS = st.builds(Fault, st.sampled_from([b"", b"{", b"[]", b'{"op":1}', b"\x90", b"\xc1"]))


class Model:
    """What a connection is to do, known from nothing but what it was sent."""

    def __init__(self) -> None:
        self.connected = False
        self.user = ""
        self.ended: int | None = None
        self.opening_bytes = 0
        self.subscribed: set[str] = set()
        self.acknowledged: dict[str, int] = {}
        self.top: dict[str, int] = {}
        self.keys: set[tuple[str, str]] = set()
        self.pushes: list[tuple[str, int | None]] = []

    def take(self, size_bytes: int) -> None:
        """Count what comes before `connect`."""
        if not self.connected:
            self.opening_bytes += size_bytes
            if self.opening_bytes > 4096:
                self.ended = 4001

    def answer(self, request: dict[str, Any]) -> tuple[str, int]:
        """Return the kind of the one reply: its `op`, and its code where it is an error."""
        op = request["op"]
        if not self.connected and op not in ("connect", "ping"):
            return "error", 401
        return getattr(self, f"_{op}")(request)

    def _connect(self, request: dict[str, Any]) -> tuple[str, int]:
        if self.connected:
            return "error", 409
        if request["token"] == "bad":
            self.ended = 4001
            return "error", 401
        self.connected = True
        self.user = "ada" if request["token"] else ""
        return "connected", 0

    def _judge_topic(self, topic: str) -> int:
        return 400 if topic in (WRONG, "") else 0 if topic in GOOD_TOPICS else 403

    def _subscribe(self, request: dict[str, Any]) -> tuple[str, int]:
        topic = request["topic"]
        code = self._judge_topic(topic) or (409 if topic in self.subscribed else 0)
        if code:
            return "error", code
        self.subscribed.add(topic)
        if request["since"] != "latest" and topic != PLAIN:
            self.pushes += [(topic, offset) for offset in range(1, self.top.get(topic, 0) + 1)]
        return "subscribed", 0

    def _unsubscribe(self, request: dict[str, Any]) -> tuple[str, int]:
        if request["topic"] in (WRONG, ""):
            return "error", 400
        self.subscribed.discard(request["topic"])
        self.acknowledged.pop(request["topic"], None)
        return "unsubscribed", 0

    def _publish(self, request: dict[str, Any]) -> tuple[str, int]:
        topic, key = request["topic"], request["key"]
        if code := self._judge_topic(topic):
            return "error", code
        if key is None or (topic, key) not in self.keys:
            self.keys.add((topic, key))
            offset = None
            if topic != PLAIN:
                offset = self.top[topic] = self.top.get(topic, 0) + 1
            if topic in self.subscribed and request["echo"]:
                self.pushes.append((topic, offset))
        return "published", 0

    def _ack(self, request: dict[str, Any]) -> tuple[str, int]:
        topic, offset = request["topic"], request["offset"]
        if topic in (WRONG, ""):
            return "error", 400
        if topic not in self.subscribed:
            return "error", 409
        if topic == PLAIN or offset > self.top.get(topic, 0):
            return "error", 400
        self.acknowledged[topic] = max(offset, self.acknowledged.get(topic, 0))
        return "acked", self.acknowledged[topic]

    def _presence(self, request: dict[str, Any]) -> tuple[str, int]:
        code = self._judge_topic(request["topic"])
        return ("error", code) if code else ("presence", 0)

    def _history(self, request: dict[str, Any]) -> tuple[str, int]:
        code = self._judge_topic(request["topic"])
        return ("error", code) if code else ("history", 0)

    def _call(self, request: dict[str, Any]) -> tuple[str, int]:
        return "error", 404

    def _refresh(self, request: dict[str, Any]) -> tuple[str, int]:
        if request["token"] == "bad":
            return "error", 401
        of = {"good": "ada", "other": "bob"}[request["token"]]
        return ("refreshed", 0) if of == self.user else ("error", 403)

    def _ping(self, request: dict[str, Any]) -> tuple[str, int]:
        return "pong", 0


class Play:
    """Sends the steps to a real connection and compares."""

    def __init__(self, node: MemoryNode, client: Client, pieces: list[int]) -> None:
        self.node = node
        self.client = client
        self.model = Model()
        self.pieces = pieces
        self.epochs: dict[str, str] = {}
        self.syncs = 0
        self.pongs: list[int] = []
        self.last_encoding = "json"

    async def step(self, step: Request | Wrong | Heartbeat | Fault, request_id: int | None, encoding: str) -> None:
        if isinstance(step, Request):
            await self.request(dict(step.fields), request_id, encoding)
        elif isinstance(step, Wrong):
            await self.wrong(dict(step.fields), request_id, encoding)
        elif isinstance(step, Heartbeat):
            await self.heartbeat(step)
        else:
            kind = FrameType.JSON if encoding == "json" else FrameType.MSGPACK
            await self.send(self.client.wrapped(encode_frame(kind, step.payload)), 16 + len(step.payload), encoding)
            self.model.ended = self.model.ended or 4000

    async def request(self, fields: dict[str, Any], request_id: int | None, encoding: str) -> None:
        needs_id = fields["op"] not in ("publish", "ack")
        if request_id is None and needs_id:
            request_id = 7
        expected = self.judge(fields)
        if fields["op"] == "subscribe" and fields["since"] == "position":
            epoch = self.epochs.get(fields["topic"], "other")
            fields["since"] = {"epoch": epoch, "offset": 0}
        for name in ("token", "key"):
            if fields.get(name) is None:
                fields.pop(name, None)
        if "token" in fields:
            fields["token"] = self.tokens[fields["token"]]
        if request_id is not None:
            fields["id"] = request_id
        await self.send_message(fields, encoding)
        if self.model.ended == 4001 and self.model.opening_bytes > 4096:
            return
        await self.expect(request_id, expected if self.model.opening_bytes <= 4096 else None)

    def judge(self, fields: dict[str, Any]) -> tuple[str, int]:
        """Ask the model; a position is good where the topic's epoch is known."""
        if fields["op"] == "subscribe" and fields["since"] == "position" and fields["topic"] not in self.epochs:
            return self.model.answer(fields | {"since": "latest"})
        return self.model.answer(fields)

    async def wrong(self, fields: dict[str, Any], request_id: int | None, encoding: str) -> None:
        if "id" not in fields and request_id is not None:
            fields["id"] = request_id
        given = fields.get("id")
        valid = given if type(given) is int and 1 <= given < 2**32 else None
        await self.send_message(fields, encoding)
        if self.model.ended is None:
            await self.expect(valid, ("error", 400), told=True)

    async def heartbeat(self, step: Heartbeat) -> None:
        await self.send(self.client.wrapped(encode_heartbeat(*step)), 16)
        if step.kind is FrameType.PING and self.model.ended is None:
            self.pongs.append(step.timestamp_ms)

    async def send_message(self, fields: dict[str, Any], encoding: str) -> None:
        data = self.client.written(fields, encoding)
        size_bytes = len(data)
        if self.client.transport == "websocket":
            head_bytes = 6 + (2 if len(data) > 6 + 125 else 0)
            is_text = encoding == "json"
            size_bytes = len(data) - head_bytes + (16 if is_text else 0)
        await self.send(data, size_bytes, encoding)

    async def send(self, data: bytes, size_bytes: int, encoding: str | None = None) -> None:
        was_connected = self.client_connected
        if not was_connected:
            self.model.opening_bytes += size_bytes
            if self.model.opening_bytes > 4096:
                self.model.ended = 4001
        if not was_connected and encoding is not None and self.client.transport == "device":
            self.last_encoding = encoding
        for piece in self.cut(data):
            await self.client.send_data(piece)
            await self.node.sleep(0)
        self.client_connected = self.model.connected

    client_connected = False

    def cut(self, data: bytes) -> list[bytes]:
        pieces = []
        while data:
            size_bytes = self.pieces[self.syncs % len(self.pieces)]
            self.syncs += 1
            pieces.append(data[:size_bytes])
            data = data[size_bytes:]
        return pieces

    async def expect(self, request_id: int | None, expected: tuple[str, int] | None, *, told: bool = False) -> None:
        """Read exactly the one answer that is due; what else came is looked at in the end."""
        if expected is None or (request_id is None and expected[0] != "error" and not told):
            return
        while True:
            message = await self.client.receive()
            is_reply = "id" in message if request_id is not None else message["op"] == "error" and "id" not in message
            if is_reply:
                break
            self.client.pushes.append(message)
        assert message.get("id") == request_id
        assert message["op"] == expected[0], f"{message}, not {expected}"
        if message["op"] == "error":
            assert message["code"] == expected[1], f"{message}, not {expected}"
        elif message["op"] == "acked":
            assert message["offset"] == expected[1]
        if "epoch" in message:
            self.epochs[message["topic"]] = message["epoch"]

    async def finish(self) -> None:
        """Compare what came unasked, and how it ended."""
        if self.model.ended is None:
            self.client.stream.end()
        ended = await self.client.end()
        assert ended.code == self.model.ended
        pushes = [push for push in self.client.pushes if push.get("code") != ended.code or ended.code is None]
        assert [(push["topic"], push.get("offset")) for push in pushes] == self.model.pushes
        assert {push["op"] for push in pushes} <= {"message"}
        assert self.client.heartbeats == [(FrameType.PONG, timestamp_ms) for timestamp_ms in self.pongs]
        await self.node.let_go()
        assert self.node.barrier_hits == 0
        self.node.assert_empty()

    tokens: dict[str, str]


async def play(transport: str, encoding: str, steps: list[tuple[Any, int | None, str]], pieces: list[int]) -> None:
    topics = (policy("plain:*", history=0), policy("service:*", publish="service", subscribe="service"), policy("**"))
    async with open_memory_node(node_settings(topics=topics)) as node:
        client = await node.client(transport, encoding)
        playing = Play(node, client, pieces)
        playing.tokens = {"good": node.token("ada"), "other": node.token("bob"), "bad": "x.y.z"}
        for step, request_id, written_in in steps:
            if playing.model.ended is not None:
                break
            await playing.step(step, request_id, written_in)
        await playing.finish()


@settings(max_examples=2 * settings().max_examples)
@given(
    st.tuples(st.sampled_from(TRANSPORTS), st.sampled_from(ENCODINGS)),
    st.sampled_from(["anonymous", "ada", "ada", None]),
    st.lists(st.tuples(STEPS, IDS, st.sampled_from(ENCODINGS)), min_size=20, max_size=60),
    st.none() | FAULTS,
    st.lists(st.one_of(st.just(100_000), st.integers(1, 60)), min_size=1, max_size=4),
)
def test_a_connection_does_what_its_model_does(
    kind: tuple[str, str],
    begins_as: str | None,
    steps: list[tuple[Any, int | None, str]],
    fault: Fault | None,
    pieces: list[int],
) -> None:
    transport, encoding = kind
    if begins_as is not None:
        token = None if begins_as == "anonymous" else "good"
        steps = [(Request({"op": "connect", "token": token}), 1, encoding), *steps]
    if fault is not None:
        steps = [*steps, (fault, None, encoding)]
    run_virtual(play, transport, encoding, steps, pieces)
