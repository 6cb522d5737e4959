"""TLS on both listeners, as configured: who gets in, and what becomes of the others."""

import ssl
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from tests.certificates import Certificates, certificates
from tests.reliability.node_process import NodeProcess, started_node
from tests.reliability.raw_clients import UPGRADE, RawDevice, RawSocket, RawWebSocket, let_go_of_all
from tests.unit.transport.client_frames import TEXT, frame

__all__ = ["certificates"]

HANDSHAKE_S = 1.0
CONNECT = {"op": "connect", "id": 1}


@pytest.fixture(scope="module")
def node(certificates: Certificates) -> Iterator[NodeProcess]:
    """A node that asks its clients for certificates."""
    files = {"certificate": certificates.server, "key": certificates.server_key, "client_ca": certificates.authority}
    tls = ", ".join(f'{name} = "{path}"' for name, path in files.items())
    with started_node({"LISTEN__TLS": f"{{ {tls} }}", "LIMITS__HANDSHAKE": f"{HANDSHAKE_S:g}s"}) as node:
        yield node


@pytest.fixture(autouse=True)
async def _nothing_hits_the_barrier(node: NodeProcess) -> AsyncIterator[None]:
    yield
    let_go_of_all()
    await node.wait_metric("connections", 0)
    assert await node.metric("barrier_hits_total") == 0
    assert node.failures == []


async def _upgraded(node: NodeProcess, tls: ssl.SSLContext) -> RawWebSocket:
    websocket = await RawWebSocket.open(node.ports["websocket"], tls=tls)
    assert b" 101 " in await websocket.upgrade()
    return websocket


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_listeners_serve_who_has_a_certificate(
    version: ssl.TLSVersion, node: NodeProcess, certificates: Certificates
) -> None:
    tls = certificates.client_context(certificate="client", version=version)
    websocket = await _upgraded(node, tls)
    assert (await websocket.request(CONNECT))["op"] == "connected"
    assert (await websocket.request({"op": "subscribe", "id": 2, "topic": "a"}))["op"] == "subscribed"
    device = await RawDevice.open(node.ports["device"], tls=tls)
    assert (await device.request(CONNECT))["op"] == "connected"
    large = "x" * 60_000
    assert (await device.request({"op": "publish", "id": 3, "topic": "a", "data": large}))["op"] == "published"
    _, message = await websocket.frame()
    assert large.encode() in message
    await websocket.send(frame(TEXT, b"hello"))
    assert await websocket.close_code() == 4000


async def _is_shut_out(port: int, tls: ssl.SSLContext) -> bool:
    """Whether the node ends the handshake, or the connection with the first that is said by it (TLS 1.3)."""
    try:
        client = await RawSocket.open(port, tls=tls)
        await client.send(UPGRADE)
        await client.read(1)
    except (trio.BrokenResourceError, EOFError, ssl.SSLError):
        return True
    return False


@pytest.mark.parametrize("certificate", ["", "stranger", "expired_client"], ids=["none", "a stranger's", "an expired"])
async def test_others_are_shut_out(certificate: str, node: NodeProcess, certificates: Certificates) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        tls = certificates.client_context(certificate=certificate, version=version)
        for listener in ("websocket", "device"):
            assert await _is_shut_out(node.ports[listener], tls)


@pytest.mark.parametrize("said", [UPGRADE, b"HEAR\0" + bytes(11), b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\0\x05hello"])
async def test_who_speaks_no_tls_is_closed(said: bytes, node: NodeProcess) -> None:
    for listener in ("websocket", "device"):
        stranger = await RawSocket.open(node.ports[listener])
        await stranger.send(said)
        with trio.fail_after(5):
            await stranger.wait_closed()


@pytest.mark.guard(30)
async def test_half_a_hello_is_closed_within_the_handshake_deadline(node: NodeProcess) -> None:
    halves = [await RawSocket.open(node.ports[listener]) for listener in ("websocket", "device")]
    began_s = time.monotonic()
    for half in halves:
        await half.send(b"\x16\x03\x01\x01\0\x01\0\0\xfc\x03\x03" + bytes(20))
    for half in halves:
        await half.wait_closed()
    assert HANDSHAKE_S * 0.7 <= time.monotonic() - began_s <= HANDSHAKE_S + 5


async def test_the_api_stays_plain(node: NodeProcess) -> None:
    assert '"ok"' in await node.get("/health")


async def test_a_client_that_trusts_others_leaves(node: NodeProcess) -> None:
    for listener in ("websocket", "device"):
        with pytest.raises(trio.BrokenResourceError):
            await RawSocket.open(node.ports[listener], tls=ssl.create_default_context())
