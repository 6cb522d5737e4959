"""`notifyd demo` as a newcomer runs it: in a pipe, in a terminal, with a port in use; and how it ends."""

import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from notifyd.client import open_client
from protocol.messages import Message
from tests.kit.pty_program import ENVIRONMENT, NOTIFYD, running_in_a_terminal

pytestmark = pytest.mark.guard(30)

ANY_PORTS = ("--websocket", "0", "--device", "0", "--http", "0")
LEAVES_WITHIN_S = 3.0
"""A second on an idle machine; here others work too."""


class Demo:
    """A running demo and what it has written so far."""

    def __init__(self, process: trio.Process, out: trio.abc.ReceiveStream) -> None:
        self.process = process
        self.text = ""
        self._out = out

    async def wait_for(self, pattern: str) -> re.Match[str]:
        """Read on until a pattern has been written."""
        while not (found := re.search(pattern, self.text)):
            data = await self._out.receive_some()
            assert data, self.text
            self.text += data.decode(errors="replace")
        return found

    async def end(self, number: int) -> float:
        """Send a signal; return how long it took to leave with exit code 0, reading what is still written."""
        began_s = trio.current_time()
        self.process.send_signal(number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.read_on)
            assert await self.process.wait() == 0
        return trio.current_time() - began_s

    async def read_on(self) -> None:
        """Read whatever is still written."""
        async for data in self._out:
            self.text += data.decode(errors="replace")


@asynccontextmanager
async def running(*arguments: str, stderr: int = subprocess.STDOUT) -> AsyncIterator[Demo]:
    command = [*NOTIFYD, "demo", *ANY_PORTS, *arguments]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=stderr, env=ENVIRONMENT)
    assert process.stdout is not None
    try:
        yield Demo(process, process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_in_a_pipe(number: int) -> None:
    async with running() as demo:
        url = (await demo.wait_for(r"WebSocket  (ws://127\.0\.0\.1:\d+/ws)\n"))[1]
        await demo.wait_for(r"Devices    127\.0\.0\.1:\d+\n")
        console = (await demo.wait_for(r"Console    http://127\.0\.0\.1:(\d+)/\n"))[1]
        await demo.wait_for(rf"Try        notifyd subscribe metrics:\S+:load --url {url}\n")
        await demo.wait_for(r"device     load: connected\n")
        await demo.wait_for(r"heartbeat  load: round trip \d+\.\d\d ms, every 1 s\n")
        topic, data = (await demo.wait_for(r"message    (metrics:\S+:load) #1 (\{.*\})\n")).groups()
        assert set(json.loads(data)) == {"1m", "5m", "15m", "cpus"}
        for name in ("memory", "network", "disk"):
            await demo.wait_for(rf"message    metrics:\S+:{name} #1 \{{.*\}}\n")
        async with open_client(url) as client, client.subscribe(topic, since="earliest") as messages:
            event = await anext(messages)
            assert isinstance(event, Message)
            assert event.offset == 1
            stream = await trio.open_tcp_stream("127.0.0.1", int(console))
            await stream.aclose()
            assert await demo.end(number) < LEAVES_WITHIN_S
        assert re.search(r"Drained: all clients are gone, after \d+ messages and \d+ heartbeats\.\n$", demo.text)
        assert "Traceback" not in demo.text


async def test_in_a_terminal() -> None:
    async with running_in_a_terminal("demo", *ANY_PORTS) as demo:
        await demo.wait_for("Ctrl-C ends")
        await demo.wait_for(r"every 1 s[^\n]*\d+\.\d\d ms")
        await demo.wait_for("metrics:")
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended() == 0
        assert "Drained: all clients are gone" in demo.text
        assert "Traceback" not in demo.text


async def test_it_ends_when_nobody_reads() -> None:
    async with running(stderr=subprocess.PIPE) as demo:
        await demo.wait_for("message")
        assert demo.process.stdout is not None
        assert demo.process.stderr is not None
        await demo.process.stdout.aclose()
        assert await demo.process.wait() == 1
        assert b"".join([data async for data in demo.process.stderr]) == b""
