"""What is said to the service manager, and that nothing of it ever stands in the way."""

import contextlib
import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from notifyd.cli.service_manager import DATAGRAM_S, ServiceManager
from tests.kit.notify_socket import NotifySocket


@pytest.fixture
def listening(tmp_path: Path) -> NotifySocket:
    return NotifySocket(str(tmp_path / "notify"))


@pytest.mark.parametrize("name", ["", "/nowhere/notify", "@notifyd-test-nobody", "vsock:2:1234", "relative"])
async def test_without_a_listener_nothing_fails(name: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    await manager.tell(READY=1)
    async with manager.reloading():
        pass
    await manager.tell_stopping(5)


async def test_one_that_takes_nothing_is_not_waited_for(listening: NotifySocket, autojump_clock: MockClock) -> None:
    with listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filling.sendto(b"X=1", listening.name)
        began_s = trio.current_time()
        await ServiceManager({"NOTIFY_SOCKET": listening.name}).tell(READY=1)
        assert trio.current_time() - began_s == pytest.approx(DATAGRAM_S)
        assert listening.forget() > 0


@pytest.mark.parametrize(
    ("environ", "beat_s"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid() + 1)}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "-1"}, 0),
        ({"WATCHDOG_USEC": "3000000", "NOTIFY_SOCKET": ""}, 0),
    ],
)
def test_it_beats_at_half_of_what_is_waited_for(environ: dict[str, str], beat_s: float) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/run/notify", **environ}).beat_s == beat_s


async def test_a_beat_waits_for_its_answer(listening: NotifySocket, autojump_clock: MockClock) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": listening.name, "WATCHDOG_USEC": "20000000"})
    answers_after_s = [0.0, 3.0, 60.0]

    async def answer() -> None:
        await trio.sleep(answers_after_s.pop(0))

    with listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.beat, answer, lambda: "well")
            for told_s in (0.0, 13.0, 83.0):
                await trio.sleep_until(told_s - 0.5 if told_s else told_s)
                assert listening.forget() == 0
                await trio.sleep(1)
                assert listening.forget() == 1
                if not answers_after_s:
                    nursery.cancel_scope.cancel()


async def test_where_nobody_wants_beats_there_are_none() -> None:
    with trio.fail_after(5):
        await ServiceManager({"WATCHDOG_USEC": "1"}).beat(trio.sleep_forever, lambda: "")
