"""`notifyd tree` against a small HTTP server that answers what a test wants."""

import io
from functools import partial

import msgspec
import pytest
import trio
import typer
from rich.console import Console

from notifyd.cli.tree import fetch_tree, render, render_watched, tree
from notifyd.errors import NotifydError
from notifyd.supervision import TreeNode
from protocol.connecting import ConnectionState
from tests.unit.cli.canned_server import Server

NOW_MS = 1_700_000_000_000
TREE = TreeNode(
    "node",
    ConnectionState.UNAVAILABLE,
    0,
    NOW_MS - 3_725_000,
    children=(
        TreeNode("redis", ConnectionState.UNAVAILABLE, 7, NOW_MS - 12_000, "OSError: no\x1b[2J route [bold]"),
        TreeNode("link", ConnectionState.CONNECTED, 1, NOW_MS - 500, "OSError: reset"),
        TreeNode(
            "listeners",
            ConnectionState.CONNECTED,
            0,
            NOW_MS + 50,
            children=(TreeNode("connections", ConnectionState.CONNECTED, 0, NOW_MS, count=1234),),
        ),
    ),
)
DRAWN = """\
node unavailable for 1h 2m
├── redis unavailable for 12s, 7 restarts, last error: OSError: no?[2J route [bold]
├── link connected for 0s, 1 restart, last error: OSError: reset
└── listeners connected for 0s
    └── connections: 1234
"""


async def fetch(url: str, api_key: str | None = None) -> TreeNode:
    return await trio.to_thread.run_sync(fetch_tree, url, api_key)


async def test_it_asks_with_the_key_and_prints_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers(msgspec.json.encode(TREE))
    await trio.to_thread.run_sync(partial(tree, f"{server.url}/", "the key", as_json=True))
    (asked,) = server.asked
    assert asked.startswith(b"GET /v1/tree HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer the key\r\n" in asked
    assert msgspec.json.decode(capsys.readouterr().out, type=TreeNode) == TREE


def test_a_tree_that_is_old_says_so_above_all() -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(render_watched(TREE, "http://n1:7502", "no node\x1b[2J answers"))
    head, root, *_ = screen.getvalue().splitlines()
    assert head == " NO ANSWER: no node?[2J answers "
    assert root.startswith("node unavailable")


async def test_it_draws_the_tree(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers(msgspec.json.encode(TREE))
    await trio.to_thread.run_sync(tree, server.url)
    assert capsys.readouterr().out.splitlines()[-1] == "    └── connections: 1234"
    assert b"Authorization" not in server.asked[0]


def test_the_drawing_tells_states_times_restarts_and_errors() -> None:
    screen = io.StringIO()
    Console(file=screen, width=200).print(render(TREE, NOW_MS))
    assert screen.getvalue() == DRAWN


def test_names_are_shown_as_text() -> None:
    count = TreeNode("co\x1b[2Junt", ConnectionState.CONNECTED, 0, NOW_MS, count=7)
    screen = io.StringIO()
    Console(file=screen, width=200).print(
        render(TreeNode("[red]n\x1b[2J", ConnectionState.CONNECTED, 0, NOW_MS, children=(count,)), NOW_MS)
    )
    assert screen.getvalue().splitlines() == ["[red]n?[2J connected for 0s", "└── co?[2Junt: 7"]


def test_states_are_coloured_on_a_terminal() -> None:
    screen = io.StringIO()
    Console(file=screen, width=200, force_terminal=True, color_system="standard").print(render(TREE, NOW_MS))
    assert "\x1b[1;31munavailable" in screen.getvalue()
    assert "\x1b[32mconnected" in screen.getvalue()


async def test_nothing_listens() -> None:
    with pytest.raises(NotifydError, match=r"no node answers at http://127.0.0.1:1 \(Connection refused\): `not"):
        await fetch("http://127.0.0.1:1")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_key_is_wanted(status: str, server: Server) -> None:
    server.answers(b'{"error":{}}', status)
    with pytest.raises(NotifydError, match="wants one of the node's API keys: give --api-key, or NOTIFYD_API_KEY"):
        await fetch(server.url)


@pytest.mark.parametrize(
    ("body", "status"), [(b"<html>", "200 OK"), (b"{}", "200 OK"), (msgspec.json.encode(TREE), "404 Not Found")]
)
async def test_another_web_server(body: bytes, status: str, server: Server) -> None:
    server.answers(body, status)
    with pytest.raises(NotifydError, match=f"is not a node's HTTP listener: it answered {status[:3]} without a tree"):
        await fetch(server.url)


async def test_something_that_speaks_no_http(server: Server) -> None:
    server.answer = b"HEAR\x00\r\n\r\n"
    with pytest.raises(NotifydError, match=r"speaks no HTTP \(BadStatusLine\)"):
        await fetch(server.url)


@pytest.mark.parametrize("url", ["127.0.0.1:7502", "ws://127.0.0.1:7502", "http://", "http://[::1", "http://x:port"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no URL") as caught:
        fetch_tree(url, None)
    assert caught.value.param_hint == "--url"


async def test_a_key_that_cannot_be_sent_is_not_shown(server: Server) -> None:
    with pytest.raises(typer.BadParameter, match="characters that cannot be sent") as caught:
        await fetch(server.url, "hunter2\r\nX: y")
    assert "hunter2" not in str(caught.value)
