"""What WebSocket connections share of trio-websocket: it must exist there, and no connection may leave its mark."""

from contextlib import AsyncExitStack

import pytest
import trio
from trio_websocket import WebSocketConnection
from wsproto.connection import Connection, ConnectionType

from notifyd.transport.websocket import _EMPTY, _SHARED
from tests.unit.transport.client_frames import CLOSE, PING, PONG, TEXT, frame
from tests.unit.transport.test_websocket import opened


def test_all_of_it_is_what_trio_websocket_makes_for_each_connection() -> None:
    websocket = WebSocketConnection(trio.testing.memory_stream_pair()[0], Connection(ConnectionType.SERVER))  # type: ignore[arg-type]
    for name, shared in _SHARED.items():
        assert hasattr(websocket, name), f"trio-websocket has no {name} any more"
        assert shared is None or isinstance(shared, type(getattr(websocket, name))) or name == "_stream_lock"
    assert type(websocket._send_channel._state.data) is type(_EMPTY)
    assert type(websocket._wsproto._events) is type(_EMPTY)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", [frame(CLOSE, b"\x03\xe8"), b"", b"nonsense" * 4])
async def test_it_is_as_it_was_after_many_clients(ending: bytes) -> None:
    async with AsyncExitStack() as stack:
        several = [await stack.enter_async_context(opened()) for _ in range(5)]
        for number, one in enumerate(several):  # more than anybody takes: readers wait with messages in their hands
            await one.client.send_data((frame(TEXT, b"%d" % number) + frame(PING, b"p") + frame(PONG, b"q")) * 9)
        await trio.testing.wait_all_tasks_blocked()
        assert not _EMPTY
        for _ in range(9):
            for number, one in enumerate(several):
                frames = await one.transport.receive()
                assert frames is not None
                assert frames[0].payload == str(number)
        for one in several:
            await one.client.send_data(ending)
            one.client.stream.close()
        await trio.testing.wait_all_tasks_blocked()
    assert not _EMPTY
    assert not _SHARED["_pings"]
