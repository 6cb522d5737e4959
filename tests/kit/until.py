"""Waiting for what other processes bring about: in real time, since nobody here can tell them to hurry."""

from collections.abc import Callable

import trio


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds. Raises trio.TooSlowError when it does not in time."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what it asks for has no event
            await trio.sleep(0.003)
