"""Pages of the node's own HTTP listener, where `auth.origins` lists others: let in, but by a name not for nothing."""

import pytest
from trio.testing import MockClock

from notifyd.settings import Address, AuthSettings, ListenSettings, Settings
from tests.kit.clients import Refused
from tests.kit.memory_node import open_memory_node, query, settings

LISTED = "https://app.example.com"
HTTP_PORT = 7502


def listing() -> Settings:
    """Settings of a node that others reach, that takes anonymous clients, and the pages of one site."""
    auth = AuthSettings(anonymous=True, origins=(LISTED,), keys=settings().auth.keys)
    return settings(auth=auth, listen=ListenSettings(websocket=Address("0.0.0.0", 7500)))


@pytest.mark.parametrize("host", ["192.0.2.7", "[2001:db8::7]", "localhost", "127.0.0.1"])
async def test_by_an_address_the_page_is_the_nodes(host: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(listing()) as node:
        node.own_ports.add(HTTP_PORT)
        client = await node.websocket(Host=f"{host}:7500", Origin=f"http://{host}:{HTTP_PORT}")
        assert (await client.connect())["op"] == "connected"


@pytest.mark.parametrize("host", ["evil.example", "192.0.2.7.evil.example", "0x7f.1", "2130706433", "localhost.evil"])
async def test_by_a_name_it_may_be_anybodys_and_has_to_show_a_token(host: str, autojump_clock: MockClock) -> None:
    """DNS rebinding: the page came from `host`, which then was made to point to the node."""
    async with open_memory_node(listing()) as node:
        node.own_ports.add(HTTP_PORT)
        named = {"Host": f"{host}:7500", "Origin": f"http://{host}:{HTTP_PORT}"}
        client = await node.websocket(**named)
        assert (await client.connect())["code"] == 401
        assert (await client.end())[0] == 4001
        with pytest.raises(Refused) as refused:
            await node.websocket(target=query(topics="a:b"), **named)
        assert refused.value.status == 401
        holder = await node.websocket(**named)
        assert (await holder.connect(token=node.token("ada")))["user"] == "ada"


async def test_listed_pages_and_programs_need_none(autojump_clock: MockClock) -> None:
    async with open_memory_node(listing()) as node:
        node.own_ports.add(HTTP_PORT)
        for headers in ({"Origin": LISTED}, {}):
            client = await node.websocket(Host="notify.example.com:7500", **headers)
            assert (await client.connect())["op"] == "connected"
