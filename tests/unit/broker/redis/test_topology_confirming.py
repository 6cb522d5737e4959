import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.broker.redis.topology.confirming import Confirmations
from notifyd.errors import BrokerUnavailable


class Replicas:
    """Answers WAIT after a tenth of a second, as long as they are there."""

    def __init__(self) -> None:
        self.waits: list[int] = []
        self.confirm: int | Exception = 1

    async def wait(self, replicas: int, wait_ms: int) -> int:
        self.waits.append(replicas)
        await trio.sleep(wait_ms / 1000)
        if isinstance(self.confirm, Exception):
            raise self.confirm
        return self.confirm


async def test_all_that_come_while_one_waits_share_the_next(autojump_clock: MockClock) -> None:
    replicas = Replicas()
    confirmations = Confirmations(replicas.wait, 100)
    answers: list[int] = []

    async def confirm() -> None:
        answers.append(await confirmations.confirmed(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(confirm)
        await wait_all_tasks_blocked()
        for _ in range(50):
            nursery.start_soon(confirm)
    assert answers == [1] * 51
    assert replicas.waits == [1, 1]
    assert trio.current_time() == pytest.approx(0.2)


async def test_a_wait_that_began_before_a_write_says_nothing_about_it(autojump_clock: MockClock) -> None:
    replicas = Replicas()
    confirmations = Confirmations(replicas.wait, 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(confirmations.confirmed, 1)
        await trio.sleep(0.05)
        replicas.confirm = 0  # as the replica was lost meanwhile
        assert await confirmations.confirmed(1) == 0
    assert len(replicas.waits) == 2


async def test_who_wants_more_replicas_asks_himself(autojump_clock: MockClock) -> None:
    replicas = Replicas()
    confirmations = Confirmations(replicas.wait, 100)
    async with trio.open_nursery() as nursery:
        for wanted in (1, 1, 2, 1):
            nursery.start_soon(confirmations.confirmed, wanted)
            await wait_all_tasks_blocked()
    assert replicas.waits == [1, 1, 2]


async def test_a_failure_or_a_cancellation_leaves_the_turn_to_the_next(autojump_clock: MockClock) -> None:
    replicas = Replicas()
    replicas.confirm = BrokerUnavailable("away")
    confirmations = Confirmations(replicas.wait, 100)
    with pytest.raises(BrokerUnavailable):
        await confirmations.confirmed(1)
    with trio.move_on_after(0.05):
        await confirmations.confirmed(1)
    replicas.confirm = 1
    assert await confirmations.confirmed(1) == 1
    assert len(replicas.waits) == 3
