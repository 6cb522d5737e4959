"""The real-clock guard itself: the only tests that spend real time on purpose, some hundredths of a second."""

import signal
import time

import pytest
import trio

from tests.stuck import guarded

LIMIT_S = 0.02


async def waits_for_ever() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="the sleeper")


async def never_reaches_a_checkpoint() -> None:
    spins()


def spins() -> None:
    while True:
        time.sleep(0)


def test_a_quick_test_is_left_alone() -> None:
    with guarded("quick", 60):
        trio.run(trio.sleep, 0)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > LIMIT_S  # this very test's own guard is on again


def test_an_error_passes() -> None:
    with pytest.raises(ValueError, match="its own"), guarded("fails", 60):
        raise ValueError("its own")


def test_a_stuck_test_is_cancelled_and_shows_its_tasks() -> None:
    with (
        pytest.raises(pytest.fail.Exception, match="waits was stuck: not done after") as caught,
        guarded("waits", LIMIT_S),
    ):
        trio.run(waits_for_ever)
    assert "tests.test_stuck.waits_for_ever at tests/test_stuck.py" in str(caught.value)
    assert "\n  the sleeper at " in str(caught.value)


def test_what_cannot_be_cancelled_is_ended_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.stuck.GRACE_S", LIMIT_S)
    with pytest.raises(pytest.fail.Exception, match="never_reaches_a_checkpoint at") as caught, guarded("x", LIMIT_S):
        trio.run(never_reaches_a_checkpoint)
    assert "main thread at tests/test_stuck.py:" in str(caught.value)


def test_a_loop_outside_trio_is_ended_too() -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"main thread at tests/test_stuck.py:\d+"),
        guarded("spins", LIMIT_S),
    ):
        spins()
