"""RELIABILITY row 18 on a running node: origins in real upgrades, judged before the upgrade."""

import json
from collections.abc import Iterator

import pytest

from tests.certificates import Certificates, certificates
from tests.reliability.node_process import NodeProcess, running_node, started_node
from tests.reliability.raw_clients import UPGRADE, RawWebSocket
from tests.reliability.test_row_18_origins import LISTED, NOT_LISTED, OTHER_HOST, SAME_HOST, Handshake

__all__ = ["certificates"]

KEYS = f'[{{ algorithm = "HS512", secret = "{"0123456789abcdef" * 4}" }}]'


@pytest.fixture(scope="module")
def listing() -> Iterator[NodeProcess]:
    """A node with `auth.origins`."""
    with started_node({"AUTH__ORIGINS": json.dumps(LISTED)}) as node:
        yield node


@pytest.fixture(scope="module")
def plain() -> Iterator[NodeProcess]:
    """A node without `auth.origins`, where a token is needed."""
    with started_node({"AUTH__ANONYMOUS": "false", "AUTH__KEYS": KEYS}) as node:
        yield node


@pytest.fixture(scope="module")
def secure(certificates: Certificates) -> Iterator[NodeProcess]:
    """A node with TLS and without `auth.origins`, where a token is needed."""
    tls = f'{{ certificate = "{certificates.server}", key = "{certificates.server_key}" }}'
    with started_node({"AUTH__ANONYMOUS": "false", "AUTH__KEYS": KEYS, "LISTEN__TLS": tls}) as node:
        yield node


async def _answer(client: RawWebSocket, origins: list[str], host: str) -> tuple[int, dict[str, object] | None]:
    """The status that an upgrade gets, and the error in its body."""
    lines = [f"Host: {host}", *(f"Origin: {origin}" for origin in origins)]
    request = UPGRADE.replace(b"Host: 127.0.0.1", "\r\n".join(lines).encode())
    head = await client.upgrade(request)
    status = int(head.split(b" ", 2)[1])
    if status == 101:
        client.close()
        return status, None
    assert b"Content-Type: application/json\r\n" in head
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = json.loads(await client.read(length))
    with pytest.raises(EOFError):
        await client.read(1)
    client.close()
    assert body["error"]["code"] == status
    return status, body["error"]


def _expected(handshake: Handshake) -> int:
    """What refuses a handshake: its origin, or before that the form of its head."""
    if not handshake.host or any(mark in handshake.host for mark in "@, "):
        return 400
    if handshake.host.endswith(":70000"):
        return 400
    printable = all(" " <= character <= "~" for text in (*handshake.origins, handshake.host) for character in text)
    return 403 if printable else 400


@pytest.mark.parametrize("name", [name for name, origin in NOT_LISTED.items() if origin.strip(" \t") not in LISTED])
async def test_an_origin_that_is_not_listed_gets_403_before_the_upgrade(name: str, listing: NodeProcess) -> None:
    # White space around a header's value is no part of it (RFC 9110 section 5.5).
    origin = NOT_LISTED[name]
    client = await RawWebSocket.open(listing.ports["websocket"])
    status, error = await _answer(client, [origin], "ws.example.com")
    assert status == _expected(Handshake([origin]))
    assert error is not None
    assert error["reason"] == {400: "bad_request", 403: "forbidden"}[status]


@pytest.mark.parametrize("origin", LISTED)
async def test_a_listed_origin_is_let_in(origin: str, listing: NodeProcess) -> None:
    for host in ("ws.example.com", "10.0.0.1:7500", "[::1]"):
        client = await RawWebSocket.open(listing.ports["websocket"])
        assert await _answer(client, [origin], host) == (101, None)


@pytest.mark.parametrize("origins", [[LISTED[0], LISTED[0]], [LISTED[0], "https://evil.example"]])
async def test_two_headers_are_refused(origins: list[str], listing: NodeProcess) -> None:
    client = await RawWebSocket.open(listing.ports["websocket"])
    assert (await _answer(client, origins, "ws.example.com"))[0] == 403


async def _open(
    handshake: Handshake, plain: NodeProcess, secure: NodeProcess, certificates: Certificates
) -> RawWebSocket:
    if handshake.secure:
        return await RawWebSocket.open(secure.ports["websocket"], tls=certificates.client_context())
    return await RawWebSocket.open(plain.ports["websocket"])


@pytest.mark.parametrize("name", SAME_HOST)
async def test_a_page_of_the_same_host_is_let_in(
    name: str, plain: NodeProcess, secure: NodeProcess, certificates: Certificates
) -> None:
    handshake = SAME_HOST[name]
    client = await _open(handshake, plain, secure, certificates)
    assert await _answer(client, handshake.origins, handshake.host) == (101, None)


@pytest.mark.parametrize("name", OTHER_HOST)
async def test_a_page_of_another_host_is_kept_out(
    name: str, plain: NodeProcess, secure: NodeProcess, certificates: Certificates
) -> None:
    handshake = OTHER_HOST[name]
    client = await _open(handshake, plain, secure, certificates)
    assert (await _answer(client, handshake.origins, handshake.host))[0] == _expected(handshake)


async def test_a_client_without_origin_is_let_in(listing: NodeProcess, plain: NodeProcess) -> None:
    for node in (listing, plain):
        client = await RawWebSocket.open(node.ports["websocket"])
        assert await _answer(client, [], "127.0.0.1") == (101, None)


async def test_the_nodes_own_page_is_let_in_whatever_is_listed(listing: NodeProcess, plain: NodeProcess) -> None:
    for node in (plain, listing):
        port = node.ports["websocket"]
        client = await RawWebSocket.open(port)
        page = f"http://127.0.0.1:{node.ports['http']}"
        assert (await _answer(client, [page], f"127.0.0.1:{port}"))[0] == 101
        other = await RawWebSocket.open(port)
        assert (await _answer(other, [f"http://127.0.0.1:{node.ports['device']}"], f"127.0.0.1:{port}"))[0] == 403


async def test_a_name_that_was_made_to_point_here_opens_nothing_to_a_page() -> None:
    """DNS rebinding: the page's host is that of the request, but no name of this machine."""
    async with running_node({"AUTH__ORIGINS": '["http://localhost:8000"]'}) as node:
        page, port = f"http://evil.example:{node.ports['http']}", node.ports["websocket"]
        assert (await _answer(await RawWebSocket.open(port), [page], f"evil.example:{port}"))[0] == 403
    async with running_node() as node:
        for host, expected in (("evil.example", 403), ("localhost", 101), ("127.0.0.1", 101), ("[::1]:7500", 101)):
            client = await RawWebSocket.open(node.ports["websocket"])
            assert (await _answer(client, [f"http://{host}"], host))[0] == expected


async def test_no_refusal_hit_the_barrier_or_counts_as_a_client(
    listing: NodeProcess, plain: NodeProcess, secure: NodeProcess
) -> None:
    for node in (listing, plain, secure):
        await node.wait_metric("connections", 0)
        assert await node.metric("barrier_hits_total") == 0
        assert node.failures == []
