"""The HTTP side driven by curl, against a real node: the requests of the README's tour, and what goes wrong."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from notifyd.node import open_node
from notifyd.settings import Address, AuthSettings, ListenSettings, Secret, Settings

pytestmark = [pytest.mark.guard(30), pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")]

KEY = "k" * 32


class Curl:
    """Runs curl against one node and returns the status and the JSON."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __call__(self, path: str, *arguments: str) -> tuple[int, Any]:
        command = ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", *arguments, self.url + path]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), json.loads(body) if body else None


@asynccontextmanager
async def opened(auth: AuthSettings) -> AsyncIterator[Curl]:
    listen = ListenSettings(websocket=None, device=None, http=Address("127.0.0.1", 0))
    async with open_node(msgspec.structs.replace(Settings.demo(), listen=listen, auth=auth)) as node:
        yield Curl(f"http://{node.http_address}")


async def test_publish_and_look() -> None:
    async with opened(AuthSettings(anonymous=True)) as curl:
        assert await curl("/health") == (200, {"status": "ok"})
        assert await curl("/ready") == (200, {"ready": True, "reasons": []})
        status, first = await curl("/v1/publish", "--data", '{"topic":"chat:room1","data":{"text":"hello"}}')
        assert (status, first["topic"], first["offset"]) == (200, "chat:room1", 1)
        batch = '[{"topic":"chat:room1","data":2},{"topic":"chat:room1"}]'
        status, results = await curl("/v1/publish", "--json", batch)
        assert (status, results[0]["offset"], results[1]["error"]["code"]) == (200, 2, 400)
        status, again = await curl("/v1/publish", "--data", '{"topic":"a","data":1,"key":"k"}')
        assert await curl("/v1/publish", "--data", '{"topic":"a","data":1,"key":"k"}') == (200, again)

        status, history = await curl(f"/v1/topics/chat%3Aroom1/history?since={first['epoch']}:1")
        assert (status, [entry["data"] for entry in history["messages"]]) == (200, [2])
        assert (await curl("/v1/topics?match=chat:*"))[1]["topics"][0]["offset"] == 2
        assert await curl("/v1/topics/chat:room1/presence") == (200, {"topic": "chat:room1", "members": []})
        assert await curl("/v1/connections") == (200, {"connections": [], "more": False})
        assert (await curl("/v1/connections/none", "--request", "DELETE"))[0] == 404
        status, tree = await curl("/v1/tree")
        assert (status, tree["name"], tree["state"]) == (200, "node", "connected")
        assert (await curl("/v1/publish", "--header", "Origin: http://evil.example", "--data", "{}"))[0] == 403
        assert (await curl("/v1/tree", "--header", "Host: evil.example"))[0] == 403


async def test_a_body_too_large_is_told_to_every_kind_of_sender(tmp_path: Path) -> None:
    limit_bytes = 64 * Settings.demo().limits.payload_bytes
    body = tmp_path / "body"
    body.write_bytes(b" " * (2 * limit_bytes))
    async with opened(AuthSettings(anonymous=True)) as curl:
        for header in ("Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"):
            status, answer = await curl("/v1/publish", "--header", header, "--data-binary", f"@{body}")
            assert (status, answer["error"]["reason"]) == (413, "too_large"), header


async def test_keys() -> None:
    async with opened(AuthSettings(api_keys=(Secret(KEY),))) as curl:
        assert (await curl("/v1/tree"))[0] == 401
        assert (await curl("/v1/tree", "--header", "Authorization: Bearer wrong"))[0] == 401
        assert (await curl("/v1/tree", "--header", f"Authorization: Bearer {KEY}"))[0] == 200
