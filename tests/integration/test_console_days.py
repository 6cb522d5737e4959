"""A console that stays open for days: hidden, over keys and restarts, on a machine whose clock is wrong."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from notifyd.client import open_client
from notifyd.node import Node, open_node
from notifyd.settings import Address, AuthSettings, ListenSettings, Settings
from notifyd.telemetry import Telemetry
from tests.chromium import open_tab
from tests.http_client import HttpClient
from tests.kit.console_page import ConsolePage

pytestmark = pytest.mark.guard(120)

ANYWHERE = Address("127.0.0.1", 0)
SETTINGS = msgspec.structs.replace(
    Settings.demo(),
    auth=AuthSettings(anonymous=True),
    listen=ListenSettings(websocket=ANYWHERE, device=ANYWHERE, http=ANYWHERE),
)

HIDE = """
Object.defineProperty(document, "hidden", { value: true, configurable: true });
window.frames_wanted = 0;
window.requestAnimationFrame = () => frames_wanted++;
0"""
SHOW = """
delete document.hidden;
delete window.requestAnimationFrame;
dispatchEvent(new Event("visibilitychange"))"""

HOLD_HISTORY = """
window.held = [];
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  const isHistory = typeof data === "string" && JSON.parse(data).op === "history";
  isHistory && held ? held.push(() => send.call(this, data)) : send.call(this, data);
};
0"""

FOLLOWS = """
(async () => {
  const followed = ({ topics }) => topics.filter(({ subscribers }) => subscribers === 2).length;
  while (followed(await (await fetch("v1/topics")).json()) < N) await new Promise((done) => setTimeout(done, 50));
})()"""
"""Wait until the page, which is not alone, follows so many topics."""


@asynccontextmanager
async def console(chromium: str) -> AsyncIterator[tuple[Node, ConsolePage, HttpClient]]:
    async with open_node(SETTINGS, telemetry=Telemetry("error")) as node, open_tab(chromium) as tab:
        assert node.http_address is not None
        yield node, ConsolePage(tab, node.http_address.port), HttpClient(node.http_address.port)
        assert tab.complaints == []


async def publish(client: HttpClient, topic: str, *data: object) -> None:
    answer = await client.post("/v1/publish", [{"topic": topic, "data": value} for value in data])
    assert answer.status == 200


async def test_a_hidden_tab_draws_nothing_and_nothing_piles_up(chromium: str) -> None:
    async with console(chromium) as (_, page, client):
        await publish(client, "chat:numbers", 1)
        await page.connected()
        await page.shows(".fleet b", "1")
        await page.run(HIDE)
        for number in range(2, 40):
            await publish(client, "chat:numbers", number)
        # Figures come once a second, whatever is shown: when two more are there, the others have come too.
        await page.run(
            "import('/console/figures.js').then(({ Figures }) => new Promise((done) => {"
            " const take = Figures.prototype.take; let more = 0;"
            " Figures.prototype.take = function (...given) { take.apply(this, given); ++more === 2 && done(); } }))"
        )
        assert await page.run("frames_wanted") == 0
        assert await page.texts(".fleet b") == ["1"]
        await page.run(SHOW)
        await page.shows(".fleet b", "39")


async def test_topics_that_are_silent_make_room_for_those_that_are_not(chromium: str) -> None:
    async with console(chromium) as (node, page, client), AsyncExitStack() as stack:
        guest = await stack.enter_async_context(open_client(node.websocket_url or ""))
        for number in range(8):
            await stack.enter_async_context(guest.subscribe(f"chat:silent{number}"))
        await page.connected()
        await page.run(FOLLOWS.replace("N", "8"))
        await page.run("{ const now = Date.now; Date.now = () => now() + 15_000 } 0")
        await publish(client, "chat:late", 1)
        await page.shows(".fleet a", "chat:late")


async def test_what_comes_while_the_history_is_read_is_shown_once(chromium: str) -> None:
    async with console(chromium) as (_, page, client):
        await publish(client, "chat:room1", "kept")
        await page.connected("topics")
        await page.run(HOLD_HISTORY)
        await page.go("topics/chat%3Aroom1")
        await page.until("held.length === 1")
        await page.go("topics")  # and back: what was asked for then is not shown beside what is asked for now
        await page.go("topics/chat%3Aroom1")
        await page.until("held.length === 2")
        await publish(client, "chat:room1", "live")
        await page.shows("#feed", "live")
        await page.run("(() => { const releases = held; held = null; for (const release of releases) release(); })()")
        await page.shows("#feed", "kept")
        assert await page.texts("#feed .data") == ["live", "kept"]


async def test_a_machine_whose_clock_is_wrong_shows_ages_all_the_same(chromium: str) -> None:
    async with console(chromium) as (_, page, _):
        await page.connected()
        await page.run("{ const now = Date.now; Date.now = () => now() + 7_200_000 } 0")
        for view in ("connections", "tree"):
            await page.go(view)
            await page.until("document.querySelectorAll('tbody tr').length > 0")
            ages = await page.texts("td[data-title=Heard], td[data-title=Connected], td[data-title=For]")
            assert ages
            assert not [age for age in ages if " h " in age or "min" in age]


async def test_a_page_goes_on_when_its_node_does_not_answer_at_once(chromium: str) -> None:
    async with console(chromium) as (_, page, _):
        await page.connected()
        await page.run("window.known = fetch; window.fetch = () => Promise.reject(new TypeError('away')); 0")
        await page.click("#key")
        await page.fill("#api-key", "none")
        await page.click("#access button[value=yes]")
        await page.until("document.body.dataset.state === 'disconnected'")
        await page.shows("#alerts li", "The node does not answer")
        await page.run("import('/console/link.js').then(() => { window.fetch = known; })")
        await page.until("document.getElementById('access').open")  # it is no key, which only the node can tell
        await page.click("#access [data-cancel]")


async def test_large_numbers_are_not_taken_for_bytes(chromium: str) -> None:
    async with console(chromium) as (_, page, _):
        await page.connected()
        written = "import('/console/format.js').then((m) => [99_999, 123_456, 15.57e9].map(m.number))"
        assert await page.run(written) == ["99,999", "123.5K", "15.57G"]


async def test_where_the_page_connects(chromium: str) -> None:
    """Directly; and through the proxy that it came through by TLS, below the same path."""
    async with console(chromium) as (_, page, _):
        await page.connected()
        for websocket, address, expected in (
            ("ws://h:7500/ws", "http://h:7502/#/topics", "ws://h:7500/ws"),
            ("ws://h:7500/ws", "https://ops.example/notifyd/#/topics", "https://ops.example/notifyd/ws"),
            ("ws://h:7500/ws", "https://h:8443/", "https://h:8443/ws"),
            ("wss://h:7500/ws", "https://h:7502/#/topics/ws:", "wss://h:7500/ws"),
        ):
            call = f"String(m.whereTo({websocket!r}, {address!r}))"
            assert await page.run(f"import('/console/link.js').then((m) => {call})") == expected
