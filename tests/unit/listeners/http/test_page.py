"""The page as it is served: whole, small, and with nothing foreign in it."""

import re

import pytest

from notifyd.listeners.http.page import policy_source, reachable
from tests.http_client import HttpClient
from tests.unit.listeners.http.conftest import Start

MAX_PAGE_BYTES = 40_000
FILES = {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css"}


def directives(policy: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for words in (part.split() for part in policy.split(";"))}


async def test_the_page_is_three_small_files(client: HttpClient) -> None:
    size_bytes = 0
    for path, kind in FILES.items():
        answer = await client.get(path)
        assert answer.status == 200
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        size_bytes += len(answer.body)
    assert size_bytes < MAX_PAGE_BYTES


async def test_nothing_foreign_and_no_markup_from_the_wire(client: HttpClient) -> None:
    for path in FILES:
        text = (await client.get(path)).body.decode()
        foreign = set(re.findall(r"https?://[^\s\"'<>)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert foreign == set()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", text)
    html = (await client.get("/")).body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", html)


async def test_the_policy_lets_in_ourselves_and_the_websocket_alone(start: Start) -> None:
    client = await start(websocket_url="ws://127.0.0.1:7500/ws")
    policy = directives((await client.get("/", host="localhost:7502")).headers["content-security-policy"])
    assert policy == {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["data:"],
        "connect-src": ["'self'", "ws://localhost:7500"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }
    assert (await client.get("/page.json", host="localhost:7502")).json["websocket"] == "ws://localhost:7500/ws"


async def test_without_a_websocket_listener_the_page_says_so(client: HttpClient) -> None:
    assert (await client.get("/page.json")).json["websocket"] is None
    policy = directives((await client.get("/")).headers["content-security-policy"])
    assert policy["connect-src"] == ["'self'"]


@pytest.mark.parametrize(
    ("websocket_url", "host", "reached"),
    [
        ("ws://127.0.0.1:7500/ws", "127.0.0.1:7502", "ws://127.0.0.1:7500/ws"),
        ("ws://127.0.0.1:7500/ws", "localhost:7502", "ws://localhost:7500/ws"),
        ("ws://[::1]:7500/ws", "[::1]:7502", "ws://[::1]:7500/ws"),
        ("wss://0.0.0.0:7500/ws", "notify.example.com", "wss://notify.example.com:7500/ws"),
        ("ws://[::]:7500/ws", "[2001:db8::1]:7502", "ws://[2001:db8::1]:7500/ws"),
        ("ws://10.0.0.5:7500/ws", "localhost:7502", "ws://10.0.0.5:7500/ws"),
        ("ws://127.0.0.1:7500/ws", "", "ws://127.0.0.1:7500/ws"),
        ("ws://127.0.0.1:7500/ws", "a; script-src *", "ws://127.0.0.1:7500/ws"),
        ("ws://127.0.0.1:7500/ws", "a/b", "ws://127.0.0.1:7500/ws"),
        ("ws://127.0.0.1:7500/ws", "user@a", "ws://127.0.0.1:7500/ws"),
        ("ws://127.0.0.1:7500/ws", "[::1;]", "ws://127.0.0.1:7500/ws"),
    ],
)
def test_the_websocket_is_reached_by_the_name_the_page_was(websocket_url: str, host: str, reached: str) -> None:
    assert reachable(websocket_url, host) == reached


def test_policy_sources() -> None:
    assert policy_source("ws://localhost:7500/ws") == "ws://localhost:7500"
    assert policy_source("wss://[::1]:7500/ws") == "wss://*:7500"
