"""`notifyd revoke` against a small HTTP server that answers what a test wants."""

import json
from functools import partial

import pytest
import trio
import typer

from notifyd.cli.revoke import post_revocation, revoke
from notifyd.errors import NotifydError
from tests.unit.cli.canned_server import Server
from tests.unit.cli.command_line import Run

UNTIL = 1_790_000_000
TOLD = "is refused until 2026-09-21 14:13:20 UTC\n"


async def post(url: str, api_key: str | None = None) -> object:
    return await trio.to_thread.run_sync(post_revocation, {"user": "ada"}, url, api_key)


def asked(server: Server) -> tuple[list[bytes], object]:
    """The one request: its lines, and its body."""
    (request,) = server.asked
    head, _, body = request.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), json.loads(body)


async def test_a_user_is_revoked(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers(b'{"user":"ada","until":%d}' % UNTIL)
    await trio.to_thread.run_sync(partial(revoke, user="ada", url=f"{server.url}/behind/", api_key="the key"))
    head, body = asked(server)
    assert head[0] == b"POST /behind/v1/revocations HTTP/1.1"
    assert b"Authorization: Bearer the key" in head
    assert b"Content-Type: application/json" in head
    assert body == {"user": "ada", "ttl": "24h"}
    assert capsys.readouterr().out == f"every token that ada has now {TOLD}"


async def test_a_token_is_revoked(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers(b'{"token_id":"t1","until":%d}' % UNTIL)
    await trio.to_thread.run_sync(partial(revoke, token_id="t1", ttl="30d", url=server.url))
    head, body = asked(server)
    assert not [line for line in head if line.startswith(b"Authorization")]
    assert body == {"token_id": "t1", "ttl": "30d"}
    assert capsys.readouterr().out == f"token t1 {TOLD}"


async def test_what_a_node_refuses_is_told(server: Server) -> None:
    server.answers(b'{"error":{"code":400,"reason":"bad_request","message":"too\\u001b[2J long"}}', "400 Bad Request")
    with pytest.raises(NotifydError, match=r"^notifyd revoke: 400 bad_request: too\?\[2J long$"):
        await post(server.url)


async def test_a_key_is_wanted(server: Server) -> None:
    server.answers(b'{"error":{}}', "401 Unauthorized")
    with pytest.raises(NotifydError, match=r"notifyd revoke: .* wants one of the node's API keys"):
        await post(server.url)


@pytest.mark.parametrize(
    ("body", "status"), [(b"<html>", "200 OK"), (b"{}", "200 OK"), (b'{"user":"ada","until":1}', "404 Not Found")]
)
async def test_another_web_server(body: bytes, status: str, server: Server) -> None:
    server.answers(body, status)
    with pytest.raises(NotifydError, match=f"is not a node's HTTP listener: it answered {status[:3]} with something"):
        await post(server.url)


async def test_nothing_listens() -> None:
    with pytest.raises(NotifydError, match=r"notifyd revoke: no node answers at http://127.0.0.1:1 \(Connection ref"):
        await post("http://127.0.0.1:1")


async def test_a_key_that_cannot_be_sent_is_not_shown(server: Server) -> None:
    with pytest.raises(typer.BadParameter, match="characters that cannot be sent") as caught:
        await post(server.url, "hunter2\r\nX: y")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "give either --user or --token-id"),
        (["--user", "ada", "--token-id", "t1"], "give either --user or --token-id"),
        (["--user", "ada", "--ttl", "soon"], 'expected a duration such as "30s"'),
        (["--user", "ada", "--url", "127.0.0.1"], "is no URL such as http://127.0.0.1:7502"),
    ],
)
def test_wrong_use(arguments: list[str], error: str, run: Run) -> None:
    code, out, err = run("revoke", *arguments)
    assert (code, out) == (2, "")
    assert error in err
