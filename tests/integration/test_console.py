"""The console as a newcomer meets it: every panel of a running demo, by mouse and keyboard, on a desktop and a phone.

Pictures of all of it are in tests/.output/console, for people to look at.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from notifyd.client import open_client
from tests.chromium import open_tab
from tests.http_client import HttpClient
from tests.integration.test_demo import running
from tests.kit.console_page import ConsolePage, js

pytestmark = pytest.mark.guard(120)

TITLES = {
    "": "Overview",
    "topics": "Topics",
    "connections": "Connections",
    "nodes": "Nodes",
    "tree": "Supervision",
    "settings": "Settings",
}
CHARTS = ["Connections", "Messages", "Publish to delivery", "Queued for clients", "Bytes", "Errors"]
READINGS = ("load", "memory", "network", "disk")


@asynccontextmanager
async def demo_console(chromium: str) -> AsyncIterator[tuple[ConsolePage, HttpClient, str]]:
    """A running demo, and its console in a tab, not yet loaded; and where its WebSocket clients connect."""
    async with running() as demo, open_tab(chromium) as tab:
        url = (await demo.wait_for(r"WebSocket  (ws://\S+)\n"))[1]
        port = int((await demo.wait_for(r"Console    http://127\.0\.0\.1:(\d+)/\n"))[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(demo.read_on)  # its output must not fill the pipe
            yield ConsolePage(tab, port), HttpClient(port), url
            nursery.cancel_scope.cancel()
        assert tab.complaints == []


async def test_the_panels_of_the_demo(chromium: str) -> None:
    async with demo_console(chromium) as (page, client, url), open_client(url, client_name="test") as guest:
        await check_overview(page)
        await check_topics(page)
        await check_topic(page, client)
        await check_connections(page)
        await check_nodes_and_tree(page)
        await check_settings(page)
        assert guest.welcome is not None


async def test_the_console_by_keyboard(chromium: str) -> None:
    async with demo_console(chromium) as (page, _, _):
        await page.connected()
        await check_skip_and_navigation(page)
        await check_chart_by_keyboard(page)
        await check_table_by_keyboard(page)
        await check_theme(page)


async def check_overview(page: ConsolePage) -> None:
    """Within three seconds on a quiet machine: devices beat, readings are drawn, figures are there."""
    await page.open()
    for name in READINGS:
        await page.shows(".fleet a", f":{name}")
    await page.until("document.querySelectorAll('.devices li').length === 4")
    await page.until("document.querySelector('.devices .dot.beat')")
    await page.until("document.querySelectorAll('.fleet .lines path[d*=L]').length === 4")
    drawn_ms = await page.run("performance.now()")
    assert drawn_ms < 15_000  # three seconds are for a quiet machine
    assert [title.split("\n")[0] for title in await page.texts(".charts h2")] == CHARTS
    await page.until("document.querySelector('.facts dd').textContent >= '6'")  # 4 devices, the demo's own, the page
    await page.until("document.querySelectorAll('.charts .lines path[d*=L]').length >= 8")
    for text in await page.texts(".charts figcaption p"):
        assert "now, between" in text or "nothing yet" in text, text
    await page.until(r"/^[\d.]+ (ms|s)$/.test(document.getElementById('round-trip').textContent)")
    await check_hover(page)
    await page.picture("overview")


async def check_hover(page: ConsolePage) -> None:
    """Under the pointer, the legend shows the values of then, and when that was."""
    x, y = await page.run(
        "(() => { const box = document.querySelector('.charts .plot').getBoundingClientRect();"
        " return [box.right - 14, box.top + 40] })()"
    )
    await page.tab.point(x, y)
    await page.until(r"/^\d\d:\d\d:\d\d$/.test(document.querySelector('.charts .when').textContent)")
    assert await page.run("document.querySelectorAll('.charts .chart:first-child .over circle').length") == 4
    await page.tab.point(0, 0)
    await page.until("document.querySelector('.charts .when').textContent === ''")


async def check_topics(page: ConsolePage) -> None:
    await page.go("topics")
    await page.until("document.querySelectorAll('tbody tr').length >= 4")
    names = [name for name in await page.texts("tbody a") if name.startswith("metrics:")]
    assert [name.rpartition(":")[2] for name in sorted(names)] == sorted(READINGS)
    await page.click("th button")
    assert await page.texts("th[aria-sort=ascending]") == ["Topic"]
    assert (await page.texts("tbody a")) == sorted(await page.texts("tbody a"))
    await page.fill("#topic-filter", ":load")
    assert len(await page.texts("tbody tr")) == 1
    await page.fill("#topic-filter", "nowhere")
    await page.shows(".hint", "Nothing matches")
    await page.fill("#topic-filter", "")
    await page.until("document.querySelector('tbody td:nth-child(4)').textContent >= '1'")
    await page.picture("topics")


async def check_topic(page: ConsolePage, client: HttpClient) -> None:
    """A topic live, opened by its name: what was kept, what comes, who is there, and what is published here."""
    await client.post("/v1/publish", [{"topic": "chat:room1", "data": f"kept {n}"} for n in range(3)])
    await page.fill("#topic-filter", "chat:room1")
    await page.run("document.querySelector('form.line').requestSubmit()")
    await page.shows("h1", "chat:room1")
    await page.until("document.querySelectorAll('#feed li').length === 3")
    assert await page.texts("#feed .data") == ["kept 2", "kept 1", "kept 0"]
    await page.shows(".members", "(this page)")
    await check_publishing(page)
    await check_feed(page, client)
    await page.picture("topic-text")
    topic = next(name for name in (await client.get("/v1/topics")).json["topics"] if name["topic"].endswith(":network"))
    await page.go(f"topics/{topic['topic'].replace(':', '%3A')}")
    await page.until("document.querySelectorAll('.chart.card .lines path[d*=L]').length === 1")
    assert len(await page.texts(".chart option")) == 4
    await page.picture("topic-numbers")


async def check_publishing(page: ConsolePage) -> None:
    await page.fill("#publish-data", '{"text": "from the page"}')
    await page.run("document.getElementById('publish-form').requestSubmit()")
    await page.until("document.getElementById('published').textContent === 'Published at offset 4.'")
    await page.until("document.querySelector('#feed .data').textContent === '{\"text\":\"from the page\"}'")


async def check_feed(page: ConsolePage, client: HttpClient) -> None:
    """Pause, go on, filter, clear."""
    await page.click("#pause")
    await client.post("/v1/publish", {"topic": "chat:room1", "data": "unseen"})
    await page.click("#pause")
    await client.post("/v1/publish", {"topic": "chat:room1", "data": "seen"})
    await page.until("document.querySelector('#feed .data').textContent === 'seen'")
    await page.fill("#filter", "from the page")
    assert await page.texts("#feed li:not([hidden]) .data") == ['{"text":"from the page"}']
    await page.fill("#filter", "")
    await page.click("#clear")
    assert await page.texts("#feed li") == []
    await client.post("/v1/publish", {"topic": "chat:room1", "data": "after"})
    await page.until("document.querySelector('#feed .data')?.textContent === 'after'")


async def check_connections(page: ConsolePage) -> None:
    await page.go("connections")
    await page.until("document.querySelectorAll('tbody tr').length === 7")
    await page.shows("tbody td", "(this page)")
    await page.fill("#connection-filter", "device msgpack")
    assert len(await page.texts("tbody tr")) == 4
    await page.fill("#connection-filter", "")
    await page.click("details:has(a) summary")
    await page.until("document.querySelector('details[open] a')")
    await page.picture("connections")


async def check_nodes_and_tree(page: ConsolePage) -> None:
    await page.go("nodes")
    await page.shows(".nodes .chip", "serving")
    await page.shows(".nodes .line", "Broker: memory")
    await page.picture("nodes")
    await page.go("tree")
    for service in ("broker", "memory", "fanout", "websocket", "http"):
        await page.shows("tbody td", service)
    assert await page.run("document.querySelectorAll('.tree .chip[data-level=good]').length") > 10
    await page.picture("tree")


async def check_settings(page: ConsolePage) -> None:
    await page.go("settings")
    await page.shows(".settings dt", "limits.")
    await page.shows(".settings .chip", "live")
    await page.fill("#setting-filter", "broker.url")
    assert await page.texts(".settings dl > div:not([hidden])") == ["broker.urlmemory://"]
    await page.fill("#setting-filter", "")
    await page.picture("settings")


async def check_skip_and_navigation(page: ConsolePage) -> None:
    """The way of the Tab key: past the head into the content, or along the views."""
    await page.tab.key("Tab")
    assert await page.focused() == "skip"
    await page.tab.key("Enter", "\r")
    assert await page.focused() == "main"
    await page.run("document.querySelector('.brand').focus()")
    for name in ["Overview", "Topics", "Connections", "Nodes", "Tree", "Settings", "key", "theme"]:
        await page.tab.key("Tab")
        assert await page.focused() == name
        outline = await page.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", name
    for view, title in reversed(TITLES.items()):
        await page.run(f"document.querySelector('nav a[href=\"#/{view}\"]').focus()")
        await page.tab.key("Enter", "\r")
        await page.until(f"document.querySelector('h1:focus')?.textContent === {js(title)}")
        assert await page.run("document.querySelector('nav a[aria-current=page]').getAttribute('href')") == f"#/{view}"


async def check_chart_by_keyboard(page: ConsolePage) -> None:
    await page.until("document.querySelector('.charts .lines path[d*=L]')")
    await page.run("document.querySelector('.charts .plot').focus()")
    await page.tab.key("ArrowLeft")
    await page.until("document.activeElement.getAttribute('aria-valuetext') !== 'now'")  # in the frame after
    value = await page.run("document.activeElement.getAttribute('aria-valuetext')")
    assert re.match(r"\d\d:\d\d:\d\d: websocket json \d+, ", value)
    await page.tab.key("Escape")
    await page.until("document.querySelector('.charts .when').textContent === ''")


async def check_table_by_keyboard(page: ConsolePage) -> None:
    """The Tab key goes along the rows, and news do not take the focus away."""
    await page.go("topics")
    await page.until("document.querySelectorAll('tbody tr').length >= 4")
    await page.run("document.querySelectorAll('th button')[1].focus()")
    await page.tab.key("Enter", "\r")
    assert await page.texts("th[aria-sort=ascending]") == ["In"]
    await page.run("document.querySelector('tbody a').focus()")
    await page.tab.key("Tab")
    names = await page.texts("tbody a")
    assert await page.focused() == names[1]
    await page.run("""new Promise(done => {
        let news = 0;
        const told = new MutationObserver(() => ++news === 2 && done(told.disconnect()));
        told.observe(document.querySelector("tbody"), { subtree: true, childList: true, characterData: true });
    })""")
    assert await page.focused() == names[1]
    await page.tab.key("Enter", "\r")
    await page.shows("h1", names[1])


async def check_theme(page: ConsolePage) -> None:
    backs = set()
    for _ in range(3):
        await page.click("#theme")
        backs.add(await page.run("getComputedStyle(document.body).backgroundColor"))
    assert len(backs) == 2  # light, dark, and the system's, which is one of them
