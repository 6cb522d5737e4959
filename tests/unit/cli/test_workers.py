"""The parent of a node's workers, with stand-ins for them; what each worker gets; what both say to each other."""

import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from notifyd.cli.serve import worker_command
from notifyd.cli.service_manager import ServiceManager
from notifyd.cli.workers import parent, process
from notifyd.cli.workers.channel import Channel, ChannelBroken, Drain, Order, Reload, Report, Start, Stop
from notifyd.cli.workers.parent import Workers, WorkersFailed, reserved, run_workers
from notifyd.cli.workers.process import WorkerFailed
from notifyd.cli.workers.share import share_of
from notifyd.errors import ConfigurationError, ListenError, NotifydError
from notifyd.listeners.accept import address_of, bind
from notifyd.settings import Address, ConnectionLimit, Layers, LimitSettings, ListenSettings, NodeSettings, Settings
from notifyd.supervision import unwrapped
from protocol.backoff import Backoff
from tests.kit import stand_in_worker
from tests.kit.until import until
from tests.recorded_events import RecordedEvents
from tests.unit.cli.command_line import Run

ROOT = Path(__file__).parents[3]
ANY_PORT = Address("127.0.0.1", 0)


def settings_with(workers: int = 2, *, payload_bytes: int = 1000) -> Settings:
    return Settings(
        node=NodeSettings(name="n", workers=workers, drain_s=0.0),
        listen=ListenSettings(websocket=ANY_PORT, device=None, http=ANY_PORT),
        limits=LimitSettings(payload_bytes=payload_bytes),
    )


class Parent:
    """Workers whose processes are stand-ins, each behaving as it is told to."""

    def __init__(self, directory: Path, events: RecordedEvents, behaviours: tuple[str, ...]) -> None:
        self._directory = directory
        self._events = events
        self.behaviours = behaviours
        self.workers = Workers(Layers.of(settings_with(len(behaviours))), {}, events, command=self.command)

    def told(self, number: int) -> list[str]:
        """Return what a worker, and those that replaced it, say that they were told."""
        file = self._directory / str(number)
        return file.read_text().splitlines() if file.exists() else []

    def pids(self, number: int) -> list[int]:
        """Return the processes that came to serve as this worker, the newest last."""
        return [line["process"] for line in self._events.logged("worker_serving") if line["worker"] == number]

    def begun(self) -> dict[int, list[int]]:
        """Return, by worker, the processes that came to their first act, whatever became of them."""
        files = {number: self._directory / f"{number}.pids" for number in range(1, len(self.behaviours) + 1)}
        return {number: [*map(int, file.read_text().split())] for number, file in files.items() if file.exists()}

    def failures(self) -> list[str]:
        """Return what was logged of workers that died."""
        return [line["error"] for line in self._events.logged("service_failed")]

    def command(self, number: int) -> list[str]:
        """Return what starts a worker."""
        behaviour = self.behaviours[number - 1]
        return [sys.executable, stand_in_worker.__file__, behaviour, str(self._directory / str(number))]


Starting = Callable[..., AbstractAsyncContextManager[Parent]]


@pytest.fixture
def running(tmp_path: Path, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch) -> Starting:
    """Runs workers that behave like this; where `serving`, they all serve, and are told to end with the block."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    @asynccontextmanager
    async def run(*behaviours: str, serving: bool = True) -> AsyncIterator[Parent]:
        started = Parent(tmp_path, events, behaviours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started.workers.run)
            if serving:
                await until(lambda: events.logged("serving"))
            yield started
            if not started.workers.draining:
                started.workers.drain()

    return run


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the parent wait only a moment for those that do not end."""
    monkeypatch.setattr(parent, "MARGIN_S", 0.3)
    monkeypatch.setattr(process, "STOP_S", 0.3)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- starting ---------------------------------------------------------------------------------------------------------


async def test_all_workers_start_and_one_line_tells_that_they_serve(running: Starting, events: RecordedEvents) -> None:
    async with running("obey", "obey", "obey") as started:
        assert events.logged("serving") == [{"node": "n", "workers": 3}]
        nodes = {line["worker"]: line["node"] for line in events.logged("worker_serving")}
        assert nodes == {1: "n-1", 2: "n-2", 3: "n-3"}
        assert all(started.told(number) == [f"Start n-{number} 1000"] for number in (1, 2, 3))
        pids = [started.pids(number)[0] for number in (1, 2, 3)]
    assert not any(map(is_alive, pids))
    assert started.workers.problems() == []


