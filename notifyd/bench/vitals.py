"""What the server's processes use of the machine: read from /proc for a node of our own, else from its `/metrics`."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from resource import getpagesize
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import trio

from notifyd.errors import NotifydError

ASKED_EVERY_S = 1.0
METRICS_ANSWER_S = 5.0
MOST_ANSWER_BYTES = 4 * 2**20

_FIGURES = {
    "cpu": re.compile(rb"^process_cpu_seconds_total (\S+)$", re.MULTILINE),
    "memory": re.compile(rb"^process_resident_memory_bytes (\S+)$", re.MULTILINE),
}


class Usage(NamedTuple):
    """Seconds of CPU since the server began, and bytes of memory, at a moment of CLOCK_MONOTONIC (ns)."""

    at_ns: int
    cpu_s: float
    memory_bytes: int

    def share_since(self, earlier: "Usage | None") -> float | None:
        """Return the share of a core that was used since then."""
        if earlier is None or earlier.at_ns == self.at_ns:
            return None
        return (self.cpu_s - earlier.cpu_s) / (self.at_ns - earlier.at_ns) * 1e9


class Vitals:
    """How the server is. `pid` is its process, whose children count too; None where only `/metrics` tells."""

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid
        self._told: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """What is used now, or was when it was told last; None while nobody knows."""
        if self._pid is None:
            return self._told
        used = [part for pid in _family(self._pid) if (part := _process_usage(pid)) is not None]
        if not used:
            return None
        return Usage(time.monotonic_ns(), sum(cpu_s for cpu_s, _ in used), sum(size for _, size in used))

    async def follow(
        self, url: str, api_key: str | None = None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Ask `/metrics` of a node's HTTP listener again and again. Raises NotifydError when it does not answer."""
        while True:
            self._told = await _ask(url, api_key)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(ASKED_EVERY_S)


def _family(pid: int) -> Iterator[int]:
    """Yield a process and those below it: the workers of a node that has several."""
    yield pid
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _family(int(child))


def _process_usage(pid: int) -> tuple[float, int] | None:
    """Return CPU seconds and bytes of a process (proc(5): schedstat counts nanoseconds a thread, statm pages)."""
    try:
        threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
        cpu_ns = sum(int(thread.read_text().split()[0]) for thread in threads)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return cpu_ns / 1e9, pages * getpagesize()


async def _ask(url: str, api_key: str | None) -> Usage:
    parts = urlsplit(url)
    shown = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
    request = f"GET {parts.path.rstrip('/')}/metrics HTTP/1.0\r\nHost: {parts.netloc}\r\n{shown}\r\n"
    answer = b""
    try:
        with trio.fail_after(METRICS_ANSWER_S):
            async with await _dial(parts) as stream:
                await stream.send_all(request.encode())
                async for data in stream:
                    answer += data
                    if len(answer) > MOST_ANSWER_BYTES:
                        break
    except (OSError, ValueError, trio.BrokenResourceError, trio.TooSlowError):
        raise NotifydError(f"notifyd bench: no answer from {url}/metrics: is that the node's [listen] http?") from None
    if answer.split(b" ", 2)[1:2] in ([b"401"], [b"403"]):
        raise NotifydError(f"notifyd bench: {url} wants one of the node's API keys: give --api-key, or NOTIFYD_API_KEY")
    found = {name: figure.search(answer) for name, figure in _FIGURES.items()}
    cpu, memory = found["cpu"], found["memory"]
    if cpu is None or memory is None:
        status = answer.partition(b"\r\n")[0].decode(errors="replace")
        raise NotifydError(f"notifyd bench: {url}/metrics tells nothing of CPU and memory: {status[:100]}")
    return Usage(time.monotonic_ns(), float(cpu[1]), int(float(memory[1])))


async def _dial(parts: SplitResult) -> trio.abc.Stream:
    """Connect to a URL's host, by TLS where that says so. Raises OSError, and ValueError for a port that is none."""
    host = parts.hostname or ""
    if parts.scheme == "https":
        return await trio.open_ssl_over_tcp_stream(host, parts.port or 443, https_compatible=True)
    return await trio.open_tcp_stream(host, parts.port or 80)
