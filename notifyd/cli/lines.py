"""Writing lines to a pipe or a terminal without holding up the event loop."""

import os
from contextlib import suppress

import trio

STDOUT = 1
CHUNK_BYTES = 4096
"""A pipe that can be written to takes so many bytes at once without blocking (PIPE_BUF, pipe(7))."""


class LineWriter:
    """Writes whole lines to a file descriptor, each flushed; one task at a time.

    A reader that does not read holds up only the tasks that write. Raises BrokenPipeError when the reader has gone.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn = trio.Lock()

    async def write(self, line: bytes | str) -> None:
        """Write a line. Cancelled, it may have been cut short."""
        left = memoryview((line if isinstance(line, bytes) else line.encode()) + b"\n")
        async with self._turn:
            while left:
                await self._wait_writable()
                with suppress(BlockingIOError):
                    left = left[os.write(self._descriptor, left[:CHUNK_BYTES]) :]

    async def _wait_writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._descriptor)
        except PermissionError:
            await trio.lowlevel.checkpoint()  # a file: it can always be written to, and epoll(7) does not watch it
