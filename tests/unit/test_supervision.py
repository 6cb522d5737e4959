"""The supervision tree: starting, failing, backing off, stopping, and the picture of it."""

from collections.abc import Awaitable, Callable
from itertools import pairwise

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable, ListenError
from notifyd.events import NoEvents
from notifyd.supervision import (
    ERROR_CHARACTERS,
    STEADY_S,
    Branch,
    ServiceEnded,
    TreeNode,
    one_line,
    open_branch,
    unwrapped,
)
from protocol.backoff import BASE_S, CAP_S
from protocol.connecting import ConnectionState
from tests.recorded_events import RecordedEvents

Status = trio.TaskStatus[None]


class FakeService:
    """Does as it is told: each run takes the next of `lives`, the last one again and again."""

    def __init__(self, *lives: Callable[[Status], Awaitable[None]]) -> None:
        self.lives = lives
        self.began_s: list[float] = []
        self.ended = 0

    async def run(self, *, task_status: Status) -> None:
        life = self.lives[min(len(self.began_s), len(self.lives) - 1)]
        self.began_s.append(trio.current_time())
        try:
            await life(task_status)
        finally:
            self.ended += 1


async def serves(task_status: Status) -> None:
    await trio.lowlevel.checkpoint()
    task_status.started()
    await trio.sleep_forever()


async def never_serves(task_status: Status) -> None:
    await trio.sleep_forever()


async def fails_at_once(task_status: Status) -> None:
    raise ValueError("broken")


def serves_for(seconds: float) -> Callable[[Status], Awaitable[None]]:
    async def life(task_status: Status) -> None:
        task_status.started()
        await trio.sleep(seconds)
        raise ValueError("broke down")

    return life


def child(branch: Branch, name: str) -> TreeNode:
    (node,) = [node for node in branch.snapshot().children if node.name == name]
    return node


@pytest.fixture
def clock(autojump_clock: MockClock) -> Clock:
    """Virtual time; a test asks for `autojump_clock` too, since pytest-trio looks for it in its own arguments."""
    return Clock(unix_s=lambda: 1_700_000_000 + trio.current_time())


