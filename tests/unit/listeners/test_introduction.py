"""Clients behind proxies, from the first byte to the address they are listed with."""

import socket

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from notifyd.errors import StreamBroken
from notifyd.listeners.accept import ClientListener
from notifyd.listeners.introduction import introduce
from notifyd.policy.admission import Admission
from notifyd.settings import Address, LimitSettings, ListenSettings, Network, ProxyProtocol, Settings
from notifyd.transport.stream import SocketStream
from notifyd.transport.tls import TlsStream, server_context
from tests.certificates import Certificates, certificates
from tests.kit.clients import Client, DeviceClient, WebSocketClient
from tests.kit.memory_node import TRANSPORTS, MemoryNode, open_memory_node, settings
from tests.recorded_events import RecordedEvents
from tests.unit.transport.proxy_headers import binary, line, proxied
from tests.unit.transport.wire import TlsClient, Wire

__all__ = ["certificates"]

PROXIES = (Network("10.0.0.0/8"), Network("fd00::/8"))
PROXY, STRANGER = "10.0.0.1:5000", "203.0.113.9:5000"
HEADERS = {"1": line("198.51.100.7", 4711), "2": proxied("198.51.100.7", 4711)}
HANDSHAKE_S = 10.0

on_both = pytest.mark.parametrize("transport", TRANSPORTS)
of_both = pytest.mark.parametrize("version", HEADERS)


def behind_proxies() -> Settings:
    listen = ListenSettings(
        proxy_protocol=ProxyProtocol(websocket=PROXIES, device=PROXIES), trusted_proxies=(Network("192.168.0.0/16"),)
    )
    return settings(listen=listen, limits=LimitSettings(handshake_s=HANDSHAKE_S))


def client_of(node: MemoryNode, transport: str, peer: str) -> Client:
    stream = node.open_stream(transport, peer=peer)
    return DeviceClient(stream, "json") if transport == "device" else WebSocketClient(stream, "json")


async def connect(client: Client, **headers: str) -> None:
    if isinstance(client, WebSocketClient):
        await client.upgrade("/ws", **headers)
    assert (await client.connect())["op"] == "connected"


def addresses(node: MemoryNode) -> list[str]:
    return [connection.stream.peer for connection in node.connections]


@on_both
@of_both
@pytest.mark.parametrize("peer", [PROXY, "[fd00::1]:5000", "[::ffff:10.0.0.1]:5000"])
async def test_a_proxys_client_has_its_own_address(
    transport: str, version: str, peer: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, transport, peer)
        await client.send_data(HEADERS[version])
        await connect(client)
        assert addresses(node) == ["198.51.100.7:4711"]


@on_both
@of_both
async def test_what_follows_in_the_same_segment_is_not_lost(
    transport: str, version: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, transport, PROXY)
        connect = {"op": "connect", "id": 1}
        head = client.request("/ws") if isinstance(client, WebSocketClient) else b""
        await client.send_data(HEADERS[version] + head + client.written(connect, None))
        await trio.testing.wait_all_tasks_blocked()
        assert b'"op":"connected"' in await client.stream.receive_some()
        assert addresses(node) == ["198.51.100.7:4711"]


@on_both
@pytest.mark.parametrize(
    ("header", "address"),
    [(b"PROXY UNKNOWN\r\n", "unknown"), (binary(1, 0, b""), "unknown"), (binary(0, 0, b""), PROXY)],
    ids=["1, unknown", "2, unspecified", "2, local"],
)
async def test_a_proxy_that_names_nobody(
    transport: str, header: bytes, address: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, transport, PROXY)
        await client.send_data(header)
        await connect(client)
        assert addresses(node) == [address]


@on_both
async def test_a_proxy_must_say_whom_it_connects(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, transport, PROXY)
        await client.send_data(b"HEAR\0" + bytes(11) if transport == "device" else b"GET /ws HTTP/1.1\r\n\r\n")
        assert await client.stream.receive_some() == b""
        assert node.events.counted("refusals", reason="proxy_header") == 1
        (logged,) = node.events.logged("proxy_header_refused")
        assert logged["proxy"] == PROXY
        client.stream.close()
        await node.let_go()
        node.assert_empty()
        assert node.barrier_hits == 0


