"""`notifyd demo` as a newcomer runs it: in a pipe, in a terminal, with a port in use; and how it ends."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from notifyd.client import open_client
from protocol.messages import Message

pytestmark = pytest.mark.guard(30)

PROGRAM = (sys.executable, "-c", "from notifyd.cli import main; main()", "demo")
ANY_PORTS = ("--websocket", "0", "--device", "0", "--http", "0")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFYD_")}
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
        try:
            async for data in self._out:
                self.text += data.decode(errors="replace")
        except trio.BrokenResourceError:
            pass  # how a terminal ends


@asynccontextmanager
async def running(*arguments: str, stderr: int = subprocess.STDOUT) -> AsyncIterator[Demo]:
    command = [*PROGRAM, *ANY_PORTS, *arguments]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=stderr, env=ENVIRONMENT)
    assert process.stdout is not None
    try:
        yield Demo(process, process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def running_in_a_terminal(*arguments: str) -> AsyncIterator[Demo]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = await trio.lowlevel.open_process(
        [*PROGRAM, *ANY_PORTS, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ENVIRONMENT, "TERM": "xterm"},
    )
    os.close(theirs)
    async with trio.lowlevel.FdStream(ours) as stream:
        try:
            yield Demo(process, stream)
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
    async with running_in_a_terminal() as demo:
        await demo.wait_for("Ctrl-C ends")
        await demo.wait_for(r"every 1 s[^\n]*\d+\.\d\d ms")
        await demo.wait_for("metrics:")
        assert await demo.end(signal.SIGINT) < LEAVES_WITHIN_S
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
