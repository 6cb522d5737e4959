"""What notifyd is measured against, each in a process of its own, driven over its stdin."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

COUNTERPARTS = Path(__file__).parent / "counterparts"
START_S = 20.0


class Counterpart:
    """A running process that answers a line with a line."""

    def __init__(self, process: trio.Process, first_line: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        self.first_line = first_line
        self._stdin, self._stdout = process.stdin, process.stdout

    async def ask(self, *words: object) -> bytes:
        """Send words as one line, and wait for the line that comes for it."""
        await self.tell(" ".join(map(str, words)).encode() + b"\n")
        return await self.line()

    async def tell(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._stdin.send_all(data)

    async def line(self) -> bytes:
        """Wait for the next line that comes."""
        return await read_line(self._stdout)


async def read_line(stdout: trio.abc.ReceiveStream) -> bytes:
    """Read one line, which may come in pieces, without its end. Raises AssertionError when the process ends before."""
    line = b""
    while not line.endswith(b"\n"):
        piece = await stdout.receive_some()
        assert piece, f"the process ended after saying {line!r}"
        line += piece
    return line.rstrip()


@asynccontextmanager
async def running(
    command: Sequence[object], *, start_s: float = START_S, cores: Collection[int] = (), **environment: str
) -> AsyncIterator[Counterpart]:
    """Run a process, on these cores alone where some are named, from its first line, for which it has `start_s`.

    It is killed at the end of the block.
    """
    process = await trio.lowlevel.open_process(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        with trio.fail_after(start_s):
            line = await read_line(process.stdout)
        yield Counterpart(process, line)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def compiled(source: str, folder: Path) -> Path:
    """Compile a counterpart written in C into `folder`. Raises SystemExit where there is no compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise SystemExit(f"{COUNTERPARTS / source} needs a C compiler: cc, or what CC names. Install gcc.")
    program = folder / source.removesuffix(".c")
    subprocess.run([compiler, "-O2", "-o", program, COUNTERPARTS / source], check=True)
    return program


def cpu_us(pid: int) -> float:
    """Return the CPU time of a process's only busy thread (proc(5): schedstat counts in nanoseconds)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000
