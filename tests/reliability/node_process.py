"""A node in a process of its own, as an operator runs it, for tests that attack it from outside."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.reliability.raw_clients import let_go_of_all

STOP_S = 20.0
PAGE_BYTES = resource.getpagesize()


class NodeProcess:
    """A running `notifyd serve`: its ports, its memory, its log and its metrics."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.ports: dict[str, int] = {}
        self._serving = trio.Event()

    @property
    def resident_bytes(self) -> int:
        """What the node's process uses of the machine's memory now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    @property
    def descriptors(self) -> int:
        """How many descriptors the process holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        return [line for line in self.log if line["event"] == name]

    async def metric(self, name: str, **labels: str) -> float:
        """Read a number off `/metrics`: the sum over all labels that are not given."""
        text = await self.get("/metrics")
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"notifyd_{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    async def get(self, path: str) -> str:
        """GET from the HTTP listener; the body."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.ports["http"])
        async with stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join([part async for part in stream])
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            body = b"".join(re.split(rb"\r?\n?[0-9a-fA-F]+\r\n", body))
        return body.decode()

    async def follow_log(self) -> None:
        """Collect the log; a line that is not JSON is a traceback or a print, and fails the test."""
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.log.append(json.loads(line))
                if self.log[-1]["event"] == "serving":
                    addresses = {name: self.log[-1][name] for name in ("websocket", "device", "http")}
                    self.ports = {name: int(address.rpartition(":")[2]) for name, address in addresses.items()}
                    self._serving.set()

    async def wait_serving(self) -> None:
        with trio.fail_after(STOP_S):
            await self._serving.wait()


@asynccontextmanager
async def running_node(settings: Mapping[str, str] | None = None) -> AsyncIterator[NodeProcess]:
    """Run a node on free ports of loopback with anonymous access; `settings` are its environment, as in
    `{"LIMITS__HANDSHAKE": "2s"}`. It is stopped, and its exit code checked, at the end of the block."""
    environment = {
        **os.environ,
        "NOTIFYD_AUTH__ANONYMOUS": "true",
        "NOTIFYD_NODE__DRAIN": "100ms",
        **{f"NOTIFYD_{key}": value for key, value in (settings or {}).items()},
    }
    ports = ("--websocket", "127.0.0.1:0", "--device", "127.0.0.1:0", "--http", "127.0.0.1:0")
    command = [sys.executable, "-c", "from notifyd.cli import main; main()", "serve", *ports]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=environment)
    node = NodeProcess(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follow_log)
        try:
            await node.wait_serving()
            yield node
            assert node.is_running, "the node ended by itself"
            let_go_of_all()
            process.terminate()
            with trio.fail_after(STOP_S):
                await process.wait()
            assert process.returncode == 0
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
            nursery.cancel_scope.cancel()


def raise_descriptor_limit() -> None:
    """Let the test open as many sockets as the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