async def test_a_service_is_connecting_until_it_serves(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def slow(task_status: Status) -> None:
        await trio.sleep(3)
        await serves(task_status)

    async with open_branch("node", events=events, clock=clock) as branch, trio.open_nursery() as nursery:
        begin = clock.unix_ms()
        nursery.start_soon(branch.start, "broker", FakeService(slow).run)
        await wait_all_tasks_blocked()
        assert child(branch, "broker") == TreeNode("broker", ConnectionState.CONNECTING, 0, begin)
        assert branch.snapshot().state is ConnectionState.CONNECTING
        await trio.sleep(4)
        assert child(branch, "broker") == TreeNode("broker", ConnectionState.CONNECTED, 0, begin + 3000)
        assert branch.snapshot() == TreeNode(
            "node", ConnectionState.CONNECTED, 0, begin, children=(child(branch, "broker"),)
        )


async def test_what_fails_at_the_first_start_is_its_callers(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    cause = OSError(98, "Address already in use")

    async def in_use(task_status: Status) -> None:
        raise ListenError("127.0.0.1:7500 is in use") from cause

    async with open_branch("node", events=events, clock=clock) as branch:
        with pytest.raises(ListenError, match=r"7500 is in use") as caught:
            await branch.start("websocket", FakeService(in_use).run)
        assert caught.value.__cause__ is cause
        assert branch.snapshot().children == ()
        assert not events.lines
        await branch.start("websocket", FakeService(serves).run)  # the name is free again


async def test_a_launched_service_is_tried_again_from_its_first_failure_on(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    attempts: list[float] = []

    async def away_at_first(task_status: Status) -> None:
        attempts.append(trio.current_time())
        if len(attempts) < 10:
            raise ListenError("nobody is there yet")
        await serves(task_status)

    async with open_branch("node", events=events, clock=clock, longest_wait_s=2.0) as branch:
        branch.launch("link", FakeService(away_at_first).run)
        await trio.sleep(1)
        [link] = branch.snapshot().children
        assert link.state in (ConnectionState.BACKING_OFF, ConnectionState.CONNECTING)
        assert link.error == "ListenError: nobody is there yet"
        await trio.sleep(20)
        assert branch.snapshot().children[0].state is ConnectionState.CONNECTED
        await branch.stop("link")
        assert branch.snapshot().children == ()
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    assert all(0.1 * 2**number <= wait <= 0.1 * 2**number + 0.1 for number, wait in enumerate(waits[:4]))
    assert all(1.0 <= wait <= 2.0 for wait in waits[-3:])
    assert len(set(waits[-3:])) == 3


async def test_launched_services_stand_last_whenever_they_were_launched(events: RecordedEvents, clock: Clock) -> None:
    async with open_branch("node", events=events, clock=clock) as branch:
        branch.launch("early", FakeService(serves).run)
        await branch.start("one", FakeService(serves).run)
        branch.launch("late", FakeService(serves).run)
        await branch.start("other", FakeService(serves).run)
        assert [child.name for child in branch.snapshot().children] == ["one", "other", "early", "late"]


async def test_a_launched_service_can_be_stopped_before_it_serves(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async with open_branch("node", events=events, clock=clock) as branch:
        branch.launch("link", FakeService(never_serves).run)
        await trio.sleep(1)
        await branch.stop("link")
        assert branch.snapshot().children == ()


async def test_several_errors_at_the_first_start_stay_together(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def two(task_status: Status) -> None:
        raise ExceptionGroup("", [ValueError("one"), OSError("two")])

    async with open_branch("node", events=events, clock=clock) as branch:
        with pytest.raises(ExceptionGroup) as caught:
            await branch.start("websocket", FakeService(two).run)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, OSError]


async def test_a_service_that_returns_before_it_serves_is_refused(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def returns(task_status: Status) -> None:
        await trio.lowlevel.checkpoint()

    async with open_branch("node", events=events, clock=clock) as branch:
        with pytest.raises(ServiceEnded, match="node/idle returned"):
            await branch.start("idle", FakeService(returns).run)


async def test_a_failed_service_is_logged_once_counted_and_restarted(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    service = FakeService(serves_for(10), serves)
    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", service.run)
        await trio.sleep(10 + 2 * BASE_S)
        assert BASE_S <= service.began_s[1] - service.began_s[0] - 10 <= 2 * BASE_S
        link = child(branch, "link")
        assert (link.state, link.restarts, link.error) == (ConnectionState.CONNECTED, 1, "ValueError: broke down")
    assert events.counted("service_restarts", service="link") == 1
    (line,) = events.logged("service_failed")
    assert (line["service"], line["error"]) == ("node/link", "ValueError: broke down")
    assert "Traceback" in line["traceback"]


async def test_a_foreseen_failure_needs_no_traceback(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def loses_its_broker(task_status: Status) -> None:
        task_status.started()
        raise BrokerUnavailable("no route to host")

    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", FakeService(loses_its_broker, serves).run)
        await trio.sleep(1)
    assert events.logged("service_failed") == [{"service": "node/link", "error": "BrokerUnavailable: no route to host"}]


async def test_waits_grow_to_the_cap_and_it_says_so(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    service = FakeService(serves_for(0), *[fails_at_once] * 12, serves)
    states: list[tuple[ConnectionState, int]] = []
    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", service.run)
        await wait_all_tasks_blocked()
        while len(service.began_s) < 14:
            link = child(branch, "link")
            if (link.state, link.restarts) not in states:
                states.append((link.state, link.restarts))
            await trio.sleep(0.9 * BASE_S)
        waits_s = [later - earlier for earlier, later in zip(service.began_s, service.began_s[1:], strict=False)]
        for attempt, wait_s in enumerate(waits_s):
            low_s = min(BASE_S * 2**attempt, CAP_S)
            assert low_s <= wait_s + 1e-9
            assert wait_s <= min(low_s + BASE_S, CAP_S) + 1e-9
        assert child(branch, "link").state is ConnectionState.CONNECTED
    assert [state for state, _ in states] == [ConnectionState.BACKING_OFF] * 4 + [ConnectionState.UNAVAILABLE] * 9
    assert [restarts for _, restarts in states] == list(range(13))


@pytest.mark.parametrize(("served_s", "forgiven"), [(STEADY_S - 0.1, False), (STEADY_S + 0.1, True)])
async def test_steady_service_puts_failures_behind_it(
    served_s: float, forgiven: bool, events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    service = FakeService(serves_for(1), serves_for(1), serves_for(1), serves_for(served_s), serves)
    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", service.run)
        await trio.sleep(100)
        last_wait_s = service.began_s[4] - service.began_s[3] - served_s
        assert (last_wait_s <= 2 * BASE_S + 1e-9) is forgiven


async def test_a_service_that_returns_later_is_restarted_too(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def returns(task_status: Status) -> None:
        task_status.started()

    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", FakeService(returns, serves).run)
        await trio.sleep(1)
        assert child(branch, "link").error == "ServiceEnded: node/link returned, though nothing cancelled it"
        assert child(branch, "link").state is ConnectionState.CONNECTED


async def test_a_core_service_is_never_restarted(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    service = FakeService(serves_for(5))
    bystander = FakeService(serves)

    async def whole_node() -> None:
        async with open_branch("node", events=events, clock=clock) as root:
            await root.start("bystander", bystander.run)
            async with open_branch("hub", events=events, clock=clock, parent=root) as hub:
                await hub.start("interest", service.run, core=True)
                await trio.sleep_forever()

    with pytest.raises(ValueError, match="broke down"):
        await whole_node()
    assert (len(service.began_s), service.ended, bystander.ended) == (1, 1, 1)
    assert not events.lines


async def test_stop_waits_until_the_service_has_cleaned_up(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def cleans_up(task_status: Status) -> None:
        try:
            await serves(task_status)
        finally:
            with trio.move_on_after(30, shield=True):
                await trio.sleep(7)

    service = FakeService(cleans_up)
    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("device", service.run)
        begin_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(branch.stop, "device")
            await wait_all_tasks_blocked()
            assert child(branch, "device").state is ConnectionState.CONNECTED  # it is still there while it cleans up
        assert trio.current_time() - begin_s == pytest.approx(7)
        assert service.ended == 1
        assert branch.snapshot().children == ()
        with pytest.raises(LookupError, match="node runs no service named 'device'"):
            await branch.stop("device")


async def test_stop_ends_the_wait_for_a_restart(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    service = FakeService(serves_for(0))
    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", service.run)
        await wait_all_tasks_blocked()
        assert child(branch, "link").state is ConnectionState.BACKING_OFF
        await branch.stop("link")
        await trio.sleep(100)
    assert len(service.began_s) == 1


async def test_stopped_before_it_served(events: RecordedEvents, clock: Clock, autojump_clock: MockClock) -> None:
    async def hangs(task_status: Status) -> None:
        await trio.sleep_forever()

    async with open_branch("node", events=events, clock=clock) as branch:

        async def start() -> None:
            with pytest.raises(ServiceEnded, match="node/link was stopped before it served"):
                await branch.start("link", FakeService(hangs).run)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await wait_all_tasks_blocked()
            await branch.stop("link")
        assert branch.snapshot().children == ()


async def test_a_failure_while_being_stopped_is_told_and_ends_nothing_else(
    events: RecordedEvents, clock: Clock
) -> None:
    async def fails_on_the_way_out(task_status: Status) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await serves(task_status)
            finally:
                raise OSError("cannot flush")

    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", FakeService(fails_on_the_way_out).run)
        await branch.stop("link")
    assert [line["error"] for line in events.logged("service_failed")] == ["OSError: cannot flush"]


async def test_a_service_that_finishes_when_cancelled_is_no_failure(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    stopping = trio.Event()

    async def returns_when_told(task_status: Status) -> None:
        task_status.started()
        with trio.CancelScope(shield=True):
            await stopping.wait()

    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", FakeService(returns_when_told).run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(branch.stop, "link")
            await wait_all_tasks_blocked()
            stopping.set()
    assert not events.lines


async def test_a_cancelled_start_leaves_nothing(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def hangs(task_status: Status) -> None:
        await trio.sleep_forever()

    service = FakeService(hangs)
    async with open_branch("node", events=events, clock=clock) as branch:
        with trio.move_on_after(5) as scope:
            await branch.start("link", service.run)
        assert scope.cancelled_caught
        assert service.ended == 1
        assert branch.snapshot().children == ()


async def test_names_are_unique_in_a_branch(events: RecordedEvents, clock: Clock, autojump_clock: MockClock) -> None:
    async with open_branch("node", events=events, clock=clock) as branch:
        await branch.start("link", FakeService(serves).run)
        branch.add_count("connections", lambda: 0)
        for name in ("link", "connections"):
            with pytest.raises(ValueError, match=f"node already has a '{name}'"):
                await branch.start(name, FakeService(serves).run)
            with pytest.raises(ValueError, match="already has"):
                async with open_branch(name, events=events, clock=clock, parent=branch):
                    pytest.fail("opened twice")  # pragma: no cover
        assert child(branch, "link").state is ConnectionState.CONNECTED


async def test_the_tree_shows_branches_services_and_live_counts(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    connections = [1, 2, 3]
    async with open_branch("node", events=events, clock=clock) as root:
        await root.start("broker", FakeService(serves_for(0), fails_at_once).run)
        async with open_branch("listeners", events=events, clock=clock, parent=root) as listeners:
            listeners.add_count("connections", lambda: len(connections))
            await listeners.start("websocket", FakeService(serves).run)
            await trio.sleep(60)
            tree = msgspec.json.decode(msgspec.json.encode(root.snapshot()))
        assert [node.name for node in root.snapshot().children] == ["broker"]
    broker, below = tree["children"]
    assert (tree["name"], tree["state"]) == ("node", "unavailable")
    assert (broker["state"], broker["error"]) == ("unavailable", "ValueError: broken")
    assert set(broker) == {"name", "state", "restarts", "since", "error", "children", "count"}
    assert (below["name"], below["state"], below["error"]) == ("listeners", "connected", None)
    assert [(leaf["name"], leaf["state"], leaf["count"]) for leaf in below["children"]] == [
        ("connections", "connected", 3),
        ("websocket", "connected", None),
    ]


async def test_leaving_a_branch_ends_its_services(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    services = [FakeService(serves), FakeService(serves_for(0)), FakeService(serves)]
    async with open_branch("node", events=events, clock=clock) as branch:
        for number, service in enumerate(services):
            await branch.start(f"service {number}", service.run)
    assert [service.ended for service in services] == [1, 1, 1]
    assert branch.snapshot().children == ()


async def test_an_error_of_the_block_comes_out_as_it_is(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    error = RuntimeError("the block's")
    service = FakeService(serves)

    async def fails_below() -> None:
        async with (
            open_branch("node", events=events, clock=clock) as root,
            open_branch("listeners", events=events, clock=clock, parent=root) as branch,
        ):
            await branch.start("websocket", service.run)
            raise error

    with pytest.raises(RuntimeError) as caught:
        await fails_below()
    assert caught.value is error
    assert service.ended == 1


async def test_errors_that_come_together_come_out_together(
    events: RecordedEvents, clock: Clock, autojump_clock: MockClock
) -> None:
    async def fails_on_the_way_out(task_status: Status) -> None:
        try:
            await serves(task_status)
        finally:
            raise OSError("cannot flush")

    async def fails_twice() -> None:
        async with open_branch("node", events=events, clock=clock) as branch:
            await branch.start("hub", FakeService(fails_on_the_way_out).run, core=True)
            raise RuntimeError("the block's")

    with pytest.raises(ExceptionGroup) as caught:
        await fails_twice()
    assert sorted(str(unwrapped(error)) for error in caught.value.exceptions) == ["cannot flush", "the block's"]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the k-th step that any task takes."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def whole_life(services: list[FakeService]) -> None:
    events, clock = NoEvents(), Clock()
    async with (
        open_branch("node", events=events, clock=clock) as root,
        open_branch("listeners", events=events, clock=clock, parent=root) as branch,
    ):
        await root.start("first", services[0].run)
        await branch.start("second", services[1].run)
        await trio.sleep(1)
        await root.stop("first")
        await root.start("third", services[2].run, core=True)
        await trio.sleep(1)


async def test_cancellation_at_every_step_leaves_nothing(autojump_clock: MockClock) -> None:
    step, done = 0, False
    while not done:
        step += 1
        services = [FakeService(serves), FakeService(serves_for(0.3), fails_at_once, serves), FakeService(serves)]
        tasks_before = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await whole_life(services)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        done = instrument.left > 0
        assert [len(service.began_s) - service.ended for service in services] == [0, 0, 0]
        assert trio.lowlevel.current_statistics().tasks_living == tasks_before
    assert step > 20  # it did cancel in the middle of things


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(), "ValueError"),
        (OSError(98, "Address in use"), "OSError: [Errno 98] Address in use"),
        (RuntimeError("two\nlines\r\n and\tmore"), "RuntimeError: two lines and more"),
        (RuntimeError("x" * 1000), f"RuntimeError: {'x' * (ERROR_CHARACTERS - 15)}…"),
    ],
)
def test_error_text_is_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
    assert len(line) <= ERROR_CHARACTERS


def test_unwrapping_keeps_what_is_several() -> None:
    error = ValueError("x")
    pair = ExceptionGroup("", [error, OSError()])
    assert unwrapped(ExceptionGroup("", [ExceptionGroup("", [error])])) is error
    assert unwrapped(ExceptionGroup("", [pair])) is pair
