"""A terminal for tests: commands run one after the other in one shell, and some go on running beside it."""

import codecs
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

_END = "\x1e"
ENDING_S = 10.0
"""How long a program may take to end after Ctrl-C."""


class Running:
    """A program that goes on running; `shown` is what it has printed so far, to either output."""

    def __init__(self, process: trio.Process) -> None:
        self.shown = ""
        self.process = process
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may cut a character in two
        self._news = trio.Event()

    async def listen(self) -> None:
        """Take in what is printed, until the program closes its output."""
        assert self.process.stdout is not None
        async for piece in self.process.stdout:
            self.shown += self._decoder.decode(piece)
            self._tell()
        await self.process.wait()
        self._tell()

    async def until(self, condition: Callable[[str], bool]) -> None:
        """Wait until what was printed is as it should be; return at the program's end too."""
        while not condition(self.shown) and self.process.returncode is None:
            await self._news.wait()

    async def interrupt(self) -> None:
        """Press Ctrl-C and wait for the end."""
        self.process.send_signal(signal.SIGINT)
        with trio.fail_after(ENDING_S):
            await self.until(lambda _: False)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


class Terminal:
    """A shell whose variables last from one command to the next."""

    def __init__(self, shell: Running, folder: Path, nursery: trio.Nursery) -> None:
        self._shell = shell
        self._folder = folder
        self._nursery = nursery

    async def run(self, command: str) -> str:
        """Run a command to its end; return what it printed, to either output."""
        begin = len(self._shell.shown)
        assert self._shell.process.stdin is not None
        script = f"{{ {command}\n}} </dev/null 2>&1\nprintf '\\036'\n"
        await self._shell.process.stdin.send_all(script.encode())
        await self._shell.until(lambda shown: _END in shown[begin:])
        shown, ended, _ = self._shell.shown[begin:].partition(_END)
        assert ended, f"the shell itself ended at: {command}"
        return shown

    async def start(self, command: str) -> Running:
        """Start a command that goes on running, with the variables of the shell."""
        await self.run("export -p >.environment")
        arguments = ["bash", "-c", f". ./.environment; exec {command}"]
        return await _start(arguments, self._folder, os.environ, self._nursery)


@asynccontextmanager
async def open_terminal(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Terminal]:
    """Open a terminal in `folder`. What still runs at the end is killed, with all that it started."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        shell = await _start(["bash", "--noprofile", "--norc"], folder, environment, nursery)
        try:
            yield Terminal(shell, folder, nursery)
        except BaseException as error:
            failure = error  # raised below, where no nursery puts it into a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _start(arguments: list[str], folder: Path, environment: Mapping[str, str], nursery: trio.Nursery) -> Running:
    process = await trio.lowlevel.open_process(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
    )
    running = Running(process)
    nursery.start_soon(_keep, running)
    return running


async def _keep(running: Running) -> None:
    try:
        await running.listen()
        await trio.sleep_forever()
    finally:
        if running.process.returncode is None:
            os.killpg(running.process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + ENDING_S):
                await running.process.wait()
