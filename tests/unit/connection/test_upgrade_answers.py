"""When the answer to a WebSocket handshake leaves: with `connected`, unless that may have to wait for a broker."""

from trio.testing import MockClock, wait_all_tasks_blocked

from tests.kit.clients import WebSocketClient
from tests.kit.memory_node import MemoryNode, open_memory_node


def ask(node: MemoryNode, target: str) -> WebSocketClient:
    client = WebSocketClient(node.open_stream("websocket"))
    client.stream.send_now(client.request(target))
    return client


def arrived(client: WebSocketClient) -> list[bytes]:
    """What has come: the answer's head, and what is behind it."""
    return bytes(client.stream._incoming.buffer).split(b"\r\n\r\n")


async def test_it_leaves_together_with_connected(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = ask(node, "/ws?topics=a:b")
        head, welcome = (await client.stream.receive_some()).split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b'"op":"connected"' in welcome


async def test_it_leaves_at_once_for_a_client_that_has_to_send_connect(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = ask(node, "/ws")
        await wait_all_tasks_blocked()
        head, rest = arrived(client)
        assert (head.split(b"\r\n")[0], rest) == (b"HTTP/1.1 101 Switching Protocols", b"")


async def test_it_does_not_wait_for_a_broker_that_is_far(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        node.broker.is_shared = True
        node.broker.pause("subscribe")
        client = ask(node, "/ws?topics=a:b")
        await node.broker.waiting("subscribe")
        assert arrived(client)[1:] == [b""]
        node.broker.resume("subscribe")
        await wait_all_tasks_blocked()
        assert b'"op":"connected"' in arrived(client)[1]
