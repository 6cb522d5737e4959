"""What strangers may send is text in the console, whatever it is; and ending a connection is asked twice."""

from typing import Any

import msgspec
import pytest

from notifyd.auth.tokens import Signer
from notifyd.client import Client, open_client
from notifyd.clock import Clock
from notifyd.node import Node, open_node
from notifyd.settings import Address, AuthSettings, ListenSettings, Secret, Settings, TokenKey
from notifyd.telemetry import Telemetry
from tests.chromium import open_tab
from tests.http_client import HttpClient
from tests.kit.console_page import HOSTILE, ConsolePage, js

pytestmark = pytest.mark.guard(120)

ANYWHERE = Address("127.0.0.1", 0)
AUTH = AuthSettings(anonymous=True, keys=(TokenKey(algorithm="HS512", secret=Secret("s" * 64)),))
SETTINGS = msgspec.structs.replace(
    Settings.demo(), auth=AUTH, listen=ListenSettings(websocket=ANYWHERE, device=ANYWHERE, http=ANYWHERE)
)
CLEAN = "document.title.endsWith('notifyd') && !document.querySelector('img, b b, main script, iframe, object')"


async def test_markup_and_script_are_shown_as_text(chromium: str) -> None:
    token = Signer(AUTH).sign(HOSTILE, now_s=Clock().unix_s(), subscribe=["**"], publish=["**"])
    async with open_node(SETTINGS, telemetry=Telemetry("error")) as node, open_tab(chromium) as tab:
        async with open_client(node.websocket_url or "", token) as guest, guest.subscribe(HOSTILE):
            page, client = page_of(tab, node), client_of(node)
            await publish_markup(client)
            await check_lists(page)
            await check_topic(page, guest)
            await check_fleet(page, client)
            await page.picture("hostile")
            await check_foreign_figures(page, node)
        assert tab.complaints == []


async def publish_markup(client: HttpClient) -> None:
    for data in (HOSTILE, {HOSTILE: [HOSTILE]}, {HOSTILE: 1, "unit": HOSTILE}):
        assert (await client.post("/v1/publish", {"topic": HOSTILE, "data": data})).status == 200


async def check_lists(page: ConsolePage) -> None:
    await page.connected("topics")
    await page.shows("tbody a", HOSTILE)
    await page.go("connections")
    await page.shows("tbody td", HOSTILE)
    await page.shows("details li", HOSTILE)
    assert await page.run(CLEAN)


async def check_topic(page: ConsolePage, guest: Client) -> None:
    await page.run(f"location.hash = '#/topics/' + encodeURIComponent({js(HOSTILE)})")
    await page.shows("h1", HOSTILE)
    await page.shows("#feed .data", HOSTILE)
    await page.shows(".members b", HOSTILE)
    await guest.publish(HOSTILE, "by the guest")
    await page.shows("#feed .sender", HOSTILE)
    await page.shows(".chart option", HOSTILE)
    assert await page.run(CLEAN)


async def check_fleet(page: ConsolePage, client: HttpClient) -> None:
    await page.go("")
    await page.shows(".fleet a", HOSTILE)
    await publish_markup(client)
    await page.shows(".fleet b", HOSTILE[:16])
    assert await page.run(CLEAN)


async def check_foreign_figures(page: ConsolePage, node: Node) -> None:
    """Another node's name, version, errors and broken figures are no more trusted than anything else."""
    figures: dict[str, Any] = {
        "node": HOSTILE,
        "version": HOSTILE,
        "state": HOSTILE,
        "problems": [HOSTILE],
        "errors": {HOSTILE: 3},
        "broker": {"kind": HOSTILE, "state": HOSTILE},
    }
    await node.context.hub.publish("$sys:figures", figures)
    await page.shows(".charts .legend", HOSTILE.replace("_", " "))
    await page.shows("#alerts li", HOSTILE)
    await page.go("nodes")
    await page.shows(".nodes h2", HOSTILE)
    for broken in (None, 1, [], {"node": 1}, {"node": "half"}, {"node": "wrong", "connections": 1, "errors": None}):
        await node.context.hub.publish("$sys:figures", broken)
    await page.shows(".nodes h2", "half")
    await page.go("")
    await page.until("document.querySelector('main select').options.length === 5")
    assert await page.run(CLEAN)


async def test_a_connection_is_ended_after_a_second_question(chromium: str) -> None:
    async with open_node(SETTINGS, telemetry=Telemetry("error")) as node, open_tab(chromium) as tab:
        async with open_client(node.websocket_url or "", Signer(AUTH).sign("ada", now_s=Clock().unix_s())) as ada:
            page = page_of(tab, node)
            await page.connected("connections")
            await page.shows("tbody td", "ada")
            button = "[aria-label^='Disconnect ada']"
            await page.run(f"document.querySelector({js(button)}).focus()")
            await page.tab.key("Enter", "\r")
            await page.until("document.getElementById('confirm').open")
            assert await page.focused() == "Cancel"  # Enter alone ends nobody
            await page.picture("disconnect")
            await page.tab.key("Escape")
            await page.until("!document.getElementById('confirm').open")
            assert ada.welcome is not None
            await page.click(button)
            await page.click("#confirm-yes")
            await page.shows("main [role=status]", "ada (127.0.0.1")
            await page.shows("main [role=status]", "is disconnected")
            await page.until(f"!document.querySelector({js(button)})")
            while ada.welcome is not None:
                await page.run("new Promise(done => setTimeout(done, 10))")
        assert tab.complaints == []


def page_of(tab: Any, node: Node) -> ConsolePage:
    assert node.http_address is not None
    return ConsolePage(tab, node.http_address.port)


def client_of(node: Node) -> HttpClient:
    assert node.http_address is not None
    return HttpClient(node.http_address.port)
