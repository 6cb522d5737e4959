"""`notifyd top` and `notifyd tree --watch`, in a real terminal and in a pipe, on a real node."""

import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from notifyd.node import Node, open_node
from notifyd.settings import Address, AuthSettings, Secret, Settings
from notifyd.telemetry import Telemetry
from tests.kit.pty_program import ENVIRONMENT, NOTIFYD, running_in_a_terminal

pytestmark = pytest.mark.guard(60)

KEY = "an API key of this node"
BEGIN_ALTERNATE, END_ALTERNATE = "\x1b[?1049h", "\x1b[?1049l"


@asynccontextmanager
async def running_node(*api_keys: str) -> AsyncIterator[Node]:
    anywhere = Address("127.0.0.1", 0)
    settings = Settings.demo()
    listen = msgspec.structs.replace(settings.listen, websocket=anywhere, device=anywhere, http=anywhere)
    auth = AuthSettings(anonymous=True, api_keys=tuple(map(Secret, api_keys)))
    named = msgspec.structs.replace(settings.node, name="a-node", drain_s=0.2)
    settings = msgspec.structs.replace(settings, listen=listen, auth=auth, node=named)
    async with open_node(settings, telemetry=Telemetry("error")) as node:
        yield node


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running_node() as node:
        yield node


def url_of(node: Node) -> str:
    assert node.websocket_url is not None
    return node.websocket_url


async def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, its output in pipes."""
    return await trio.run_process(
        [*NOTIFYD, *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**ENVIRONMENT, **environment},
    )


@asynccontextmanager
async def lines_of(*arguments: str) -> AsyncIterator["Lines"]:
    """Run a command whose output is a pipe for the length of the block."""
    process = await trio.lowlevel.open_process([*NOTIFYD, *arguments], stdout=subprocess.PIPE, env=ENVIRONMENT)
    try:
        yield Lines(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Lines:
    """What a command writes to a pipe, a JSON line at a time."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._left = b""

    async def next(self) -> dict[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        while b"\n" not in self._left:
            data = await self.process.stdout.receive_some()
            assert data, "it ended"
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        read: dict[str, Any] = json.loads(line)
        return read


async def test_top_in_a_terminal(node: Node) -> None:
    await node.context.hub.publish("chat:room1", 1)
    async with running_in_a_terminal("top", "--url", url_of(node)) as top:
        before = top.modes()
        await top.wait_for("a-node")
        assert BEGIN_ALTERNATE in top.text
        await top.wait_for(r"serving \d+s")
        await top.wait_for("memory")
        await top.wait_for("chat:room1")
        assert "Topics" in top.text
        top.resize(lines=20, columns=70)
        await top.wait_for("json/msgp", anew=True)
        narrow = (await top.wait_for(r"\x1b\[H[^\x00]*json/msgp[^\n]*\n", anew=True))[0]
        assert "Bytes/s" not in narrow
        assert top.modes() != before
        await top.press("xyq")
        assert await top.ended() == 0
        assert END_ALTERNATE in top.text
        assert top.modes() == before
        assert "Traceback" not in top.text


async def test_top_ends_at_a_signal(node: Node) -> None:
    async with running_in_a_terminal("top", "--url", url_of(node)) as top:
        before = top.modes()
        await top.wait_for("serving")
        top.process.send_signal(signal.SIGTERM)
        assert await top.ended() == 0
        assert top.modes() == before
        assert "Traceback" not in top.text


async def test_top_says_when_the_node_is_gone() -> None:
    async with running_node() as node:
        top = running_in_a_terminal("top", "--url", url_of(node), columns=200)
        async with top as program:
            await program.wait_for("serving")
            await node.drain()
            await program.wait_for("DRAINING|NOT CONNECTED", anew=True)
            for listener in node._clients.values():
                listener.stop_accepting()
            await program.wait_for("NOT CONNECTED, [a-z ]+: .*What follows is old", anew=True)
            await program.wait_for("SILENT", anew=True)
            await program.press("q")
            assert await program.ended() == 0


async def test_top_once_and_in_a_pipe(node: Node) -> None:
    once = await run("top", "--url", url_of(node), "--once")
    assert (once.returncode, once.stderr) == (0, b"")
    (line,) = once.stdout.splitlines()
    told = json.loads(line)
    assert told["connection"] == "connected"
    assert [(each["node"], each["state"], each["silent_s"]) for each in told["nodes"]] == [("a-node", "serving", None)]
    async with lines_of("top", "--url", url_of(node)) as lines:
        first, second = await lines.next(), await lines.next()
        assert second["time"] - first["time"] >= 900
        lines.process.send_signal(signal.SIGINT)
        assert await lines.process.wait() == 0


async def test_top_once_in_a_terminal_draws_it_and_stays(node: Node) -> None:
    async with running_in_a_terminal("top", "--url", url_of(node), "--once") as top:
        assert await top.ended() == 0
        assert "a-node" in top.text
        assert BEGIN_ALTERNATE not in top.text


async def test_top_takes_an_api_key_where_there_is_one() -> None:
    async with running_node(KEY) as node:
        for shown in ({}, {"NOTIFYD_API_KEY": "another"}):
            refused = await run("top", "--url", url_of(node), "--once", **shown)
            assert (refused.returncode, refused.stdout) == (1, b"")
            assert b"give one of the node's API keys, by --api-key or NOTIFYD_API_KEY" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
        device = f"device://{node.device_address}"
        assert (await run("top", "--url", device, "--once", NOTIFYD_API_KEY=KEY)).returncode == 0


async def test_top_where_nothing_listens() -> None:
    done = await run("top", "--url", "ws://127.0.0.1:1")
    assert done.returncode == 1
    assert b"cannot reach ws://127.0.0.1:1" in done.stderr


async def test_the_tree_is_watched_in_a_terminal() -> None:
    async with running_node() as node:
        async with running_in_a_terminal("tree", "--watch", "--url", f"http://{node.http_address}") as tree:
            before = tree.modes()
            await tree.wait_for("listeners")
            await tree.wait_for(r"for [2-9]s")  # it was asked again
            assert BEGIN_ALTERNATE in tree.text
            await tree.press("q")
            assert await tree.ended() == 0
            assert tree.modes() == before
        program = running_in_a_terminal("tree", "--watch", "--url", f"http://{node.http_address}")
        async with program as tree:
            await tree.wait_for("listeners")
            await _stop_http(node)
            await tree.wait_for("NO ANSWER", anew=True)
            await tree.wait_for("listeners", anew=True)
            tree.process.send_signal(signal.SIGINT)
            assert await tree.ended() == 130


async def _stop_http(node: Node) -> None:
    (listeners,) = (child for child in node._root._children.values() if child.snapshot().name == "listeners")
    await listeners.stop("http")  # type: ignore[union-attr]


async def test_the_tree_is_watched_in_a_pipe(node: Node) -> None:
    async with lines_of("tree", "--watch", "--url", f"http://{node.http_address}") as lines:
        for _ in range(2):
            assert (await lines.next())["name"] == "node"
