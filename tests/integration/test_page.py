"""The page in a real browser, against a real node: what a newcomer sees at `/`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from notifyd.auth.tokens import Signer
from notifyd.clock import Clock
from notifyd.node import Node, open_node
from notifyd.settings import Address, AuthSettings, ListenSettings, Secret, Settings, TokenKey
from tests.chromium import EXECUTABLE, Browser, open_browser
from tests.http_client import HttpClient

PICTURES = os.environ.get("NOTIFYD_PICTURES")
"""A folder for pictures of the page, for people to look at; none are taken without it."""

HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>&lt;b&gt;"


pytestmark = [pytest.mark.guard(60), pytest.mark.skipif(EXECUTABLE is None, reason="needs chromium")]


def settings(auth: AuthSettings) -> Settings:
    anywhere = Address("127.0.0.1", 0)
    listen = ListenSettings(websocket=anywhere, device=anywhere, http=anywhere)
    return msgspec.structs.replace(Settings.demo(), listen=listen, auth=auth)


@asynccontextmanager
async def opened(auth: AuthSettings) -> AsyncIterator[tuple[Node, Browser, HttpClient]]:
    async with open_node(settings(auth)) as node, open_browser() as browser:
        assert node.http_address is not None
        yield node, browser, HttpClient(node.http_address.port)


async def picture(browser: Browser, name: str, **look: Any) -> None:
    if PICTURES:
        await browser.look(Path(PICTURES) / f"{name}.png", **look)


async def test_the_page_shows_live_messages() -> None:
    async with opened(AuthSettings(anonymous=True)) as (node, browser, client):
        await client.post("/v1/publish", {"topic": "metrics:pi:load", "data": {"value": 0.25, "unit": "runnable"}})
        for host in ("127.0.0.1", "localhost"):
            await browser.open(f"http://{host}:{client.port}/")
            await check_page(browser, client)
        assert browser.complaints == []
        await picture(browser, "light")
        await picture(browser, "dark", dark=True)
        await picture(browser, "phone", width=390, height=844)
        await check_reconnect(node, browser, client)


async def test_the_page_asks_for_a_token_where_one_is_needed() -> None:
    auth = AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret("s" * 64)),), api_keys=(Secret("k" * 32),))
    token = Signer(auth).sign("ada", now_s=Clock().unix_s(), subscribe=["chat:*"], publish=["chat:*"])
    async with opened(auth) as (_, browser, client):
        client.key = "k" * 32
        await client.post("/v1/publish", {"topic": "orders:secret", "data": 1})
        await client.post("/v1/publish", {"topic": "chat:room1", "data": 1})
        await browser.open(f"http://127.0.0.1:{client.port}/")
        await browser.until("document.getElementById('access').open")
        await browser.until("document.body.dataset.state === 'disconnected'")
        await picture(browser, "access")
        await browser.type_into("token", "not a token")
        await browser.run("document.querySelector('#access button[value]').click()")
        await browser.until("document.getElementById('access').open")

        await browser.type_into("token", token)
        await browser.run("document.querySelector('#access button[value]').click()")
        await browser.until("document.body.dataset.state === 'connected'")
        assert await browser.run("document.getElementById('user').textContent") == "ada"
        await browser.until("document.getElementById('no-topics').textContent.includes('API key')")

        await browser.press("keys")
        await browser.type_into("api-key", "k" * 32)
        await browser.run("document.querySelector('#access button[value]').click()")
        await followed(browser, "chat:room1")
        await browser.until(f"{row('orders:secret')}.querySelector('.facts').textContent.includes('not')")
        assert not await browser.run(f"{row('orders:secret')}.querySelector('input').checked")


async def check_page(browser: Browser, client: HttpClient) -> None:
    """Everything the page promises, wherever it and its node are."""
    await browser.until("document.body.dataset.state === 'connected'")
    await browser.until("document.getElementById('round-trip').textContent.endsWith(' ms')")
    # A topic that is there already, and one that comes up while the page is open: both are followed by themselves.
    await followed(browser, "metrics:pi:load")
    await client.post("/v1/publish", {"topic": "chat:room1", "data": "first"})
    await browser.run("dispatchEvent(new Event('focus'))")
    await followed(browser, "chat:room1")
    for topic in ("metrics:pi:load", "chat:room1"):
        await until_subscribers(browser, client, topic, 1)

    for value in (0.5, 2, 1.25, 3):
        message = {"topic": "metrics:pi:load", "data": {"value": value, "unit": "runnable"}}
        assert (await client.post("/v1/publish", message)).status == 200
    await browser.until("document.querySelector('#feed .data')?.textContent.startsWith('{\"value\":3')")
    assert (await texts(browser, ".data"))[:2] == ['{"value":3,"unit":"runnable"}', '{"value":1.25,"unit":"runnable"}']
    assert await browser.run(f"{row('metrics:pi:load')}.querySelector('.value').textContent") == "3 runnable"
    points = await browser.run(f"{row('metrics:pi:load')}.querySelector('polyline').getAttribute('points')")
    assert len(points.split()) == 4

    await check_markup_is_text(browser, client)
    await check_publishing(browser)
    await check_controls(browser, client)


async def check_markup_is_text(browser: Browser, client: HttpClient) -> None:
    """Topics and payloads come from strangers: they are shown as what they are."""
    topic = HOSTILE.replace(" ", "/")
    before = await browser.run("document.querySelectorAll('*').length")
    for data in (HOSTILE, {HOSTILE: [HOSTILE]}):
        await client.post("/v1/publish", {"topic": "chat:room1", "data": data})
    await client.post("/v1/publish", {"topic": topic, "data": 1})
    await browser.run("dispatchEvent(new Event('focus'))")
    await browser.until(f"[...document.querySelectorAll('#topics .name')].some(e => e.textContent === {msg(topic)})")
    await client.post("/v1/publish", {"topic": topic, "data": {"value": 1, "unit": HOSTILE}})
    await browser.until(f"[...document.querySelectorAll('.data')].some(e => e.textContent === {msg(HOSTILE)})")
    assert await browser.run("document.title") == "notifyd"
    assert await browser.run("document.querySelectorAll('img, b, #feed script, #topics script').length") == 0
    assert await browser.run("document.querySelectorAll('*').length") > before


async def check_publishing(browser: Browser) -> None:
    await browser.type_into("publish-topic", "chat:room1")
    await browser.type_into("publish-data", '{"text": "from the page"}')
    await browser.run("document.querySelector('#publish-form button').click()")
    await browser.until("document.getElementById('published').textContent.startsWith('Published')")
    await browser.until("document.querySelector('#feed .data').textContent === '{\"text\":\"from the page\"}'")
    await browser.type_into("publish-topic", "$sys")
    await browser.run("document.querySelector('#publish-form button').click()")
    await browser.until("document.getElementById('published').className === 'bad'")
    await browser.type_into("publish-topic", "chat:room1")


async def check_controls(browser: Browser, client: HttpClient) -> None:
    """Pause, clear, filter, and a topic that is no longer wanted."""
    await browser.press("clear")
    assert await texts(browser, ".data") == []
    await browser.run(f"{row('metrics:pi:load')}.querySelector('input').click()")
    await until_subscribers(browser, client, "metrics:pi:load", 0)
    await client.post("/v1/publish", {"topic": "metrics:pi:load", "data": "unwanted"})
    await client.post("/v1/publish", {"topic": "chat:room1", "data": "wanted"})
    await browser.until("document.querySelector('#feed .data')?.textContent === 'wanted'")
    assert await texts(browser, ".data") == ["wanted"]
    await browser.type_into("filter", "nowhere")
    await browser.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    await browser.until("document.querySelector('#feed li').hidden")
    await browser.type_into("filter", "")
    await browser.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    await browser.until("!document.querySelector('#feed li').hidden")


async def check_reconnect(node: Node, browser: Browser, client: HttpClient) -> None:
    """A lost connection comes back by itself, and what was missed meanwhile is there."""
    await browser.press("clear")
    (connection,) = (await client.get("/v1/connections")).json["connections"]
    assert connection["transport"] == "websocket"
    for held in list(node.context.connections):
        held.stream.close()
    await client.post("/v1/publish", {"topic": "chat:room1", "data": "missed"})
    await browser.until("document.querySelector('#feed .data')?.textContent === 'missed'")
    assert await texts(browser, ".data") == ["missed"]
    (resumed,) = (await client.get("/v1/connections")).json["connections"]
    assert resumed["session"] == connection["session"]


async def followed(browser: Browser, topic: str) -> None:
    await browser.until(f"{row(topic)}?.querySelector('input').checked")


async def until_subscribers(browser: Browser, client: HttpClient, topic: str, wanted: int) -> None:
    answer = await client.get(f"/v1/topics?match={topic}")
    while answer.json["topics"][0]["subscribers"] != wanted:
        await browser.run("new Promise(done => setTimeout(done, 10))")
        answer = await client.get(f"/v1/topics?match={topic}")


async def texts(browser: Browser, selector: str) -> list[str]:
    found: list[str] = await browser.run(f"[...document.querySelectorAll('{selector}')].map(e => e.textContent)")
    return found


def row(topic: str) -> str:
    return f"document.querySelector('[data-topic=\"{topic}\"]')"


def msg(text: str) -> str:
    """Write a string down as JavaScript."""
    return msgspec.json.encode(text).decode()
