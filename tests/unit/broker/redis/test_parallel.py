"""Many calls at once: in order, not too many, and with the first failure as it is."""

import pytest
import trio
import trio.testing

from notifyd.broker.redis.parallel import CALLS_AT_ONCE, for_each
from notifyd.errors import BrokerUnavailable


async def test_results_come_in_the_order_of_the_items(autojump_clock: trio.testing.MockClock) -> None:
    async def slower_for_small(number: int) -> int:
        await trio.sleep(1 / (number + 1))
        return number * number

    assert await for_each(slower_for_small, range(200)) == [number * number for number in range(200)]
    assert await for_each(slower_for_small, []) == []


async def test_only_so_many_run_at_once(autojump_clock: trio.testing.MockClock) -> None:
    running, most = 0, 0

    async def call(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    began_s = trio.current_time()
    await for_each(call, range(4 * CALLS_AT_ONCE))
    assert most == CALLS_AT_ONCE
    assert trio.current_time() - began_s == 4


async def test_the_first_failure_ends_the_others_and_is_raised_as_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    finished = []

    async def call(number: int) -> None:
        await trio.sleep(number)
        if number in (3, 4):
            raise BrokerUnavailable(f"call {number}")
        finished.append(number)

    with pytest.raises(BrokerUnavailable, match="call 3"):
        await for_each(call, range(10))
    await trio.sleep(20)
    assert finished == [0, 1, 2]


async def test_a_cancelled_caller_leaves_nothing_running(autojump_clock: trio.testing.MockClock) -> None:
    finished = []

    async def call(number: int) -> None:
        await trio.sleep(number)
        finished.append(number)

    with trio.move_on_after(2.5) as scope:
        await for_each(call, range(10))
    await trio.sleep(20)
    assert scope.cancelled_caught
    assert finished == [0, 1, 2]