@on_both
@of_both
async def test_a_stranger_may_not(transport: str, version: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, transport, STRANGER)
        head = client.request("/ws") if isinstance(client, WebSocketClient) else b""
        await client.send_data(HEADERS[version] + head)
        await trio.testing.wait_all_tasks_blocked()
        assert {connection.stream.peer for connection in node.connections} <= {STRANGER}
        answer = await client.stream.receive_some()
        assert b" 400 " in answer if transport == "websocket" else b"protocol_error" in answer
        assert node.events.counted("refusals", reason="proxy_header") == 0


@on_both
@pytest.mark.parametrize("cut", [0, 1, 15, 16, 27])
async def test_half_a_header_is_ended_by_the_deadline_of_the_handshake(
    transport: str, cut: int, autojump_clock: MockClock
) -> None:
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, transport, PROXY)
        await client.send_data(HEADERS["2"][:cut])
        assert await client.stream.receive_some() == b""
        assert HANDSHAKE_S <= node.time_s() <= HANDSHAKE_S + 1
        client.stream.close()
        await node.let_go()
        node.assert_empty()


@on_both
async def test_a_proxy_that_leaves_early_is_no_event(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, transport, PROXY)
        await client.send_data(HEADERS["1"][:20])
        client.stream.close()
        await node.let_go()
        node.assert_empty()
        assert node.barrier_hits == 0


# --- X-Forwarded-For --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.168.1.1:80", "198.51.100.7", "198.51.100.7"),
        ("192.168.1.1:80", "127.0.0.1, 198.51.100.7", "198.51.100.7"),
        ("192.168.1.1:80", "127.0.0.1, 198.51.100.7, 192.168.1.2", "198.51.100.7"),
        (STRANGER, "198.51.100.7", STRANGER),
    ],
)
async def test_a_websockets_address_may_come_from_its_head(
    peer: str, forwarded_for: str, address: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node(behind_proxies()) as node:
        await connect(client_of(node, "websocket", peer), X_Forwarded_For=forwarded_for)
        assert addresses(node) == [address]


@pytest.mark.parametrize(
    ("connected_by", "address"), [("192.168.1.1", "198.51.100.7"), ("203.0.113.5", "203.0.113.5:80")]
)
async def test_a_proxy_behind_a_proxy(connected_by: str, address: str, autojump_clock: MockClock) -> None:
    """The PROXY header names the nearer proxy's own peer; whether that one is trusted decides about its word."""
    async with open_memory_node(behind_proxies()) as node:
        client = client_of(node, "websocket", PROXY)
        await client.send_data(proxied(connected_by, 80))
        await connect(client, X_Forwarded_For="198.51.100.7")
        assert addresses(node) == [address]


# --- TLS --------------------------------------------------------------------------------------------------------------


@of_both
async def test_the_header_comes_before_tls(version: str, certificates: Certificates, events: RecordedEvents) -> None:
    wire = Wire()
    wire.peer = PROXY
    stream = TlsStream(wire, server_context(certificates.tls()))
    client = TlsClient(certificates.client_context())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(introduce, stream, PROXIES, events)
        wire.deliver(HEADERS[version] + client.shake_hands())  # in one segment
        await trio.testing.wait_all_tasks_blocked()
        wire.deliver(client.shake_hands(wire.take_sent()))
    assert stream.peer == "198.51.100.7:4711"


async def test_from_a_stranger_it_is_no_tls(certificates: Certificates, events: RecordedEvents) -> None:
    wire = Wire()
    wire.peer = STRANGER
    wire.deliver(HEADERS["2"])
    with pytest.raises(StreamBroken, match="does not speak TLS"):
        await introduce(TlsStream(wire, server_context(certificates.tls())), PROXIES, events)


async def test_over_the_limit_a_proxys_client_is_told_so_by_tls(
    certificates: Certificates, events: RecordedEvents, nursery: trio.Nursery
) -> None:
    full = Admission(1, 1)
    assert full.admit()
    listener = ClientListener(
        "device",
        Address("127.0.0.1", 0),
        admission=full,
        serve=_never,
        refusal=b"full",
        events=events,
        tls=server_context(certificates.tls()),
        proxies=(Network("127.0.0.1"),),
    )
    await nursery.start(lambda task_status: listener.run(task_status=task_status))
    with socket.create_connection((listener.address.host, listener.address.port)) as connected:
        connected.sendall(HEADERS["2"])
        stream = trio.SSLStream(
            trio.SocketStream(trio.socket.from_stdlib_socket(connected)),
            certificates.client_context(),
            server_hostname="localhost",
        )
        assert await stream.receive_some() == b"full"


async def _never(_: SocketStream) -> None:
    pytest.fail("it was let in")
