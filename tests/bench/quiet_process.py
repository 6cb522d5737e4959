"""Runs `tests.bench.quiet`, and the nodes that thousands come to."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.bench.lines import read_line

MANY = {
    "LIMITS__CONNECTIONS": "{ limit = 40000, resume = 39000 }",
    "LIMITS__CONNECTS": "{ rate = 20000.0, burst = 20000 }",
}
"""A node's settings under which nobody waits at its door."""

COMMAND_S = 300.0
LEAVE_S = 10.0


class QuietProcess:
    """The process of `tests.bench.quiet`."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def do(self, *command: object) -> str:
        """Give a command, and return what is said once it is done."""
        await self._stdin.send_all(" ".join(map(str, command)).encode() + b"\n")
        with trio.fail_after(COMMAND_S):
            return (await read_line(self._stdout)).decode()


@asynccontextmanager
async def open_quiet() -> AsyncIterator[QuietProcess]:
    """Run it with nobody connected yet; at the end of the block all its clients leave."""
    command = [sys.executable, "-m", "tests.bench.quiet"]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield QuietProcess(process)
    finally:
        process.kill()
        with trio.move_on_after(LEAVE_S, shield=True):
            await process.wait()


def cpu_us(pid: int) -> float:
    """Return the CPU time of a process's only busy thread (proc(5): schedstat counts in nanoseconds)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000
