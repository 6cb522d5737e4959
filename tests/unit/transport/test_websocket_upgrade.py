"""Answering an upgrade: what becomes of a client that does not wait for the answer."""

import pytest
import trio

from notifyd.errors import StreamBroken
from notifyd.transport.request_head import HeadReader
from notifyd.transport.websocket import open_websocket
from tests.unit.transport.heads import head
from tests.unit.transport.wire import Wire


async def test_a_reset_before_the_answer_is_a_broken_stream_and_no_bug() -> None:
    judged = HeadReader().receive(head())
    assert judged is not None
    wire = Wire()
    wire.send_fails = True
    async with trio.open_nursery() as nursery:
        with pytest.raises(StreamBroken):
            await open_websocket(
                nursery,
                wire,
                key=judged.key,
                trailing=b"",
                subprotocol=None,
                limit_bytes=100,
                on_bytes=lambda _: None,
            )
        nursery.cancel_scope.cancel()
