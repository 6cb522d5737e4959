"""What a connection leaves behind: nothing that waits for the garbage collector, or a storm of clients piles it up."""

import gc

import pytest

from notifyd.connection.connection import Connection
from tests.kit.memory_node import TRANSPORTS, open_memory_node


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_connection_that_is_over_is_gone_at_once(transport: str, autojump_clock: object) -> None:
    async with open_memory_node() as node:
        gc.collect()
        gc.disable()
        try:
            client = await node.connected(transport)
            await client.ask("subscribe", topic="a:b")
            client.stream.close()
            await node.let_go()
            node.assert_empty()
            assert not [thing for thing in gc.get_objects() if type(thing) is Connection]
        finally:
            gc.enable()


async def test_an_end_that_comes_too_late_is_no_fault(autojump_clock: object) -> None:
    async with open_memory_node() as node:
        client = await node.connected()
        (connection,) = node.connections
        client.stream.close()
        await node.let_go()
        connection.end(1012, "too late")
        assert node.barrier_hits == 0
