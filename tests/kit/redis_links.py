"""A link that runs for the length of a block, under the smallest supervisor there can be."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from notifyd.broker.redis.dialing import dial_server
from notifyd.broker.redis.greeting import greeting
from notifyd.broker.redis.link import MOST_BYTES, MOST_COMMANDS, Dial, Greet, Link, LinkLost, ignore
from notifyd.broker.redis.target import Endpoint
from notifyd.events import Events
from tests.recorded_events import RecordedEvents

AGAIN_S = 0.05

OnPushes = Callable[[list[list[Any]]], None]


def make_link(
    dial: Dial,
    greet: Greet | None = None,
    *,
    deadline_s: float = 1.0,
    on_pushes: OnPushes = ignore,
    most_commands: int = MOST_COMMANDS,
    most_bytes: int = MOST_BYTES,
    events: Events | None = None,
) -> Link:
    """A link named "redis" that does not run yet."""
    return Link(
        "redis",
        dial,
        greet or greeting(),
        deadline_s=deadline_s,
        events=events or RecordedEvents(),
        on_pushes=on_pushes,
        most_commands=most_commands,
        most_bytes=most_bytes,
    )


def dial_port(port: int) -> Dial:
    """Connect to a port of this machine."""
    return dial_server(Endpoint("127.0.0.1", port))


@asynccontextmanager
async def running_link(
    dial: Dial,
    greet: Greet | None = None,
    *,
    deadline_s: float = 1.0,
    on_pushes: OnPushes = ignore,
    most_commands: int = MOST_COMMANDS,
    most_bytes: int = MOST_BYTES,
    again: bool = False,
) -> AsyncIterator[Link]:
    """Run a link and wait until it is up. `again`: run it again whenever it was lost; else it stays down.

    Raises LinkLost where it does not come up at first.
    """
    link = make_link(
        dial, greet, deadline_s=deadline_s, on_pushes=on_pushes, most_commands=most_commands, most_bytes=most_bytes
    )

    async def run(task_status: trio.TaskStatus[None]) -> None:
        try:
            await link.run(task_status=task_status)
        except LinkLost:
            if link.server is None:
                raise
        while again:
            await trio.sleep(AGAIN_S)
            with suppress(LinkLost):
                await link.run()

    failure: LinkLost | None = None
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(run)
        except LinkLost as error:
            failure = error
        else:
            yield link
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