@pytest.mark.parametrize(
    ("behaviours", "problem", "begun"),
    [
        (("fail", "obey", "obey"), "the disk of worker and parent is full", {1}),
        (("obey", "fail", "obey"), "the disk of worker and parent is full", {1, 2, 3}),
        (("crash", "crash"), r"worker 1 \(process \d+\) ended with exit code 3 before it served", {1}),
        (("ramble", "obey"), "the process on the other side is not of this version of notifyd", {1}),
    ],
)
async def test_what_keeps_a_worker_from_serving_ends_all_and_is_told_once(
    running: Starting, events: RecordedEvents, behaviours: tuple[str, ...], problem: str, begun: set[int]
) -> None:
    with pytest.raises(NotifydError, match=problem):  # noqa: PT012 - the block is what fails
        try:
            async with running(*behaviours, serving=False) as started:
                await trio.sleep_forever()
        except BaseExceptionGroup as group:
            raise unwrapped(group) from None
    assert events.logged("serving") == events.logged("service_failed") == []
    assert started.begun().keys() == begun
    assert not any(is_alive(pid) for pids in started.begun().values() for pid in pids)


async def test_a_command_that_cannot_be_run_is_told(events: RecordedEvents) -> None:
    workers = Workers(Layers.of(settings_with()), {}, events, command=lambda _: ["/nowhere/python"])
    with pytest.raises(WorkerFailed, match=r"^worker 1 cannot be started: No such file or directory$"):
        await workers.run()


async def test_a_drain_while_they_start_ends_those_that_do_not_serve_yet(
    running: Starting, events: RecordedEvents
) -> None:
    async with running("obey", "never_serve", serving=False) as started:
        await until(lambda: started.told(2))
        started.workers.drain()
    assert started.told(1)[1:] == ["Drain"]
    assert started.told(2) == ["begun", "Stop"]
    assert events.logged("serving") == events.logged("service_failed") == []
    assert started.workers.problems() == []


# --- a worker that dies -----------------------------------------------------------------------------------------------


async def test_a_worker_that_is_killed_is_replaced_and_the_others_stay(running: Starting) -> None:
    async with running("obey", "obey") as started:
        [first], [other] = started.pids(1), started.pids(2)
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(started.pids(1)) == 2)
        assert started.failures() == [f"WorkerFailed: worker 1 (process {first}) was ended by SIGKILL"]
        assert started.told(1) == ["Start n-1 1000"] * 2
        assert started.pids(2) == [other]
        assert is_alive(other)


async def test_one_that_keeps_dying_is_replaced_after_ever_longer_waits(
    running: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[float, float]] = []
    begun_s: list[float] = []
    next_delay_s, open_process = Backoff.next_delay_s, trio.lowlevel.open_process

    def noted_delay_s(backoff: Backoff) -> float:
        waits.append((time.monotonic(), next_delay_s(backoff)))
        return waits[-1][1]

    async def noted_process(*arguments: Any, **options: Any) -> trio.Process:
        begun_s.append(time.monotonic())
        return await open_process(*arguments, **options)

    monkeypatch.setattr(Backoff, "next_delay_s", noted_delay_s)
    monkeypatch.setattr(trio.lowlevel, "open_process", noted_process)
    async with running("serve_briefly") as started:
        await until(lambda: len(started.pids(1)) == 4, 25.0)
    delays_s = [delay_s for _, delay_s in waits[:3]]
    assert all(delay_s >= least_s for delay_s, least_s in zip(delays_s, (0.1, 0.2, 0.4), strict=True))
    assert all(one_s < next_s for one_s, next_s in pairwise(delays_s))
    assert all(again_s - from_s >= delay_s for (from_s, delay_s), again_s in zip(waits[:3], begun_s[1:4], strict=True))


async def test_one_that_ends_by_itself_is_replaced_too(running: Starting) -> None:
    async with running("obey") as started:
        os.kill(started.pids(1)[0], signal.SIGTERM)
        await until(lambda: len(started.pids(1)) == 2)
        assert ["was ended by SIGTERM" in failure for failure in started.failures()] == [True]


