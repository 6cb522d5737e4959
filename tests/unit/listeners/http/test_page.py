"""The console as it is served: whole, small, and with nothing foreign in it."""

import re
from pathlib import Path

import pytest

from notifyd.listeners.http import page
from notifyd.listeners.http.console_files import CONSOLE_FILES
from notifyd.listeners.http.page import policy_source, reachable
from tests.http_client import HttpClient
from tests.unit.listeners.http.conftest import Start

MAX_CONSOLE_BYTES = 100_000
"""Of all that a browser loads, as it is sent: the page, its style, its modules, the client."""

MAX_LINES = 400
FOLDER = Path(page.__file__).parent / "console"
CLIENT = "/notifyd.js"


def directives(policy: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for words in (part.split() for part in policy.split(";"))}


async def test_every_file_is_served_as_it_is(client: HttpClient) -> None:
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
    names = {"/" if file.name == "index.html" else f"/console/{file.name}": file for file in FOLDER.iterdir()}
    assert names.keys() == CONSOLE_FILES.keys()
    for path, file in names.items():
        answer = await client.get(path)
        assert (answer.status, answer.body) == (200, file.read_bytes())
        assert answer.headers["content-type"] == f"{kinds[file.suffix]}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
    assert (await client.get("/console/index.html")).status == 404
    assert (await client.get("/console/../page.py")).status == 404


async def test_the_console_is_small(client: HttpClient) -> None:
    size_bytes = sum([len((await client.get(path)).body) for path in (*CONSOLE_FILES, CLIENT)])
    assert size_bytes <= MAX_CONSOLE_BYTES
    for file in FOLDER.iterdir():
        assert len(file.read_text(encoding="utf-8").splitlines()) < MAX_LINES, file.name


def test_every_module_is_used_and_says_what_it_is_for() -> None:
    texts = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}
    loaded = {"index.html"}
    while missing := {name for name in texts for of in loaded if f'{name}"' in texts[of]} - loaded:
        loaded |= missing
    assert loaded == texts.keys()
    for name, text in texts.items():
        assert name == "index.html" or name.endswith(".css") or text.startswith("// "), name


async def test_nothing_foreign_and_no_markup_from_the_wire(client: HttpClient) -> None:
    for path in CONSOLE_FILES:
        text = (await client.get(path)).body.decode()
        foreign = set(re.findall(r"https?://[^\s\"'<>)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert foreign == set()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc", text)
    html = (await client.get("/")).body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", html)


def test_the_key_is_kept_nowhere() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in FOLDER.glob("*.js"))
    assert not re.search(r"sessionStorage|document\.cookie|indexedDB", text)
    assert set(re.findall(r"localStorage\.\w+\((\w+)", text)) == {"THEME"}  # of the colours


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
