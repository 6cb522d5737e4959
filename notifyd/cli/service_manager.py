"""What the service manager (systemd) is told of this process: that it serves, that it lives, reloads and stops.

It is a line of text in a datagram, so no library is needed; those there are bind libsystemd or were left long ago.

Source: sd_notify(3), sd_watchdog_enabled(3); spec/systemd/notifyd.service.
"""

import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import trio

DATAGRAM_S = 1.0
"""Whoever does not take a datagram within this time misses it: nothing here may wait for the service manager."""

STOP_MARGIN_S = 20.0
"""What a stop may take beyond the drain window: last bytes, workers that have to be killed, a goodbye to the broker."""


class ServiceManager:
    """The service manager that started this process. Where there is none, nothing is said and nothing fails.

    `beat_s` is how often it wants to hear that the process lives: half of what it waits for; 0 where it does not.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Find it by `NOTIFY_SOCKET`, a path or, with `@`, an abstract name (unix(7))."""
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name if name.startswith("/") else ""
        self.beat_s = _watchdog_s(environ) / 2 if self._address else 0.0

    async def tell(self, **fields: str | int) -> None:
        """Send fields of sd_notify(3), such as `READY=1`. Lost where nobody takes them."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with (
            contextlib.suppress(OSError),
            trio.move_on_after(DATAGRAM_S),
            trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending,
        ):
            await sending.connect(self._address)  # only then does the kernel tell when there is room
            await sending.send(text.encode())

    async def tell_stopping(self, drain_s: float) -> None:
        """Say that the process drains and ends, and how long that may take."""
        longest_us = int((drain_s + STOP_MARGIN_S) * 1_000_000)
        await self.tell(STOPPING=1, EXTEND_TIMEOUT_USEC=longest_us, STATUS="draining")

    @asynccontextmanager
    async def reloading(self) -> AsyncIterator[None]:
        """Say that the configuration is read again while the block runs, as Type=notify-reload wants it."""
        await self.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        yield
        await self.tell(READY=1)

    async def beat(self, answer: Callable[[], Awaitable[None]], status: Callable[[], str]) -> None:
        """Say again and again that the process lives, each time once `answer` returned. Returns where nobody listens.

        A loop that hangs says nothing, and is started again.
        """
        while self.beat_s:
            await answer()
            await self.tell(WATCHDOG=1, STATUS=status())
            await trio.sleep(self.beat_s)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """Return what the service manager waits for a beat of this process, in seconds; 0 where it wants none."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    is_ours = not pid or pid == str(os.getpid())
    return int(usec) / 1_000_000 if usec.isascii() and usec.isdecimal() and is_ours else 0.0
