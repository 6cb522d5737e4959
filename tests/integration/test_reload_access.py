"""SIGHUP and who may do what: topic policies, token keys and API keys change for the next request, or nothing does."""

import json
import signal
import time
from pathlib import Path

import jwt
import pytest
import trio

from notifyd.listeners.http.listener import HttpListener
from notifyd.node import Node, open_node
from notifyd.settings import Address, AuthSettings, Layers, ListenSettings, Secret, Settings
from notifyd.supervision import Branch
from tests.http_client import HttpClient
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice

pytestmark = pytest.mark.guard(30)

KEYS = {kid: f"the secret of {kid}, long enough for HS512: {kid * 10}" for kid in ("old", "new")}


def _configuration(kid: str = "old", api_key: str = "first", publish: str = "token") -> str:
    return "\n".join(
        [
            "[auth]",
            f'keys = [{{ algorithm = "HS512", secret = {json.dumps(KEYS[kid])}, kid = "{kid}" }}]',
            f'api_keys = ["an API key: {api_key}"]',
            "[[topics]]",
            f'match = "news"\npublish = "{publish}"\nhistory = 0',
        ]
    )


def _token(kid: str) -> str:
    claims = {"sub": "ann", "exp": int(time.time()) + 600, "subscribe": ["**"], "publish": ["**"]}
    return jwt.encode(claims, KEYS[kid], "HS512", {"kid": kid})


class Operator:
    """Writes the configuration of a node and has it read again."""

    def __init__(self, node: NodeProcess, path: Path) -> None:
        self.node = node
        self.path = path
        self.reloads = 0

    async def reload(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        self.node.process.send_signal(signal.SIGHUP)
        self.reloads += 1
        await self.node.wait_logged("reloaded", self.reloads)

    async def connect(self, kid: str) -> RawDevice | None:
        """A client with a token of this key, None when it is not accepted."""
        device = await RawDevice.open(self.node.ports["device"])
        reply = await device.request({"op": "connect", "id": 1, "token": _token(kid)})
        return device if reply["op"] == "connected" else None


async def _publishes(device: RawDevice) -> bool:
    return (await device.request({"op": "publish", "id": 2, "topic": "news", "data": 1}))["op"] == "published"


async def _watch(node: NodeProcess, api_key: str) -> RawDevice:
    """An operator, who may have what the node says about itself."""
    device = await RawDevice.open(node.ports["device"])
    for number, request in enumerate(
        ({"op": "connect", "token": f"an API key: {api_key}"}, {"op": "subscribe", "topic": "$sys:tree"}), start=1
    ):
        assert (await device.request({**request, "id": number}))["op"] in ("connected", "subscribed")
    return device


async def test_what_a_reload_lets_in_and_shuts_out(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_text(_configuration())
    async with running_node({"AUTH__ANONYMOUS": "false"}, config=path) as node:
        operator = Operator(node, path)
        device = await operator.connect("old")
        assert device is not None
        assert await operator.connect("new") is None
        assert await _publishes(device)
        watcher = await _watch(node, "first")

        await operator.reload(_configuration(publish="service"))
        assert not await _publishes(device)
        await operator.reload(_configuration())
        assert await _publishes(device)

        await operator.reload(_configuration(kid="new", api_key="second"))
        assert await _publishes(device), "who is connected stays"
        assert await watcher.error_code() == 4001, "but with an API key that is gone"
        (await _watch(node, "second")).close()
        assert await operator.connect("old") is None
        assert await operator.connect("new") is not None
        refresh = await device.request({"op": "refresh", "id": 3, "token": _token("new")})
        assert refresh["op"] == "refreshed"
        keys = {
            key: (await HttpClient(node.ports["http"], key=f"an API key: {key}").get("/v1/tree")).status
            for key in ("first", "second")
        }
        assert keys == {"first": 401, "second": 200}


# A log tells five of a kind in a minute: these, and one for a file that is gone.
BROKEN = {
    "[auth\n": "notifyd.toml",
    '[auth]\nkeys = [{ algorithm = "RS256", public_key = "no PEM" }]\n': "auth.keys",
    '[[topics]]\nmatch = "**:a"\n': "topics",
    "[limits]\nconnections = { limit = 1, resume = 2 }\n": "limits.connections",
}


async def test_a_broken_file_changes_nothing_and_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_text(_configuration())
    async with running_node({"AUTH__ANONYMOUS": "false"}, config=path) as node:
        operator = Operator(node, path)
        device = await operator.connect("old")
        assert device is not None

        async def is_refused(problem: str) -> None:
            lines, refusals = len(node.log), len(node.events("reload_refused"))
            node.process.send_signal(signal.SIGHUP)
            refused = await node.wait_logged("reload_refused", refusals + 1)
            assert problem in refused["problem"]
            assert "traceback" not in refused
            assert len(node.log) == lines + 1
            assert await _publishes(device)
            (await operator.connect("old")).close()

        for broken, problem in BROKEN.items():
            path.write_text(broken)
            await is_refused(problem)
        await operator.reload(_configuration())  # the next good one is heard
        path.unlink()
        await is_refused("notifyd.toml")


async def test_a_key_that_is_taken_back_while_the_api_begins_to_listen_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration centre may speak at any time: Redis comes when it comes."""
    nodes: list[Node] = []
    begin, listen = Node.start_http, HttpListener.run

    async def start_http(node: Node, branch: Branch) -> None:
        nodes.append(node)
        await begin(node, branch)

    async def run(listener: HttpListener, *, task_status: trio.TaskStatus[None]) -> None:
        nodes[0].centre.reload(Layers.of(_settings("new")))
        await listen(listener, task_status=task_status)

    monkeypatch.setattr(Node, "start_http", start_http)
    monkeypatch.setattr(HttpListener, "run", run)
    async with open_node(_settings("old")) as node:
        assert node.http_address is not None
        for key, status in (("old", 401), ("new", 200)):
            assert (await HttpClient(node.http_address.port, key=key).get("/v1/topics")).status == status


def _settings(api_key: str) -> Settings:
    listen = ListenSettings(websocket=None, device=None, http=Address("127.0.0.1", 0))
    return Settings(listen=listen, auth=AuthSettings(api_keys=(Secret(api_key),)))
