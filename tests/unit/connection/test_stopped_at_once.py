"""What a client hears when everything around its connection is cancelled: a node told to stop at once."""

import pytest

from notifyd.connection.life import STOPPED_DEADLINE_S
from protocol.errors import CloseCode
from tests.kit.memory_node import TRANSPORTS, open_memory_node


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cancelled_connection_says_restart_and_does_not_wait_for_its_client(
    transport: str, autojump_clock: object
) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport)
        cancelled_at_s = node.time_s()
        node.cancel_connections()
        assert (await client.end()).code == CloseCode.RESTART
        await node.served[0].over.wait()
        assert node.time_s() - cancelled_at_s <= STOPPED_DEADLINE_S
