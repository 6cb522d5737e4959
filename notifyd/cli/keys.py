"""Single keys from a terminal, for commands that go on until told to end."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import trio

_STDIN = 0
QUIT_KEYS = frozenset(b"qQ\x04")
"""q, and Ctrl-D as in every program that reads."""

KEY_BYTES = 64


@contextmanager
def keys_at_once() -> Iterator[None]:
    """Let keys come as they are pressed, unseen, while the block runs. Without a terminal nothing comes."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(_STDIN)
    tty.setcbreak(_STDIN)
    try:
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)


async def wait_quit() -> None:
    """Wait until somebody presses a key that ends; for ever without a terminal."""
    if not sys.stdin.isatty():
        await trio.sleep_forever()
    while True:
        await trio.lowlevel.wait_readable(_STDIN)
        if _is_quit(os.read(_STDIN, KEY_BYTES)):
            return


def is_quit_pressed(wait_s: float) -> bool:
    """Wait for so long, and tell whether a key that ends was pressed meanwhile; blocks."""
    if not sys.stdin.isatty():
        time.sleep(wait_s)
        return False
    deadline_s = time.monotonic() + wait_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        if select.select([_STDIN], [], [], left_s)[0] and _is_quit(os.read(_STDIN, KEY_BYTES)):
            return True
    return False


def _is_quit(pressed: bytes) -> bool:
    return not pressed or bool(QUIT_KEYS.intersection(pressed))
