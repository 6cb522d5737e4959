"""A client that is gone leaves nothing that only the collector of garbage would find."""

import gc
from collections.abc import Iterator

import msgspec
import pytest
import trio

from notifyd.connection.connection import Connection
from notifyd.node import open_node
from notifyd.settings import Address, Settings
from tests.reliability.raw_clients import RawDevice, RawWebSocket
from tests.unit.transport.client_frames import CLOSE, TEXT, frame


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_a_client_s_end_needs_no_collector() -> None:
    """A fault that was kept by the transport held its own way, and with it all of the connection."""
    any_port = Address("127.0.0.1", 0)
    listen = msgspec.structs.replace(Settings.demo().listen, websocket=any_port, device=any_port, http=None)
    async with open_node(msgspec.structs.replace(Settings.demo(), listen=listen)) as node:
        assert node.websocket_address is not None
        assert node.device_address is not None
        for last in (b"nonsense" * 4, frame(TEXT, b"xxxx")[:5], frame(CLOSE, b"\x03\xe8"), b""):
            browser = await RawWebSocket.connected(node.websocket_address.port)
            device = await RawDevice.connected(node.device_address.port)
            for client in (browser, device):
                await client.send(last)
                await trio.sleep(0.05)
                client.close()
        with trio.fail_after(5):
            await node.context.connections.wait_empty()
            await trio.sleep(0.1)
        left = [each for each in gc.get_objects() if isinstance(each, Connection)]
    assert left == []
