"""A program in a real terminal: what it draws, keys that are pressed, a window that changes its size.

async with running_in_a_terminal("top", "--url", url) as program:
    await program.wait_for("serving")
    await program.press("q")
    assert await program.ended() == 0
"""

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

NOTIFYD = (sys.executable, "-c", "from notifyd.cli import main; main()")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFYD_")}
ENDING_S = 15.0


class PtyProgram:
    """`text` is all that the program has written so far, with the terminal's control sequences in it."""

    def __init__(self, process: trio.Process, terminal: int, stream: trio.lowlevel.FdStream) -> None:
        self.process = process
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may cut a character in two
        self._terminal = terminal
        self._stream = stream

    async def wait_for(self, pattern: str, *, anew: bool = False) -> re.Match[str]:
        """Read on until a pattern has been written; `anew`: from now on."""
        begin = len(self.text) if anew else 0
        while not (found := re.search(pattern, self.text[begin:])):
            await self._read(pattern)
        return found

    async def _read(self, pattern: str) -> None:
        data = await self._stream.receive_some()
        assert data, f"it ended without {pattern!r}: {self.text}"
        self.text += self._decoder.decode(data)

    async def press(self, keys: str) -> None:
        """Press keys."""
        await self._stream.send_all(keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        """Change the size of the window; the kernel tells the program (SIGWINCH)."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def modes(self) -> list[Any]:
        """How the terminal treats keys now."""
        return termios.tcgetattr(self._terminal)

    async def ended(self) -> int:
        """Read what is still written until the program has ended; its exit code."""
        code: int | None = None
        with trio.move_on_after(ENDING_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_rest)
                code = await self.process.wait()
                nursery.cancel_scope.deadline = trio.current_time() + 0.5
        assert code is not None, f"it has not ended within {ENDING_S:g} s: {self.text[-3000:]!r}"
        return code

    async def _read_rest(self) -> None:
        try:
            async for data in self._stream:
                self.text += self._decoder.decode(data)
        except trio.BrokenResourceError:
            pass  # how a terminal ends


def _heed_interrupts() -> None:
    """Heed SIGINT, as a terminal's programs do: what a shell runs in the background, such as tests, ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def running_in_a_terminal(
    *arguments: str, lines: int = 40, columns: int = 120, environment: Mapping[str, str] | None = None
) -> AsyncIterator[PtyProgram]:
    """Run `notifyd` with these arguments in a terminal of its own for the length of the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = await trio.lowlevel.open_process(
        [*NOTIFYD, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ENVIRONMENT, "TERM": "xterm", **(environment or {})},
        preexec_fn=_heed_interrupts,
    )
    try:
        async with trio.lowlevel.FdStream(ours) as stream:
            try:
                yield PtyProgram(process, theirs, stream)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    finally:
        os.close(theirs)