async def test_what_was_signalled_together_with_its_parent_is_no_failure(
    running: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LATE_SIGNAL_S", 20.0)
    async with running("obey", "obey") as started:
        os.kill(started.pids(1)[0], signal.SIGTERM)
        await until(lambda: not is_alive(started.pids(1)[0]))
        started.workers.drain()
    assert started.failures() == []
    assert started.told(2)[1:] == ["Drain"]


async def test_a_worker_that_waits_to_be_replaced_does_not_keep_a_drain_waiting(running: Starting) -> None:
    async with running("serve_briefly") as started:
        await until(lambda: len(started.failures()) == 5, 25.0)  # the next one would come after 1.6 s
        began_s = time.monotonic()
        started.workers.drain()
    assert time.monotonic() - began_s < 1.0


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_a_drain_is_told_to_all_and_waits_for_all(running: Starting, events: RecordedEvents) -> None:
    async with running("obey", "obey") as started:
        started.workers.drain()
        assert started.workers.draining
    assert [started.told(number)[1:] for number in (1, 2)] == [["Drain"], ["Drain"]]
    assert started.failures() == []
    assert events.logged("draining") == [{"window_s": 0.0}]


@pytest.mark.usefixtures("impatient")
async def test_one_that_outlasts_the_drain_is_killed_and_that_is_told(running: Starting) -> None:
    async with running("be_deaf") as started:
        [deaf] = started.pids(1)
    assert not is_alive(deaf)
    assert started.workers.problems() == [f"worker 1 (process {deaf}) did not end in time and was killed"]


async def test_one_that_ends_by_an_error_is_told_of(running: Starting) -> None:
    async with running("end_badly", "obey") as started:
        [bad] = started.pids(1)
    assert started.workers.problems() == [f"worker 1 (process {bad}) ended with exit code 3"]


async def test_stop_shortens_the_patience(running: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "MARGIN_S", 3600.0)
    monkeypatch.setattr(parent, "STOP_S", 0.3)
    async with running("be_deaf") as started:
        started.workers.drain()
        started.workers.stop()
    assert len(started.workers.problems()) == 1


async def test_cancelled_the_parent_leaves_no_process(running: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_S", 2.0)
    with trio.CancelScope() as scope:
        async with running("be_deaf", "obey") as started:
            pids = started.pids(1) + started.pids(2)
            scope.cancel()
    assert not any(map(is_alive, pids))
    assert started.told(2)[1:] == ["Stop"]


async def run_signalled(started: Parent, events: RecordedEvents, *signals: tuple[int, str]) -> None:
    """Run workers until they end; each signal is sent once they serve, and the next when an event is logged."""
    readings = iter([ConfigurationError("f", "k", "is wrong"), Layers.of(settings_with(payload_bytes=2000))])

    def read() -> Settings:
        reading = next(readings)
        if isinstance(reading, ConfigurationError):
            raise reading
        return reading

    async def operate() -> None:
        await until(lambda: events.logged("serving"))
        for number, event in signals:
            os.kill(os.getpid(), number)
            await until(partial(events.logged, event))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(operate)
        layers = Layers.of(settings_with(len(started.behaviours)))
        await run_workers(layers, events, ServiceManager({}), command=started.command, read=read)


async def test_signals_are_obeyed(running: Starting, tmp_path: Path, events: RecordedEvents) -> None:
    started = Parent(tmp_path, events, ("obey", "obey"))
    reloads = [(signal.SIGHUP, "reload_refused"), (signal.SIGHUP, "reloaded")]
    await run_signalled(started, events, *reloads, (signal.SIGTERM, "draining"))
    assert events.logged("reload_refused") == [{"problem": "f: k: is wrong"}]
    assert started.told(2)[1:] == ["Reload n-2 2000", "Drain"]
    assert events.logged("stopped") == [{}]


async def test_a_second_signal_ends_what_hangs_and_the_failure_is_told(
    running: Starting, tmp_path: Path, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "MARGIN_S", 3600.0)
    monkeypatch.setattr(parent, "STOP_S", 0.3)
    started = Parent(tmp_path, events, ("be_deaf",))
    with pytest.raises(WorkersFailed, match=r"^worker 1 \(process \d+\) did not end in time and was killed$"):  # noqa: PT012
        try:
            await run_signalled(started, events, (signal.SIGTERM, "draining"), (signal.SIGINT, "stopping_at_once"))
        except BaseExceptionGroup as group:
            raise unwrapped(group) from None
    assert events.logged("stopped") == []


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_a_reload_reaches_every_worker_and_every_one_to_come(running: Starting, events: RecordedEvents) -> None:
    async with running("obey", "obey") as started:
        changed = settings_with(5, payload_bytes=2000)
        started.workers.reload(Layers.of(changed))
        await until(lambda: all(started.told(number)[1:] == [f"Reload n-{number} 2000"] for number in (1, 2)))
        assert events.logged("reloaded") == [{"needs_restart": ["node"]}]
        os.kill(started.pids(1)[0], signal.SIGKILL)
        await until(lambda: len(started.pids(1)) == 2)
        assert started.told(1)[2:] == ["Start n-1 2000"]


def test_a_worker_has_a_name_of_its_own_and_its_part_of_the_connections() -> None:
    limits = LimitSettings(connections=ConnectionLimit(limit=101, resume=90))
    settings = Settings(node=NodeSettings(name="berlin", workers=4), limits=limits)
    shares = [share_of(settings, number, {}) for number in (1, 2, 3, 4)]
    assert [share.node.name for share in shares] == ["berlin-1", "berlin-2", "berlin-3", "berlin-4"]
    assert [share.limits.connections.limit for share in shares] == [26, 25, 25, 25]
    assert [share.limits.connections.resume for share in shares] == [23, 23, 22, 22]


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.integers(1, 1024))
def test_all_parts_together_are_the_whole(limit: int, resume: int, workers: int) -> None:
    whole = ConnectionLimit(limit=limit, resume=min(limit, resume))
    settings = Settings(node=NodeSettings(workers=workers), limits=LimitSettings(connections=whole))
    parts = [share_of(settings, number, {}).limits.connections for number in range(1, workers + 1)]
    assert sum(part.limit for part in parts) == max(limit, workers)
    assert all(1 <= part.resume <= part.limit for part in parts)


def test_port_0_is_replaced_by_the_port_that_is_held_and_no_other() -> None:
    listen = ListenSettings(websocket=Address("localhost", 0), device=Address("::1", 7501), http=None)
    held = {"websocket": Address("127.0.0.1", 4711), "device": Address("::1", 7501)}
    share = share_of(Settings(listen=listen), 1, held)
    assert share.listen == ListenSettings(websocket=Address("localhost", 4711), device=Address("::1", 7501), http=None)


# --- ports ------------------------------------------------------------------------------------------------------------


def test_held_ports_are_shared_by_those_that_ask_for_it_and_refuse_clients_until_then() -> None:
    with reserved(settings_with().listen) as addresses:
        assert set(addresses) == {"websocket", "http"}
        address = addresses["websocket"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port))
        with bind(address, "k", reuse_port=True) as one, bind(address, "k", reuse_port=True) as other:
            assert address_of(one) == address_of(other) == address
            with socket.create_connection((address.host, address.port)):
                pass
            with pytest.raises(ListenError, match="another program has the port"):
                bind(address, "k")


