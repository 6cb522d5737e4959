"""A busy connection: a replay on a slow socket, live messages, requests of every kind, heartbeats, a resumed session.

`visit` is one client's whole life in a node where others publish; whatever happens to its connection, it ends. What it
does touches everything that a connection can leave behind.
"""

from contextlib import suppress

import trio

from notifyd.errors import StreamBroken
from notifyd.settings import SessionSettings, Settings
from protocol.codec import FrameType
from tests.kit.clients import Client, DeviceClient, WebSocketClient
from tests.kit.memory_node import MemoryNode, policy, settings

KEPT = 130
"""Messages there are before the visit: more than one page of a replay."""


def busy_settings() -> Settings:
    """Return settings under which everything is in use: presence, joins, histories, gaps, users' rates."""
    topics = (policy("slow:*", overflow="gap", joins=True), policy("plain:*", history=0), policy("**", joins=True))
    return settings(topics=topics, sessions=SessionSettings(ttl_s=60))


async def fill(node: MemoryNode) -> None:
    """Publish what the visit replays; from then on the broker is far."""
    for number in range(KEPT):
        await node.hub.publish("a:b", {"number": number})
    node.broker.is_far = True


def opened(node: MemoryNode, transport: str) -> Client:
    """Connect a client whose buffer is small, so that everything the server sends blocks at some point."""
    stream = node.open_stream(transport, 3000)
    return DeviceClient(stream, "msgpack") if transport == "device" else WebSocketClient(stream, "json")


async def visit(node: MemoryNode, client: Client) -> None:
    """Live a client's life, or what there can be of it."""
    with suppress(EOFError, StreamBroken):
        if isinstance(client, WebSocketClient):
            await client.upgrade()
        await client.connect(token=node.token("ada", topics=["t:t"], expires_in_s=3600))
        await client.ask("subscribe", topic="a:b", since="earliest")
        await client.ask("subscribe", topic="slow:x")
        await client.ask("subscribe", topic="plain:x")
        await client.send_heartbeat(FrameType.PING, 1)
        for number in range(30):
            await node.hub.publish("slow:x", "x" * 500)
            await node.hub.publish("a:b", number)
        await client.ask("publish", topic="a:b", data=1, key="k", echo=False)
        await client.ask("history", topic="a:b", limit=50)
        await client.ask("ack", topic="a:b", offset=3)
        await client.ask("presence", topic="slow:x")
        await client.ask("unsubscribe", topic="plain:x")
        await client.ask("refresh", token=node.token("ada", subscribe=["a:*"]))
        await client.ask("nonsense")
        await trio.sleep(35)
        await client.ask("ping")
    with suppress(StreamBroken):
        client.stream.end()
    await client.end_anyhow()


async def visit_again(node: MemoryNode, client: Client, session: str) -> None:
    """Resume a session, take it over a second time, and leave by a reset."""
    with suppress(EOFError, StreamBroken):
        if isinstance(client, WebSocketClient):
            await client.upgrade()
        await client.connect(token=node.token("ada"), session=session)
        await node.hub.publish("a:b", 1)
        await client.ask("ping")
    client.stream.reset()
