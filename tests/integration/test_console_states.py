"""Bad states of a cluster in the console: unmistakable in words and colours, and over when they are over."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from notifyd.node import Node, open_node
from notifyd.settings import Address, AuthSettings, BrokerSettings, ListenSettings, Secret, Settings, Url
from notifyd.telemetry import Telemetry
from tests.chromium import Browser, open_tab
from tests.http_client import HttpClient
from tests.kit.console_page import ConsolePage
from tests.kit.redis_node import open_redis_node
from tests.kit.redis_servers import standalone

pytestmark = pytest.mark.guard(120)

KEY = "an API key that is long enough"
ANYWHERE = Address("127.0.0.1", 0)
DISCONNECTED = {"Failed to load resource", "WebSocket connection to"}
"""How what a browser says by itself begins when a node is away."""


def console_settings(auth: AuthSettings, *, websocket_port: int = 0, http_port: int = 0) -> Settings:
    listen = ListenSettings(
        websocket=Address("127.0.0.1", websocket_port), device=ANYWHERE, http=Address("127.0.0.1", http_port)
    )
    demo = Settings.demo()
    node = msgspec.structs.replace(demo.node, drain_s=0.5)
    return msgspec.structs.replace(demo, node=node, listen=listen, auth=auth)


def console_of(tab: Browser, node: Node) -> ConsolePage:
    assert node.http_address is not None
    return ConsolePage(tab, node.http_address.port)


@asynccontextmanager
async def single(chromium: str, auth: AuthSettings) -> AsyncIterator[tuple[Node, ConsolePage]]:
    async with open_node(console_settings(auth), telemetry=Telemetry("error")) as node, open_tab(chromium) as tab:
        yield node, console_of(tab, node)


async def test_a_broker_that_goes_away_and_a_node_that_falls_silent(chromium: str, redis_prefix: str) -> None:
    with standalone() as server:
        broker = BrokerSettings(url=Url(server.url), prefix=redis_prefix, timeout_s=0.5)
        auth = AuthSettings(anonymous=True)
        async with (
            open_tab(chromium) as tab,
            open_redis_node(server.url, redis_prefix, "n1", broker=broker, auth=auth) as one,
        ):
            page = console_of(tab, one)
            async with open_redis_node(server.url, redis_prefix, "n2", broker=broker, auth=auth):
                await page.connected("nodes")
                await page.until("document.querySelectorAll('.nodes li .chip[data-level=good]').length === 4")
                assert await page.texts("#alerts li") == []
                await check_lost_broker(page, server.kill, server.start)
                await page.go("")
                await page.until("document.querySelector('main select').options.length === 3")
            await page.shows("#alerts [data-level=bad]", "Node n2 is silent")
            await page.go("nodes")
            await page.shows("[data-node=n2] .chip[data-level=bad]", "silent")
            assert await page.run("document.title") == "⚠ notifyd"
            await page.picture("state-silent-node")
            assert tab.complaints == []


async def check_lost_broker(page: ConsolePage, kill: Callable[[], None], start: Callable[[], None]) -> None:
    kill()
    await page.shows("#alerts [data-level=bad]", "The broker is away for node n1 (")
    await page.shows("[data-node=n1] .chip[data-level=bad]", "degraded")
    await page.shows("[data-node=n1] .bad", "redis")
    await page.picture("state-broker-away")
    start()
    await page.until("document.querySelectorAll('#alerts li').length === 0")
    await page.until("document.querySelectorAll('.nodes li .chip[data-level=good]').length === 4")


async def test_a_node_that_goes_away_and_comes_back(chromium: str) -> None:
    auth = AuthSettings(anonymous=True)
    async with open_tab(chromium) as tab:
        async with open_node(console_settings(auth), telemetry=Telemetry("error")) as node:
            assert node.websocket_address is not None
            page = console_of(tab, node)
            await page.connected()
            await page.until("document.querySelector('.facts dd').textContent === '1'")
            same = console_settings(auth, websocket_port=node.websocket_address.port, http_port=page.port)
        ended_ms = await page.run("performance.now()")
        await page.shows("#alerts [data-level=bad]", "This page is not connected to its node")
        await page.until("document.body.classList.contains('stale')")
        await page.until("document.getElementById('state').dataset.level !== 'good'")
        assert await page.run("getComputedStyle(document.querySelector('main')).filter") == "grayscale(1)"
        await page.picture("state-disconnected")
        await page.until(f"performance.now() - {ended_ms} > 3600")  # long enough for a gap in the lines
        async with open_node(same, telemetry=Telemetry("error")):
            await page.run("dispatchEvent(new Event('online'))")  # rather than wait for the next attempt
            await page.until("document.body.dataset.state === 'connected'")
            await page.until("document.querySelectorAll('#alerts li').length === 0")
            assert not await page.run("document.body.classList.contains('stale')")
            await page.until("document.querySelector('.charts .lines path').getAttribute('d').match(/M/g).length > 1")
            await page.picture("state-back-with-a-gap")
        assert all(any(told.startswith(start) for start in DISCONNECTED) for told in tab.complaints), tab.complaints


async def test_a_node_that_drains(chromium: str) -> None:
    async with single(chromium, AuthSettings(anonymous=True)) as (node, page), trio.open_nursery() as nursery:
        await page.connected("nodes")
        await page.shows(".nodes .chip", "serving")
        node.draining = True  # as `drain` begins; the page's own client would be sent away next
        await page.shows("#alerts [data-level=warn]", "is draining")
        await page.shows(".nodes .chip[data-level=warn]", "draining")
        await page.picture("state-draining")
        nursery.start_soon(node.drain)
        await page.until("document.body.dataset.state !== 'connected'")
        nursery.cancel_scope.cancel()


async def test_a_key_is_asked_for_once_and_kept_nowhere(chromium: str) -> None:
    async with single(chromium, AuthSettings(api_keys=(Secret(KEY),))) as (_, page):
        await page.open("connections")
        await page.until("document.getElementById('access').open")
        await page.picture("state-key-wanted")
        await give_key(page, "not the key")
        await page.until("document.getElementById('access').open")
        await give_key(page, KEY)
        await page.until("document.body.dataset.state === 'connected'")
        await page.until("document.querySelectorAll('tbody tr').length === 1")
        await page.shows("tbody td", "$operator (this page)")
        assert await page.run("document.getElementById('api-key').value") == ""
        kept = (
            "location.href + JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage}) + document.cookie"
        )
        assert KEY not in await page.run(kept)
        assert await page.run("document.documentElement.outerHTML.includes('API key that')") is False
        await page.go("settings")
        await page.until(
            "document.querySelector('.settings section') || document.querySelector('.view > .card').textContent"
        )
        assert not await page.run("document.getElementById('access').open")


async def test_who_is_no_operator_is_told_and_may_still_use_a_topic(chromium: str) -> None:
    auth = AuthSettings(anonymous=True, api_keys=(Secret(KEY),))
    async with single(chromium, auth) as (_, page):
        client = HttpClient(page.port, key=KEY)
        await page.connected()
        await page.until("document.getElementById('access').open")
        await page.click("#access [data-cancel]")
        await page.until("!document.getElementById('locked').hidden")
        await page.picture("state-locked")
        await page.go("topics")
        await page.fill("#topic-filter", "chat:room1")
        await page.run("document.querySelector('form.line').requestSubmit()")
        await page.shows(".members", "(this page)")
        await client.post("/v1/publish", {"topic": "chat:room1", "data": "hello"})
        await page.shows("#feed .data", "hello")
        await page.click("#unlock")
        await give_key(page, KEY)
        await page.until("document.getElementById('locked').hidden")
        await page.go("nodes")
        await page.shows(".nodes .chip", "serving")


async def give_key(page: ConsolePage, key: str) -> None:
    await page.fill("#api-key", key)
    await page.click("#access button[value=yes]")
    await page.until("!document.getElementById('access').open || document.getElementById('api-key').value === ''")