def test_a_port_is_not_held_where_another_node_listens_though_it_would_share() -> None:
    with bind(ANY_PORT, "k", reuse_port=True) as another:
        listen = ListenSettings(websocket=address_of(another), device=None, http=None)
        with pytest.raises(ListenError, match=r"\(listen.websocket\): Address already in use"), reserved(listen):
            pass


# --- the channel ------------------------------------------------------------------------------------------------------

ORDERS: list[Order] = [Start(1, bytes(range(256))), Reload(b""), Drain(), Stop()]


@given(st.lists(st.integers(0, 400)))
async def test_orders_arrive_whole_however_they_are_cut(cuts: list[int]) -> None:
    said: list[bytes] = []

    class Listening(trio.abc.SendStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            said.append(bytes(data))

        async def wait_send_all_might_not_block(self) -> None: ...

        async def aclose(self) -> None: ...

    there, here = trio.testing.memory_stream_one_way_pair()
    channel = Channel[Order](trio.StapledStream(Listening(), here), Order)
    for order in ORDERS:
        await channel.send(order)
    content = b"".join(said)
    for start, end in pairwise([0, *sorted(cuts), len(content)]):
        await there.send_all(content[start:end])
    await there.aclose()
    assert [order async for order in channel] == ORDERS


async def test_a_message_that_was_cut_off_is_none() -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(b"\0\0\0\x10\x81")
    await there.aclose()
    assert await Channel[Report](here, Report).receive() is None


@pytest.mark.parametrize("junk", [b"\xff\0\0\0", b"\0\0\0\1\xc1", b"\0\0\0\1\x01"])
async def test_what_is_no_message_is_refused(junk: bytes) -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(junk)
    with pytest.raises(ChannelBroken, match="not of this version of notifyd"):
        await Channel[Report](here, Report).receive()


async def test_what_is_said_to_somebody_who_has_gone_is_lost_without_an_error() -> None:
    here, there = trio.testing.memory_stream_pair()
    await trio.aclose_forcefully(there)
    await Channel[Report](here, Report).send(Drain())


def test_a_person_who_starts_a_worker_is_told_what_to_do(run: Run) -> None:
    with Path("/dev/null").open() as nothing:
        own = os.dup(0)
        os.dup2(nothing.fileno(), 0)
        try:
            outcome = run("serve", "--worker", "1")
        finally:
            os.dup2(own, 0)
            os.close(own)
    assert outcome.code == 1
    assert "set node.workers" in outcome.err


def test_the_command_of_a_worker_is_that_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "/bin/notifyd", "serve", "--log", "debug"])
    monkeypatch.setattr(sys, "argv", ["/bin/notifyd", "serve", "--log", "debug"])
    assert worker_command(7) == [sys.executable, "-X", "dev", "/bin/notifyd", "serve", "--worker", "7"]
