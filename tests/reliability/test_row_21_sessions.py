"""RELIABILITY row 21, whole sessions: random bytes and spoiled valid sessions against a whole node in memory."""

import contextlib
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.clients import framed
from tests.kit.memory_node import TRANSPORTS, MemoryNode, open_memory_node, run_virtual

VALID: list[dict[str, Any]] = [
    {"op": "connect", "id": 1, "heartbeat": 5},
    {"op": "subscribe", "id": 2, "topic": "a:b", "since": "earliest"},
    {"op": "publish", "id": 3, "topic": "a:b", "data": {"x": [1, 2.5, None, "é"]}, "key": "k"},
    {"op": "ack", "id": 4, "topic": "a:b", "offset": 1},
    {"op": "presence", "id": 5, "topic": "a:b"},
    {"op": "history", "id": 6, "topic": "a:b", "limit": 10},
    {"op": "unsubscribe", "id": 7, "topic": "a:b"},
    {"op": "ping", "id": 8},
]

edits = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "double", "insert"]), st.integers(0, 2**16), st.binary(max_size=9)),
    max_size=4,
)


def _spoiled(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, where, extra in changes:
        at = where % (len(data) + 1)
        if kind == "flip":
            data = data[:at] + bytes(byte ^ (1 << where % 8) for byte in data[at : at + 1]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "double":
            data = data[:at] + data[at // 2 :]
        else:
            data = data[:at] + extra + data[at:]
    return data


async def _talk(node: MemoryNode, transport: str, data: bytes, cut_at: int, *, wrap: bool) -> None:
    client = await node.client(transport)
    data = client.wrapped(data) if wrap else data
    with contextlib.suppress(Exception), trio.move_on_after(5):
        at = cut_at % (len(data) + 1)
        for piece in (data[:at], data[at:]):
            await client.send_data(piece)
            await trio.lowlevel.checkpoint()
        await client.end()
    client.stream.close()


async def _attack(transport: str, data: bytes, cut_at: int, wrap: bool) -> None:
    async with open_memory_node() as node:
        neighbour = await node.connected("device")
        await _talk(node, transport, data, cut_at, wrap=wrap)
        assert (await neighbour.ask("ping"))["op"] == "pong"
        assert node.barrier_hits == 0
        await neighbour.stream.finish(1)
        await node.let_go()
        node.assert_empty()


@pytest.mark.parametrize("transport", TRANSPORTS)
@given(data=st.binary(max_size=300), cut_at=st.integers(0, 300))
def test_random_bytes_harm_nothing(transport: str, data: bytes, cut_at: int) -> None:
    run_virtual(_attack, transport, data, cut_at, False)


@pytest.mark.parametrize("transport", TRANSPORTS)
@given(
    messages=st.lists(st.sampled_from(VALID), min_size=1, max_size=6),
    encoding=st.sampled_from(["json", "msgpack"]),
    changes=edits,
    cut_at=st.integers(0, 2**12),
    wrap=st.booleans(),
)
def test_spoiled_sessions_harm_nothing(
    transport: str,
    messages: list[dict[str, Any]],
    encoding: str,
    changes: list[tuple[str, int, bytes]],
    *,
    cut_at: int,
    wrap: bool,
) -> None:
    frames = b"".join(framed(message, encoding) for message in [VALID[0], *messages])
    run_virtual(_attack, transport, _spoiled(frames, changes), cut_at, wrap)
