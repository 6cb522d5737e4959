"""`notifyd config` against a small HTTP server that answers what a test wants."""

import json
from functools import partial
from typing import Any

import pytest
import trio
import typer

from notifyd.cli.config import config
from notifyd.errors import NotifydError
from tests.unit.cli.canned_server import Server
from tests.unit.cli.command_line import Run

FOUND = {
    "version": 7,
    "newest": 7,
    "problem": None,
    "stored": True,
    "overlay": {"limits": {"payload": "1KiB"}, "topics": []},
    "settings": {"limits": {"payload": "1KiB", "messages": {"rate": 5.0}}, "topics": [], "log": {"level": "a\u202eb"}},
    "live": ["limits.payload"],
}


async def tell(server: Server, action: Any, *words: str, **options: Any) -> None:
    await trio.to_thread.run_sync(partial(config, action, list(words), url=server.url, **options))


def answer(server: Server, **changed: Any) -> None:
    server.answers(json.dumps(FOUND | changed).encode())


def asked(server: Server) -> tuple[list[str], Any]:
    """The one request: its lines, and its body."""
    (request,) = server.asked
    head, _, body = request.decode().partition("\r\n\r\n")
    return head.split("\r\n"), json.loads(body) if body else None


async def test_all_settings_are_told_and_which_of_them_the_centre_gives(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(server)
    await tell(server, "get", api_key="the key")
    assert asked(server)[0][0] == "GET /v1/config HTTP/1.1"
    assert "Authorization: Bearer the key" in asked(server)[0]
    assert capsys.readouterr().out.splitlines() == [
        "# version 7 is in force",
        'limits.payload = "1KiB"  # centre',
        "limits.messages.rate = 5.0",
        "topics = []  # centre",
        'log.level = "a?b"',
    ]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("limits.payload", '"1KiB"\n'),
        ("topics", "[]\n"),
        ("limits", 'limits.payload = "1KiB"  # centre\nlimits.messages.rate = 5.0\n'),
    ],
)
async def test_one_setting_is_told_alone(
    key: str, told: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(server)
    await tell(server, "get", key)
    assert capsys.readouterr().out == told


async def test_the_answer_is_told_as_it_came(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    answer(server)
    await tell(server, "get", as_json=True)
    assert json.loads(capsys.readouterr().out) == FOUND
    await tell(server, "get", "limits.messages", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"rate": 5.0}


async def test_a_setting_that_is_not_there(server: Server) -> None:
    answer(server)
    for key in ("limit", "limits.payload.x"):
        with pytest.raises(typer.BadParameter, match="there is no setting"):
            await tell(server, "get", key)


@pytest.mark.parametrize(
    ("words", "patch"),
    [
        (["limits.payload=1MiB"], {"limits": {"payload": "1MiB"}}),
        (["limits.payload = 5"], {"limits": {"payload": 5}}),
        (
            ["limits.messages.rate=5", "limits.messages.burst=9", "auth.anonymous=true"],
            {"limits": {"messages": {"rate": 5, "burst": 9}}, "auth": {"anonymous": True}},
        ),
        (['topics=[{match="a:*", history=5}]'], {"topics": [{"match": "a:*", "history": 5}]}),
        (['auth.api_keys=[{file="key"}]'], {"auth": {"api_keys": [{"file": "key"}]}}),
        (["log.level=debug"], {"log": {"level": "debug"}}),
        (["auth.issuer=5"], {"auth": {"issuer": "5"}}),
        (["auth.issuer=a=b"], {"auth": {"issuer": "a=b"}}),
        (["no.such=key"], {"no": {"such": "key"}}),
    ],
)
async def test_settings_are_sent_as_a_merge_patch(
    words: list[str], patch: Any, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(server)
    await tell(server, "set", *words, author="Zoë", if_version=6)
    head, body = asked(server)
    assert head[0] == "PATCH /v1/config HTTP/1.1"
    assert {"X-Author: Zoë", "If-Match: 6", "Content-Type: application/json"} <= set(head)
    assert body == patch
    assert capsys.readouterr().out == "version 7 is in force\n"


async def test_settings_are_taken_back_by_null(server: Server) -> None:
    answer(server)
    await tell(server, "unset", "limits.payload", "topics")
    head, body = asked(server)
    assert body == {"limits": {"payload": None}, "topics": None}
    assert [line for line in head if line.startswith("X-Author: ") and "@" in line]
    assert not [line for line in head if line.startswith("If-Match")]


async def test_a_version_is_gone_back_to(server: Server) -> None:
    answer(server)
    await tell(server, "rollback", "3")
    head, body = asked(server)
    assert (head[0], body) == ("POST /v1/config/rollback HTTP/1.1", {"version": 3})


async def test_what_is_not_stored_and_what_is_not_in_force_is_said(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(server, stored=False, newest=8, problem="a\x1b[2Jb")
    await tell(server, "set", "log.level=info")
    told = "version 7 is in force; it is kept in the node alone, until that ends; version 8 is not, here: a?[2Jb\n"
    assert capsys.readouterr().out == told


async def test_the_history_is_told(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    time = 1_790_000_000_000
    versions = [
        {"version": 2, "time": time, "author": "a\x1bb", "overlay": {}, "restores": 0},
        {"version": 1, "time": time, "author": "ada", "overlay": {"limits": {"payload": "1KiB"}}},
    ]
    server.answers(json.dumps({"versions": versions, "more": True}).encode())
    await tell(server, "history", limit=2)
    assert asked(server)[0][0] == "GET /v1/config/history?limit=2 HTTP/1.1"
    assert capsys.readouterr().out.splitlines() == [
        "2  2026-09-21 14:13:20 UTC  a?b (back to 0)  {}",
        '1  2026-09-21 14:13:20 UTC  ada  {"limits":{"payload":"1KiB"}}',
        "… and older ones (--limit)",
    ]
    await tell(server, "history", as_json=True)
    assert json.loads(capsys.readouterr().out)["more"] is True


async def test_what_a_node_refuses_is_told(server: Server) -> None:
    server.answers(b'{"error":{"code":409,"reason":"needs_restart","message":"listen.http: no"}}', "409 Conflict")
    with pytest.raises(NotifydError, match=r"^notifyd config: 409 needs_restart: listen.http: no$"):
        await tell(server, "set", "listen.http=127.0.0.1:1")


@pytest.mark.parametrize("action", ["get", "history"])
async def test_another_web_server(action: str, server: Server) -> None:
    server.answers(b"<html>")
    with pytest.raises(NotifydError, match="what answered is no node"):
        await tell(server, action)
    server.answers(b"<html>", "404 Not Found")
    with pytest.raises(NotifydError, match="is not a node's HTTP listener: it answered 404"):
        await tell(server, action)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["put"], "'put' is not one of 'get', 'set', 'unset', 'history', 'rollback'"),
        (["get", "a", "b"], "get takes one key"),
        (["history", "a"], "history takes no further words"),
        (["set"], "set takes KEY=VALUE, one or more"),
        (["set", "limits.payload"], "'limits.payload' is not KEY=VALUE"),
        (["set", "=5"], "'=5' is not KEY=VALUE"),
        (["set", "limits=5", "limits.payload=5"], "limits.payload is inside of another key"),
        (["unset"], "unset takes a key, one or more"),
        (["rollback"], "rollback takes one version"),
        (["rollback", "-1"], "No such option: -1"),
        (["rollback", "x"], "'x' is no version"),
    ],
)
def test_wrong_use(arguments: list[str], error: str, run: Run) -> None:
    code, out, err = run("config", *arguments)
    assert (code, out) == (2, "")
    assert error in err
