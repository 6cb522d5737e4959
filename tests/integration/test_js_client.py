"""The client for browsers and Node: its own tests under Node, and real pages in Chromium against real nodes."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from notifyd.auth.tokens import Signer
from notifyd.clock import Clock
from notifyd.node import Node, open_node
from notifyd.settings import Address, AuthSettings, ListenSettings, Secret, Settings, TokenKey
from notifyd.settings.types import HeartbeatSettings
from tests.chromium import EXECUTABLE, Browser, open_browser
from tests.http_client import HttpClient
from tests.kit.page_server import PageServer, open_page_server
from tests.kit.tcp_proxy import TcpProxy, open_proxy
from tests.reliability.node_process import started_node

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")
TOPIC = "chat:room1"
MANY = 10_000
BATCH = 1000
ASLEEP_S = 3.5
TOKEN_S = 3


@pytest.mark.skipif(NODE is None, reason="needs nodejs")
def test_the_client_under_node() -> None:
    assert NODE is not None
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    command = [NODE, "--test", "--test-reporter=tap", *files]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = re.findall(r"^not ok .*?^  \.\.\.$", run.stdout, re.MULTILINE | re.DOTALL)
    assert run.returncode == 0, "\n".join(failed) or run.stdout + run.stderr
    assert int(re.findall(r"^# pass (\d+)$", run.stdout, re.MULTILINE)[0]) > 200


@dataclass
class Stage:
    """What a check has: a browser, a server for its pages, and a proxy on the way to whatever node there is."""

    browser: Browser
    pages: PageServer
    proxy: TcpProxy

    @asynccontextmanager
    async def node(self, **sections: Any) -> AsyncIterator[Node]:
        """Run a node behind the proxy, whose sections may be others than those of the demo."""
        anywhere = Address("127.0.0.1", 0)
        listen = ListenSettings(websocket=anywhere, device=None, http=anywhere)
        auth = AuthSettings(anonymous=True, origins=(self.pages.origin,))
        settings = msgspec.structs.replace(Settings.demo(), **{"listen": listen, "auth": auth, **sections})
        async with open_node(settings) as node:
            assert node.websocket_address is not None
            self.proxy.server_port = node.websocket_address.port
            yield node

    async def connect(self, http_port: int, options: str = "{}") -> None:
        """Open a page whose `client` is connected, and whose `events` are what `subscription` has brought."""
        self.browser.complaints.clear()
        await self.browser.open(f"{self.pages.origin}/")
        await self.browser.run(f"""(async () => {{
            const {{ connect }} = await import("http://127.0.0.1:{http_port}/notifyd.js");
            globalThis.client = connect("ws://127.0.0.1:{self.proxy.port}", {options});
            globalThis.states = [];
            client.on("state", (state) => states.push(state));
            globalThis.events = [];
            globalThis.subscription = client.subscribe("{TOPIC}");
            (async () => {{
                for await (const event of subscription) events.push(event.op === "gap" ? event.reason : event.data);
            }})();
            await new Promise((begun) => subscription.on("begin", begun));
        }})()""")

    async def events(self, last: str) -> list[Any]:
        """Wait until this was the last event (as JavaScript); return all, and begin a new list."""
        await self.browser.until(f"events.at(-1) === {last}")
        events: list[Any] = await self.browser.run("events.splice(0)")
        return events


def http_of(node: Node) -> HttpClient:
    assert node.http_address is not None
    return HttpClient(node.http_address.port)


async def publish(client: HttpClient, *data: Any) -> None:
    answer = await client.post("/v1/publish", [{"topic": TOPIC, "data": value} for value in data])
    assert answer.status == 200
    assert not [result for result in answer.json if "error" in result]


@pytest.mark.guard(120)
@pytest.mark.skipif(EXECUTABLE is None, reason="needs chromium")
async def test_the_client_in_chromium() -> None:
    async with open_browser() as browser, open_page_server() as pages, open_proxy(0) as proxy:
        stage = Stage(browser, pages, proxy)
        await check_many_messages(stage)
        await check_topics(stage)
        await check_network_cut(stage)
        await check_killed_node(stage)
        await check_sleep(stage)
        await check_tokens(stage)
        await check_page_of_the_readme(stage)


async def check_many_messages(stage: Stage) -> None:
    """Ten thousand messages arrive once and in order, by iterator and by listener, while the page publishes too."""
    async with stage.node() as node:
        http = http_of(node)
        await stage.connect(http.port)
        await stage.browser.run("""
            globalThis.heard = [];
            globalThis.other = client.subscribe("chat:room2", {}, ({ data }) => heard.push(data));
            new Promise((begun) => other.on("begin", begun))""")
        for start in range(0, MANY, BATCH):
            await publish(http, *range(start, start + BATCH))
        assert await stage.events(f"{MANY - 1}") == list(range(MANY))
        await stage.browser.run("Promise.all(Array.from({ length: 150 }, (_, n) => client.publish('chat:room2', n)))")
        await stage.browser.until("heard.length === 150")
        assert await stage.browser.run("heard.every((n, index) => n === index)")
        assert await stage.browser.run("client.publish('chat:room2', 1).then(({ offset }) => offset)") == 151
        assert await stage.browser.run("client.history('chat:room2', { limit: 2 }).then((page) => page.more)") is True
        assert await stage.browser.run("client.presence('chat:room2').then((members) => members.length)") == 1
        assert stage.browser.complaints == []


async def check_topics(stage: Stage) -> None:
    """A page is told by the server what is no topic, and goes on."""
    topics = json.loads((ROOT / "spec" / "vectors" / "topics.json").read_text(encoding="utf-8"))["topics"]
    async with stage.node() as node:
        await stage.connect(http_of(node).port)
        await stage.browser.run("subscription.close()")  # its topic is among the valid ones
        ask = """(topics) => Promise.all(topics.map((topic) => new Promise((done) => {
            const subscription = client.subscribe(topic);
            subscription.on("begin", () => done(200));
            subscription.on("end", (error) => done(error.code));
        })))"""
        codes = await stage.browser.run(f"({ask})({json.dumps(topics['valid'])})")
        assert codes == [403 if topic in topics["reserved"] else 200 for topic in topics["valid"]]
        assert set(await stage.browser.run(f"({ask})({json.dumps(topics['invalid'])})")) == {400}
        assert await stage.browser.run("states.join()") == "connected"


async def check_network_cut(stage: Stage) -> None:
    """Whatever the network does, the session goes on and nothing is missing."""
    async with stage.node() as node:
        http = http_of(node)
        await stage.connect(http.port, "{ heartbeat: 1, floor: 1 }")
        session = await stage.browser.run("client.session")
        await publish(http, 1)
        await stage.events("1")

        stage.proxy.refuse()
        stage.proxy.cut()
        await stage.browser.until("client.state === 'backing off'")
        await publish(http, 2, 3)
        await stage.browser.run("void (globalThis.published = client.publish('chat:room1', 4))")
        stage.proxy.allow()
        await stage.browser.run("published")
        assert await stage.events("4") == [2, 3, 4]

        stage.proxy.stall()
        await publish(http, 5, 6)
        await stage.browser.until("client.state === 'backing off'")
        assert await stage.browser.run("client.problem") == "nothing was heard"
        stage.proxy.resume()
        await publish(http, 7)
        assert await stage.events("7") == [5, 6, 7]
        assert await stage.browser.run("client.session") == session


async def check_killed_node(stage: Stage) -> None:
    """A node that is killed takes its history along: the page is told, and its publish is accepted by the next node."""
    settings = {"AUTH__ORIGINS": json.dumps([stage.pages.origin])}
    with started_node(settings) as node:
        stage.proxy.server_port = node.ports["websocket"]
        await stage.connect(node.ports["http"])
        await stage.browser.run("Promise.all([1, 2].map((n) => client.publish('chat:room1', n)))")
        assert await stage.events("2") == [1, 2]
        node.process.kill()
        await node.wait_ended()
        await stage.browser.until("client.state === 'backing off'")
        await stage.browser.run("void (globalThis.published = client.publish('chat:room1', 3))")
    with started_node(settings) as node:
        stage.proxy.server_port = node.ports["websocket"]
        await stage.browser.run("dispatchEvent(new Event('online'))")  # rather than wait for the next attempt
        assert await stage.browser.run("published.then(({ offset }) => offset)") == 1
        events = await stage.events("3")
        assert events in (["expired", 3], ["epoch", 3])
        assert await stage.browser.run("[...new Set(states)].filter((state) => state !== 'unavailable').join()") == (
            "connected,backing off,connecting"
        )
        await stage.browser.run("client.close()")


async def check_sleep(stage: Stage) -> None:
    """A page that was asleep, or busy, until the node gave it up finds that out at once, and gets all it missed."""
    heartbeat = HeartbeatSettings(interval_s=1.0, floor_s=1.0)  # given up after 3 s
    async with stage.node(heartbeat=heartbeat) as node:
        http = http_of(node)
        await stage.connect(http.port)
        await publish(http, 1)
        await stage.events("1")

        await stage.browser.freeze()
        await publish(http, 2, 3)
        await trio.sleep(1)
        await publish(http, 4)
        await stage.browser.thaw()
        assert await stage.events("4") == [2, 3, 4]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                stage.browser.run, f"{{ const end = Date.now() + {ASLEEP_S * 1000}; while (Date.now() < end); }}"
            )
            await trio.sleep(ASLEEP_S / 2)
            await publish(http, 5, 6)
        await publish(http, 7)
        assert await stage.events("7") == [5, 6, 7]
        assert await stage.browser.run("client.state") == "connected"


async def check_tokens(stage: Stage) -> None:
    """A token function is called before the token expires, and the connection stays."""
    keys = (TokenKey(algorithm="HS512", secret=Secret("s" * 64)),)
    auth = AuthSettings(keys=keys, origins=(stage.pages.origin,))

    def token() -> str:
        return Signer(auth).sign("ada", now_s=Clock().unix_s(), expires_in_s=TOKEN_S, subscribe=["**"], publish=["**"])

    stage.pages.pages["/token"] = token
    async with stage.node(auth=auth) as node:
        await stage.connect(
            http_of(node).port,
            """{ token: async () => {
                globalThis.fetched = (globalThis.fetched ?? 0) + 1;
                return fetched === 3 ? "no token" : (await fetch("/token")).text();
            } }""",
        )
        assert await stage.browser.run("client.welcome.user") == "ada"
        await stage.browser.until("fetched === 2")
        await stage.browser.run("client.presence('chat:room1')")
        assert await stage.browser.run("states.join()") == "connected"
        await stage.browser.run("client.on('error', (error) => (globalThis.refused ??= error.code))")
        # The third one is refused, and so the connection ends with the second: then a fresh one is fetched.
        await stage.browser.until("globalThis.refused === 401")
        await stage.browser.run("client.publish('chat:room1', 'accepted')")
        assert await stage.events("'accepted'") == ["accepted"]
        await stage.browser.run("client.close()")


async def check_page_of_the_readme(stage: Stage) -> None:
    """The page of 15 lines shows what is published, and publishes when it is clicked."""
    text = (ROOT / "protocol" / "js" / "README.md").read_text(encoding="utf-8")
    ((page,),) = [re.findall(r"^```html\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    assert page.count("\n") <= 18
    async with stage.node() as node:
        http = http_of(node)
        page = page.replace("http://localhost:7502", f"http://127.0.0.1:{http.port}")
        stage.pages.pages["/readme"] = page.replace("ws://localhost:7500", f"ws://127.0.0.1:{stage.proxy.port}")
        await publish(http, "kept")
        await stage.browser.open(f"{stage.pages.origin}/readme")
        await stage.browser.until("document.title === 'connected' && document.querySelector('li')")
        await stage.browser.run("document.body.click()")
        await stage.browser.until("document.querySelectorAll('li').length === 2")
        shown = await stage.browser.run("[...document.querySelectorAll('li')].map((line) => line.textContent)")
        assert shown == ['"kept"', '{"text":"hello"}']
