"""Many calls at once, but not too many: for what is asked key by key, since in a Cluster each key has its own home."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

CALLS_AT_ONCE = 64
"""Enough to fill a link's writes, few enough to leave room for the node's other commands."""

T = TypeVar("T")
R = TypeVar("R")


async def for_each(call: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
    """Call `call` with every item; return the results in order.

    The first failure ends all other calls and is raised as it is.
    """
    results: dict[int, R] = {}
    failures: list[Exception] = []
    waiting = iter(enumerate(items))
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            for number, item in waiting:
                try:
                    results[number] = await call(item)
                except Exception as failure:
                    failures.append(failure)
                    nursery.cancel_scope.cancel()
                    return

        for _ in range(min(CALLS_AT_ONCE, len(items))):
            nursery.start_soon(work)
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(items))]
