"""`notifyd publish` and `notifyd subscribe` as processes of their own, against a node."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from notifyd.node import Node, open_node
from notifyd.settings import Access, Address, Settings, TopicPolicy
from protocol.messages import Message
from protocol.topics import Pattern

pytestmark = pytest.mark.guard(30)

PROGRAM = (sys.executable, "-c", "from notifyd.cli import main; main()")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFYD_")}


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    any_port = Address("127.0.0.1", 0)
    settings = Settings.demo()
    listen = msgspec.structs.replace(settings.listen, websocket=any_port, device=any_port, http=None)
    closed = TopicPolicy(match=Pattern("closed"), subscribe=Access.SERVICE)
    async with open_node(msgspec.structs.replace(settings, listen=listen, topics=(closed,))) as node:
        yield node


def urls(node: Node) -> list[str]:
    return [f"ws://{node.websocket_address}/ws", f"device://{node.device_address}"]


async def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command to its end; return its code and what it wrote."""
    done = await trio.run_process(
        [*PROGRAM, *arguments], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode is not None
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Subscriber:
    """A running `notifyd subscribe`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._out = Lines(process.stdout)
        self._err = Lines(process.stderr)

    async def line(self) -> Any:
        return json.loads(await self._out.line())

    async def status(self) -> str:
        return await self._err.line()

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        code: int = await self.process.wait()
        return code


class Lines:
    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def line(self) -> str:
        while b"\n" not in self._rest:
            data = await self._stream.receive_some()
            assert data, f"the process ended: {self._rest!r}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def subscriber(*arguments: str) -> AsyncIterator[Subscriber]:
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "subscribe", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    try:
        yield Subscriber(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def subscribed(node: Node, topics: Sequence[str]) -> None:
    """Wait until somebody is subscribed to all of these."""
    with trio.fail_after(10):
        while not all(topic in node.context.hub.registry.topics for topic in topics):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_publish_prints_the_position(node: Node) -> None:
    for offset, url in enumerate(urls(node), start=1):
        code, out, err = await run("publish", "a:b", '{"text":"hé"}', "--url", url)
        assert (code, err) == (0, "")
        position = json.loads(out)
        assert (position["topic"], position["offset"]) == ("a:b", offset)
        assert position["epoch"]
    page = await node.context.hub.history("a:b", "earliest", 10)
    assert [message.data for message in page.messages] == [{"text": "hé"}] * 2


async def test_publish_reads_stdin_and_the_same_key_is_published_once(node: Node) -> None:
    for _ in range(2):
        code, out, _ = await run("publish", "a", "-", "--key", "k", "--url", urls(node)[0], stdin=b"[1,2]")
        assert (code, json.loads(out)["offset"]) == (0, 1)


async def test_publish_tells_what_was_refused(node: Node) -> None:
    assert await run("publish", "$a", "1", "--url", urls(node)[0]) == (
        1,
        "",
        "notifyd publish: 403 forbidden: not allowed to publish to '$a'\n",
    )


async def test_subscribe_prints_messages_until_interrupted(node: Node) -> None:
    hub = node.context.hub
    await hub.publish("a", "before")
    for number, url, other in zip((signal.SIGINT, signal.SIGTERM), urls(node), ("b", "c"), strict=True):
        async with subscriber("a", other, "a", "--since", "earliest", "--url", url) as process:
            assert (await process.status()).startswith(f"connected to {url}, session ")
            assert (await process.line())["data"] == "before"
            await subscribed(node, ["a", other])
            await hub.publish(other, {"text": "hé"})
            line = await process.line()
            assert (line["op"], line["topic"], line["data"]) == ("message", other, {"text": "hé"})
            assert await process.end(number) == 0


async def test_subscribe_goes_on_after_a_position_and_over_a_kick(node: Node) -> None:
    hub = node.context.hub
    positions = [(await hub.publish("a", number)).position for number in range(3)]
    assert positions[0] is not None
    since = f"{positions[0].epoch}:{positions[0].offset}"
    async with subscriber("a", "--since", since, "--url", urls(node)[0]) as process:
        await process.status()
        assert [(await process.line())["data"] for _ in range(2)] == [1, 2]
        for connection in list(node.context.connections):
            connection.stream.close()
        assert (await process.status()) == "backing off: the server closed the connection"
        await hub.publish("a", 3)
        assert (await process.status()).startswith("connected to")
        assert (await process.line())["data"] == 3
        assert await process.end(signal.SIGINT) == 0


async def test_subscribe_prints_gaps(node: Node) -> None:
    async with subscriber("a", "--since", "other-epoch:7", "--url", urls(node)[0]) as process:
        await node.context.hub.publish("a", 1)
        await process.status()
        line = await process.line()
        assert (line["op"], line["reason"], line["to"]) == ("gap", "epoch", 1)
        assert await process.end(signal.SIGTERM) == 0


async def test_subscribe_ends_when_nobody_reads(node: Node) -> None:
    async with subscriber("a", "--url", urls(node)[0]) as process:
        await subscribed(node, ["a"])
        assert process.process.stdout is not None
        await process.process.stdout.aclose()
        await node.context.hub.publish("a", 1)
        assert await process.process.wait() == 1
        assert process.process.stderr is not None
        told = b"".join([data async for data in process.process.stderr]).decode()
        assert told.startswith("connected to ")
        assert len(told.splitlines()) == 1


async def test_a_reader_that_does_not_read_does_not_stop_the_heartbeats(node: Node) -> None:
    """More than a pipe holds waits to be printed; meanwhile Ctrl-C still works."""
    async with subscriber("a", "--url", urls(node)[1]) as process:
        await subscribed(node, ["a"])
        for _ in range(10):
            await node.context.hub.publish("a", "x" * 50_000)
        await trio.testing.wait_all_tasks_blocked()
        assert await process.end(signal.SIGINT) == 0


async def test_subscribe_writes_into_a_file(node: Node, tmp_path: Path) -> None:
    await node.context.hub.publish("a", 1)
    with (tmp_path / "out").open("wb") as file:
        process = await trio.lowlevel.open_process(
            [*PROGRAM, "subscribe", "a", "--since", "earliest", "--url", urls(node)[0]],
            stdout=file,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
    with trio.fail_after(10):
        while not (tmp_path / "out").read_bytes().endswith(b"\n"):  # noqa: ASYNC110
            await trio.sleep(0.02)
    process.terminate()
    assert await process.wait() == 0
    message = msgspec.json.decode((tmp_path / "out").read_bytes(), type=Message)
    assert message.data == 1


async def test_subscribe_tells_what_was_refused(node: Node) -> None:
    code, out, err = await run("subscribe", "closed", "--url", urls(node)[0])
    assert (code, out) == (1, "")
    assert "notifyd subscribe closed: 403 forbidden: not allowed to subscribe to 'closed'\n" in err


async def test_a_bad_token_is_told(node: Node) -> None:
    for command in (["publish", "a", "1"], ["subscribe", "a"]):
        code, out, err = await run(*command, "--url", urls(node)[0], "--token", "nonsense")
        assert (code, out) == (1, "")
        assert "4001 unauthorized" in err
        assert "`notifyd token` makes one" in err
        assert len(err.splitlines()) == 1
