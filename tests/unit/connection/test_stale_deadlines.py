"""Deadlines of connections that are gone: a storm of clients must not leave one each, for as long as a heartbeat."""

from notifyd.connection.connections import FEW, MOST_STALE
from tests.kit.memory_node import open_memory_node


async def test_deadlines_of_gone_connections_are_forgotten(autojump_clock: object) -> None:
    async with open_memory_node() as node:
        stays = [await node.connected() for _ in range(10)]
        for _ in range(5 * FEW):
            (await node.connected()).stream.close()
        for served in node.served[len(stays) :]:
            await served.over.wait()
        assert len(node.context.connections._due) <= MOST_STALE * (len(stays) + 1) + FEW
        for client in stays:
            client.answers_pings = True
            assert (await client.ask("ping"))["op"] == "pong"


async def test_those_that_stay_keep_their_deadlines(autojump_clock: object) -> None:
    async with open_memory_node() as node:
        silent = await node.connected()
        for _ in range(5 * FEW):
            (await node.connected()).stream.close()
        assert (await silent.end()).code == 4008
