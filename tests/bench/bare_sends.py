"""The counterpart of the fan-out: a bare loop of send(2), in C and in a process of its own, compiled for the run."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.bench.lines import read_line

SOURCE = Path(__file__).parent / "counterparts" / "fanout.c"
START_S = 60.0


class NoCompiler(Exception):
    """This machine has no C compiler."""

    def __init__(self) -> None:
        super().__init__("no C compiler: the fan-out is measured against a loop in C (Debian: apt-get install gcc)")


class BareSends:
    """The loop's process. It listens on `port`, and sends once as many connections have come as it was started for."""

    def __init__(self, process: trio.Process, port: int, connections: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.port = port
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._connections = connections

    async def connected(self) -> None:
        """Wait until all connections have come."""
        with trio.fail_after(START_S):
            assert await read_line(self._stdout) == b"ready"

    async def send(self, data: bytes) -> tuple[float, float]:
        """Send this on every connection; return the CPU time and the real time of each, in microseconds."""
        await self._stdin.send_all(b"%d\n%b" % (len(data), data))
        cpu_ns, real_ns = map(int, (await read_line(self._stdout)).split())
        return cpu_ns / self._connections / 1000, real_ns / self._connections / 1000


@asynccontextmanager
async def bare_sends(connections: int) -> AsyncIterator[BareSends]:
    """Compile the loop and run it for so many connections. Raises NoCompiler."""
    with TemporaryDirectory() as directory:
        program = Path(directory) / "fanout"
        await _compile(program)
        process = await trio.lowlevel.open_process(
            [str(program), str(connections)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            yield BareSends(process, int(await read_line(process.stdout)), connections)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _compile(program: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler
    await trio.run_process([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)])
