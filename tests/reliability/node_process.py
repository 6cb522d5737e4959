"""A node in a process of its own, as an operator runs it, for tests that attack it from outside."""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import trio

from tests.reliability.raw_clients import let_go_of_all

WAIT_S = 20.0
"""How long a node may take to start, to stop, or to come to rest: what takes longer has failed."""

POLL_S = 0.02
PAGE_BYTES = resource.getpagesize()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PORTS = ("--websocket", "127.0.0.1:0", "--device", "127.0.0.1:0", "--http", "127.0.0.1:0")


class NodeProcess:
    """A `notifyd serve`: its ports, its memory, its log and its metrics. With `api_key`, `get` shows it."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self.ports: dict[str, int] = {}
        self.api_key: str | None = None
        self._log_file = log
        self._log: list[dict[str, Any]] = []
        self._unfinished_line = b""

    # --- the process --------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def resident_bytes(self) -> int:
        """What the node's process uses of the machine's memory now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    @property
    def cpu_s(self) -> float:
        """The CPU that the process has used so far, in steps of 10 ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    @property
    def descriptors(self) -> int:
        """How many descriptors the process holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def steady_descriptors(self) -> int:
        """How many descriptors the process holds once those just let go of are closed."""
        counts = [-1]
        while len(set(counts[-5:])) > 1 or len(counts) < 6:
            counts.append(self.descriptors)
            await trio.sleep(0.05)
        return counts[-1]

    async def wait_descriptors(self, wanted: int, seconds: float = WAIT_S) -> None:
        """Wait until the process holds so many descriptors."""
        await wait_until(lambda: self.descriptors == wanted, seconds)
        assert self.descriptors == wanted, f"{self.descriptors} descriptors, not {wanted}, after {seconds:g} s"

    async def wait_ended(self, seconds: float = WAIT_S) -> int:
        """Wait until the process has ended; its exit code."""
        await wait_until(lambda: not self.is_running, seconds)
        assert not self.is_running, f"the node still runs after {seconds:g} s"
        return self.process.wait()

    # --- its log ------------------------------------------------------------------------------------------------------

    @property
    def log(self) -> list[dict[str, Any]]:
        """What was logged up to now. A line that is not JSON is a traceback or a print, and fails the test."""
        *lines, self._unfinished_line = (self._unfinished_line + self._log_file.read()).split(b"\n")
        self._log += map(_read_line, lines)
        return self._log

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The log lines that tell of a bug."""
        return [line for line in self.log if line["level"] == "error" or "traceback" in line]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        return [line for line in self.log if line["event"] == name]

    async def wait_logged(self, name: str, count: int = 1, seconds: float = WAIT_S) -> dict[str, Any]:
        """Wait until an event was logged so often; its last line."""
        await wait_until(lambda: len(self.events(name)) >= count, seconds)
        assert len(self.events(name)) >= count, f"{name} was logged {len(self.events(name))} times, not {count}"
        return self.events(name)[-1]

    # --- its HTTP side ------------------------------------------------------------------------------------------------

    async def metric(self, name: str, **labels: str) -> float:
        """Read a number off `/metrics`: the sum over all labels that are not given."""
        text = await self.get("/metrics")
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"notifyd_{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    async def wait_metric(self, name: str, wanted: float, seconds: float = WAIT_S, **labels: str) -> None:
        """Wait until a number of `/metrics` is what it should be."""
        found = None
        with trio.move_on_after(seconds):
            while (found := await self.metric(name, **labels)) != wanted:  # noqa: ASYNC110 - as in `wait_until`
                await trio.sleep(POLL_S)
        assert found == wanted, f"{name} is {found}, not {wanted}, after {seconds:g} s"

    async def get(self, path: str) -> str:
        """GET from the HTTP listener; the body."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.ports["http"])
        async with stream:
            key = "" if self.api_key is None else f"Authorization: Bearer {self.api_key}\r\n"
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}Connection: close\r\n\r\n".encode())
            answer = b"".join([part async for part in stream])
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            body = b"".join(re.split(rb"\r?\n?[0-9a-fA-F]+\r\n", body))
        return body.decode()

    # --- its beginning and its end ------------------------------------------------------------------------------------

    def wait_serving(self) -> None:
        """Wait until the node serves, and learn its ports."""
        began_s = time.monotonic()
        while not self.events("serving"):
            assert self.is_running, f"the node did not start: {self._unfinished_line or self._log}"
            assert time.monotonic() - began_s < WAIT_S, "the node does not come to serve"
            time.sleep(POLL_S)
        serving = self.events("serving")[0]
        listeners = [name for name in ("websocket", "device", "http") if name in serving]
        self.ports = {name: int(serving[name].rpartition(":")[2]) for name in listeners}

    def stop(self) -> None:
        """Stop the node as an operator does, if it still runs, and check that it ended well."""
        if self.is_running:
            self.process.terminate()
            assert self.process.wait(WAIT_S) == 0
        assert self.log, "nothing was logged"


def _read_line(line: bytes) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(line)
    except ValueError:
        raise AssertionError(f"this is no log line: {line.decode()}") from None
    return read


async def wait_until(condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
    """Wait until something outside of this process has come about, for so long at most."""
    with trio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110 - what another process does is no event of ours
            await trio.sleep(POLL_S)


@contextmanager
def started_node(settings: Mapping[str, str] | None = None, *, config: Path | None = None) -> Iterator[NodeProcess]:
    """Run a node on free ports of loopback with anonymous access; `settings` are its environment, as in
    `{"LIMITS__HANDSHAKE": "2s"}`, and `config` its file. It is stopped, and its exit code checked, at the end of the
    block; a test that ends it earlier waits for its exit code itself.

    For a fixture that several tests share; a single test has `running_node`."""
    environment = {
        **os.environ,
        "NOTIFYD_AUTH__ANONYMOUS": "true",
        "NOTIFYD_NODE__DRAIN": "100ms",
        **{f"NOTIFYD_{key}": value for key, value in (settings or {}).items()},
    }
    command = [sys.executable, "-c", "from notifyd.cli import main; main()", "serve", *PORTS]
    command += [] if config is None else ["--config", str(config)]
    with (
        tempfile.NamedTemporaryFile() as stderr,
        Path(stderr.name).open("rb") as log,
        subprocess.Popen(command, stderr=stderr, env=environment) as process,
    ):
        node = NodeProcess(process, log)
        try:
            node.wait_serving()
            yield node
            node.stop()
        finally:
            if node.is_running:
                process.kill()


@asynccontextmanager
async def running_node(
    settings: Mapping[str, str] | None = None, *, config: Path | None = None
) -> AsyncIterator[NodeProcess]:
    """Run a node for one test; see `started_node`. The test's clients are closed before the node stops."""
    with started_node(settings, config=config) as node:
        yield node
        assert node.is_running, "the node ended by itself"
        let_go_of_all()


def raise_descriptor_limit() -> None:
    """Let the test open as many sockets as the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
