"""The watch over the loops of all tests: only the processor's time counts, and whoever used it is named."""

import time

import pytest
import trio

from tests.long_steps import no_long_steps

LIMIT_S = 0.05


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.long_steps.LONG_STEP_S", LIMIT_S)
    monkeypatch.setattr("tests.long_steps.TEST_STEP_S", 4 * LIMIT_S)


def works(cpu_s: float) -> None:
    began_s = time.thread_time()
    while time.thread_time() < began_s + cpu_s:
        pass


async def works_and_waits(cpu_s: float) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0)
        works(cpu_s)


async def has_a_task_that_works(cpu_s: float) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(works_and_waits, cpu_s, name="the worker")


def test_a_task_that_works_for_long_is_named() -> None:
    with pytest.raises(pytest.fail.Exception) as caught, no_long_steps("the test"):
        trio.run(has_a_task_that_works, LIMIT_S + 0.01)
    assert "the test: checkpoints are missing" in str(caught.value)
    assert "the worker held the loop for 0.0" in str(caught.value)
    assert "up to tests.test_long_steps.works_and_waits:" in str(caught.value)


async def test_whoever_waits_without_a_checkpoint_is_left_alone() -> None:
    time.sleep(4 * LIMIT_S + 0.01)  # noqa: ASYNC251 - as on a machine that others use


async def test_a_tests_own_task_may_work_for_longer() -> None:
    works(2 * LIMIT_S)


def test_an_error_passes() -> None:
    with pytest.raises(ValueError, match="its own"), no_long_steps("the test"):
        raise ValueError("its own")


def test_what_an_earlier_test_left_is_not_this_ones() -> None:
    trio.run(works_and_waits, LIMIT_S + 0.01)
    with no_long_steps("the test"):
        trio.run(trio.sleep, 0)
