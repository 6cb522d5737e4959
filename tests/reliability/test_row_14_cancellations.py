"""RELIABILITY row 14: Redis calls cancelled at any moment, through a proxy that delays and resets.

Every command carries a number that its reply brings back, so that a reply in wrong hands is seen. Half of the callers
are cancelled after a random time; the other half, the innocent ones, may get an error only where the connection was
really reset under them.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from redis.exceptions import ResponseError

from notifyd.broker.redis.greeting import greeting
from notifyd.broker.redis.link import Link, LinkLost
from notifyd.errors import BrokerUnavailable
from tests.kit.redis_links import dial_port
from tests.kit.redis_process import RedisServer
from tests.kit.tcp_proxy import TcpProxy, open_proxy
from tests.recorded_events import RecordedEvents

CALLERS = 200
DELAY_MS, JITTER_MS = 1.0, 4.0
LONGEST_PATIENCE_S = 0.05
BETWEEN_RESETS_S = 0.25
AGAIN_S = 0.02


class Storm:
    """Callers of one link, and a count of what became of their calls."""

    def __init__(self, link: Link, pushes: list[list[Any]], cancellations: int, seed: int) -> None:
        self.link = link
        self.pushes = pushes
        self.left = cancellations
        self.cancelled = self.answered = self.reset = self.resets = 0
        self.losses: list[str] = []
        self.wronged: list[str] = []
        self._dice = random.Random(seed)
        self._numbers = 0

    # --- the link and what happens to it ------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        while True:
            try:
                await self.link.run()
            except LinkLost as lost:
                self.losses.append(str(lost))
            await trio.sleep(AGAIN_S)

    async def reset_now_and_then(self, proxy: TcpProxy) -> None:
        while True:
            await trio.sleep(self._dice.uniform(0.5, 1.5) * BETWEEN_RESETS_S)
            if self.link.is_up:
                self.resets += proxy.cut()

    # --- callers ------------------------------------------------------------------------------------------------------

    async def call_again_and_again(self, innocent: bool) -> None:
        while self.left > 0:
            await self.link.wait_up()
            patience_s = float("inf") if innocent else self._dice.uniform(0, LONGEST_PATIENCE_S)
            call = self._dice.choice(CALLS)
            losses = len(self.losses)
            with trio.move_on_after(patience_s) as scope:
                await self.call(call, losses)
            if scope.cancelled_caught:
                self.cancelled += 1
                self.left -= 1

    async def call(self, call: Callable[[Link, int], Any], losses: int) -> None:
        self._numbers += 1
        try:
            await call(self.link, self._numbers)
        except BrokerUnavailable as failure:
            if self.link.is_up and len(self.losses) == losses:
                self.wronged.append(str(failure))
            self.reset += 1
        else:
            self.answered += 1


async def echo(link: Link, number: int) -> None:
    assert await link.execute("ECHO", f"number {number}") == b"number %d" % number


async def large_echo(link: Link, number: int) -> None:
    assert await link.execute("ECHO", f"{number} " * 4000) == b"%d " % number * 4000


async def count(link: Link, number: int) -> None:
    assert await link.execute("EVAL", "return tonumber(ARGV[1])", 0, number) == number


async def fail(link: Link, number: int) -> None:
    with pytest.raises(ResponseError, match=f"number {number}$"):
        await link.execute("EVAL", "return redis.error_reply('ERR number ' .. ARGV[1])", 0, number)


async def write_and_read(link: Link, number: int) -> None:
    replies = await link.execute_all(
        [("SET", f"key{number}", number), ("GET", f"key{number}"), ("NONSENSE",), ("DEL", f"key{number}")]
    )
    assert replies[:2] == [b"OK", b"%d" % number]
    assert isinstance(replies[2], ResponseError)
    assert replies[3] == 1


async def listen(link: Link, number: int) -> None:
    await link.subscribe("SUBSCRIBE", [f"channel{number}", "all"])
    assert await link.execute("PUBLISH", f"channel{number}", number) == 1
    await link.subscribe("UNSUBSCRIBE", [f"channel{number}"])


CALLS = (echo, echo, large_echo, count, fail, write_and_read, listen)


async def weather(port: int, cancellations: int, seed: int) -> Storm:
    """Let the storm blow until so many calls were cancelled; then the link has to be as new."""
    async with open_proxy(port, seed) as proxy, trio.open_nursery() as nursery:
        pushes: list[list[Any]] = []
        proxy.delay_ms, proxy.jitter_ms = DELAY_MS, JITTER_MS
        link = Link(
            "redis",
            dial_port(proxy.port),
            greeting(),
            deadline_s=5.0,
            events=RecordedEvents(),
            on_pushes=pushes.extend,
        )
        storm = Storm(link, pushes, cancellations, seed)
        nursery.start_soon(storm.keep_up)
        await link.wait_up()
        async with trio.open_nursery() as storming:
            storming.start_soon(storm.reset_now_and_then, proxy)
            async with trio.open_nursery() as calling:
                for number in range(CALLERS):
                    calling.start_soon(storm.call_again_and_again, number % 2 == 0)
            storming.cancel_scope.cancel()
        await link.wait_up()
        await echo(link, 0)
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)
        nursery.cancel_scope.cancel()
    return storm


def check(storm: Storm, cancellations: int) -> None:
    assert storm.cancelled >= cancellations
    assert storm.answered >= cancellations / 10
    assert any(push[0] == b"message" for push in storm.pushes)
    assert storm.resets >= 5
    assert len(storm.losses) <= storm.resets
    assert storm.wronged == []
    assert [lost for lost in storm.losses if "connection" not in lost] == []


@pytest.mark.guard(120)
async def test_cancelled_calls_hand_no_reply_to_anybody_else(
    redis_server: RedisServer, report: Callable[[str], None]
) -> None:
    storm = await weather(redis_server.port, 5_000, seed=14)
    check(storm, 5_000)
    report(told(storm))


@pytest.mark.long
async def test_fifty_thousand_cancelled_calls(redis_server: RedisServer, report: Callable[[str], None]) -> None:
    storm = await weather(redis_server.port, 50_000, seed=1414)
    check(storm, 50_000)
    report(told(storm))


def told(storm: Storm) -> str:
    return (
        f"row 14: {storm.cancelled} calls cancelled, {storm.answered} answered rightly, {storm.resets} resets, "
        f"{storm.reset} calls told of one; no wrong answer"
    )
