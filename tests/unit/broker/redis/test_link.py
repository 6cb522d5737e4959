"""A link against a scripted server, in virtual time."""

import contextlib
from typing import Any

import pytest
import trio
from redis.exceptions import AuthenticationError, MovedError, NoScriptError, ResponseError
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.broker.redis.link import Link, LinkLost
from notifyd.errors import BrokerUnavailable
from tests.kit.checkpoints import at_step
from tests.kit.redis_links import make_link, running_link
from tests.kit.scripted_redis import ScriptedRedis, array, bulk, error, information, integer, ok, push
from tests.recorded_events import RecordedEvents


@pytest.fixture
def server() -> ScriptedRedis:
    return ScriptedRedis()


class Asked:
    """A command in a task of its own, and what became of it."""

    def __init__(self, link: Link, *command: str) -> None:
        self.scope = trio.CancelScope()
        self.reply: Any = None
        self.failure: Exception | None = None
        self.done = False
        self._link = link
        self._command = command

    async def run(self) -> None:
        with self.scope:
            try:
                self.reply = await self._link.execute(*self._command)
            except (BrokerUnavailable, ResponseError) as failure:
                self.failure = failure
            self.done = True


async def test_a_command_is_answered(server: ScriptedRedis) -> None:
    async with server.running(), running_link(server.dial) as link:
        assert await link.execute("SET", "a", "1") == b"OK"
        assert await link.execute("GET", "a") == b"1"
        assert await link.execute("GET", b"other") is None
        assert await link.execute("INCR", "a") == 2
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


async def test_arguments_may_be_text_bytes_and_numbers(server: ScriptedRedis) -> None:
    async with server.running(), running_link(server.dial) as link:
        await link.execute("X", "ä", b"\x00\xff", bytearray(b"b"), memoryview(b"m"), 7, 1.5)
        assert server.called("X") == [[b"X", "ä".encode(), b"\x00\xff", b"b", b"m", b"7", b"1.5"]]
        with pytest.raises(TypeError):
            await link.execute("X", None)  # type: ignore[arg-type]
        assert link.commands_in_flight == 0


async def test_the_server_is_known_once_the_link_is_up(server: ScriptedRedis) -> None:
    link = make_link(server.dial)
    assert (link.is_up, link.server) == (False, None)
    async with server.running(), trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: link.run(task_status=task_status))
        assert link.is_up
        assert link.server is not None
        assert link.server.version == (7, 0, 15)
        nursery.cancel_scope.cancel()
    assert not link.is_up


async def test_that_it_is_up_stands_in_the_log(server: ScriptedRedis) -> None:
    events = RecordedEvents()
    link = make_link(server.dial, events=events)
    async with server.running(), trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: link.run(task_status=task_status))
        assert events.logged("broker_link_up") == [{"link": "redis", "version": "7.0.15"}]
        nursery.cancel_scope.cancel()


async def test_its_commands_and_its_losses_are_counted(server: ScriptedRedis, autojump_clock: MockClock) -> None:
    events = RecordedEvents()
    link = make_link(server.dial, events=events)
    async with server.running():
        for life in range(3):
            async with trio.open_nursery() as nursery:
                await nursery.start(run_until_lost, link)
                commands = len(events.observed("redis_command_seconds"))
                await link.execute("SET", "a", "1")
                assert len(events.observed("redis_command_seconds")) == commands + 1
                assert events.counted("redis_reconnects") == life
                link.drop("a test")
            assert events.counted("redis_connections_lost") == life + 1


async def run_until_lost(link: Link, task_status: trio.TaskStatus[None]) -> None:
    with contextlib.suppress(LinkLost):
        await link.run(task_status=task_status)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ERR unknown command", ResponseError),
        ("NOSCRIPT No matching script.", NoScriptError),
        ("MOVED 3999 127.0.0.1:6381", MovedError),
        ("NOAUTH Authentication required.", AuthenticationError),
        ("WRONGTYPE Operation against a key", ResponseError),
    ],
)
async def test_an_error_is_raised_as_redis_py_names_it(server: ScriptedRedis, text: str, kind: type[Exception]) -> None:
    server.reply("GET", error(text))
    async with server.running(), running_link(server.dial) as link:
        with pytest.raises(kind) as raised:
            await link.execute("GET", "a")
        assert type(raised.value) is kind
        assert link.is_up
        assert await link.execute("SET", "a", "1") == b"OK"


async def test_commands_of_all_tasks_travel_in_one_write(server: ScriptedRedis) -> None:
    writes: list[bytes] = []

    async def dial() -> trio.abc.Stream:
        stream = await server.dial()
        assert isinstance(stream, trio.StapledStream)
        send_all = stream.send_all

        async def noting(data: bytes) -> None:
            writes.append(bytes(data))
            await send_all(data)

        stream.send_all = noting  # type: ignore[method-assign, assignment]
        return stream

    async with server.running(), running_link(dial) as link:
        writes.clear()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(link.execute, "SET", f"key{number}", number)
        assert len(writes) == 1
        assert len(server.called("SET")) == 100


async def test_several_commands_are_written_back_to_back_and_errors_are_replies(server: ScriptedRedis) -> None:
    server.reply("EVALSHA", error("NOSCRIPT No matching script."))
    async with server.running(), running_link(server.dial) as link:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(link.execute, "SET", f"other{number}", number)
            replies = await link.execute_all([("SET", "a", "1"), ("EVALSHA", "sha", 0), ("INCR", "a")])
        assert replies[0::2] == [b"OK", 2]
        assert isinstance(replies[1], NoScriptError)
        names = [command[0] for command in server.commands]
        start = names.index(b"EVALSHA") - 1
        assert server.commands[start][1] == b"a"
        assert names[start : start + 3] == [b"SET", b"EVALSHA", b"INCR"]
        assert await link.execute_all([]) == []
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


async def test_an_error_within_an_array_stays_there(server: ScriptedRedis) -> None:
    server.reply("EXEC", array(ok(), error("ERR no")))
    async with server.running(), running_link(server.dial) as link:
        reply = await link.execute("EXEC")
        assert reply[0] == b"OK"
        assert isinstance(reply[1], ResponseError)


async def test_a_command_larger_than_any_buffer_travels(server: ScriptedRedis) -> None:
    large = b"x" * 5_000_000
    async with server.running(), running_link(server.dial) as link:
        await link.execute("SET", "a", large)
        assert await link.execute("GET", "a") == large


# --- cancelled callers ------------------------------------------------------------------------------------------------


async def test_a_cancelled_callers_reply_is_not_handed_to_the_next(server: ScriptedRedis) -> None:
    async with server.running(), running_link(server.dial) as link, trio.open_nursery() as nursery:
        server.hold()
        server.reply("GET", lambda command: bulk(command[1]))
        asked = [Asked(link, "GET", name) for name in "abc"]
        for each in asked:
            nursery.start_soon(each.run)
            await wait_all_tasks_blocked()
        asked[1].scope.cancel()
        await wait_all_tasks_blocked()
        assert link.commands_in_flight == 3
        server.release()
        await wait_all_tasks_blocked()
        assert [each.reply for each in asked] == [b"a", None, b"c"]
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


async def test_a_command_whose_caller_left_before_it_was_written_is_not_sent(server: ScriptedRedis) -> None:
    async with server.running(), running_link(server.dial) as link:
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.execute("SET", "a", "1")
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.execute_all([("SET", "a", "1")] * 3)
        assert await link.execute("GET", "a") is None
        assert server.called("SET") == []
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


async def test_a_cancelled_group_takes_all_its_replies_with_it(server: ScriptedRedis) -> None:
    async with server.running(), running_link(server.dial) as link, trio.open_nursery() as nursery:
        server.hold()
        with trio.CancelScope() as scope:
            nursery.start_soon(link.execute_all, [("SET", "b", "2")])
            async with trio.open_nursery() as inner:
                inner.start_soon(link.execute_all, [("INCR", "a")] * 3)
                await wait_all_tasks_blocked()
                scope.cancel()
        last = Asked(link, "GET", "a")
        nursery.start_soon(last.run)
        await wait_all_tasks_blocked()
        server.release(2)
        await wait_all_tasks_blocked()
        server.release()
        await wait_all_tasks_blocked()
        assert last.reply == b"3"


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_above_the_bound_of_commands_it_refuses_at_once(server: ScriptedRedis) -> None:
    async with server.running(), running_link(server.dial, most_commands=3) as link, trio.open_nursery() as nursery:
        server.hold()
        for _ in range(3):
            nursery.start_soon(link.execute, "INCR", "a")
        await wait_all_tasks_blocked()
        with pytest.raises(BrokerUnavailable, match="redis: too much in flight: 3 commands of 3"):
            await link.execute("INCR", "a")
        server.release()
        await wait_all_tasks_blocked()
        with pytest.raises(BrokerUnavailable, match="in flight"):
            await link.execute_all([("INCR", "a")] * 4)
        assert await link.execute_all([("INCR", "a")] * 3) == [4, 5, 6]


async def test_above_the_bound_of_bytes_it_refuses_at_once(server: ScriptedRedis) -> None:
    async with server.running(), running_link(server.dial, most_bytes=1000) as link, trio.open_nursery() as nursery:
        server.hold()
        nursery.start_soon(link.execute, "SET", "a", b"x" * 900)
        await wait_all_tasks_blocked()
        with pytest.raises(BrokerUnavailable, match=r"in flight: 1 commands of 10000, 9\d\d bytes of 1000"):
            await link.execute("SET", "a", b"x" * 100)
        server.release()
        await wait_all_tasks_blocked()
        assert link.bytes_in_flight == 0
        assert await link.execute("SET", "a", b"x" * 100) == b"OK"


# --- pushes -----------------------------------------------------------------------------------------------------------


async def test_a_subscription_returns_once_the_pushes_have_come(server: ScriptedRedis) -> None:
    pushes: list[list[Any]] = []
    async with (
        server.running(),
        running_link(server.dial, on_pushes=pushes.extend) as link,
        trio.open_nursery() as nursery,
    ):
        await link.subscribe("SUBSCRIBE", ["a", "b"])
        assert pushes == [[b"subscribe", b"a", 1], [b"subscribe", b"b", 2]]
        await link.subscribe("SUBSCRIBE", [])
        server.hold()
        done = trio.Event()

        async def unsubscribe() -> None:
            await link.subscribe("UNSUBSCRIBE", ["a"])
            done.set()

        nursery.start_soon(unsubscribe)
        await wait_all_tasks_blocked()
        assert not done.is_set()
        server.release()
        await done.wait()
        assert pushes[2:] == [[b"unsubscribe", b"a", 1]]
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


async def test_the_pushes_of_one_read_come_together_in_order(server: ScriptedRedis) -> None:
    batches: list[list[list[Any]]] = []
    async with server.running(), running_link(server.dial, on_pushes=batches.append) as link:
        messages = [push(b"message", b"a", b"%d" % number) for number in range(3)]
        server.reply("X", messages[0] + messages[1] + integer(7) + messages[2])
        assert await link.execute("X") == 7
        assert batches == [[[b"message", b"a", b"%d" % number] for number in range(3)]]


async def test_a_refused_subscription_raises_and_moves_nothing(server: ScriptedRedis) -> None:
    server.reply("SSUBSCRIBE", error("MOVED 3999 127.0.0.1:6381"))
    async with server.running(), running_link(server.dial) as link, trio.open_nursery() as nursery:
        after = Asked(link, "INCR", "a")

        async def ask_after() -> None:
            await trio.lowlevel.checkpoint()
            await after.run()

        nursery.start_soon(ask_after)
        with pytest.raises(MovedError):
            await link.subscribe("SSUBSCRIBE", ["a", "b"])
        await wait_all_tasks_blocked()
        assert after.reply == 1
        server.forget("SSUBSCRIBE")
        await link.subscribe("SSUBSCRIBE", ["a", "b"])


async def test_unasked_pushes_are_no_answer_to_a_subscription(server: ScriptedRedis) -> None:
    """A server says sunsubscribe by itself when a slot leaves it, and MOVED to who unsubscribes later."""
    pushes: list[list[Any]] = []
    unasked = push(b"sunsubscribe", b"a", 0)
    server.reply("SUNSUBSCRIBE", unasked + error("MOVED 3999 127.0.0.1:6381"))
    async with server.running(), running_link(server.dial, on_pushes=pushes.extend) as link:
        server.connections[-1].send(unasked)
        with pytest.raises(MovedError):
            await link.subscribe("SUNSUBSCRIBE", ["a"])
        assert await link.execute("INCR", "a") == 1
        assert pushes == [[b"sunsubscribe", b"a", 0]] * 2


async def test_a_subscription_that_is_answered_with_something_else_ends_the_connection(server: ScriptedRedis) -> None:
    server.reply("SUBSCRIBE", ok())
    async with server.running(), running_link(server.dial) as link:
        with pytest.raises(BrokerUnavailable, match="answered a subscription with a bytes"):
            await link.subscribe("SUBSCRIBE", ["a"])
        assert not link.is_up


async def test_a_ping_that_is_refused_ends_the_connection_rather_than_moving_replies(server: ScriptedRedis) -> None:
    server.reply("PING", error("NOPERM this user has no permissions to run the 'ping' command"))
    async with server.running(), running_link(server.dial) as link, trio.open_nursery() as nursery:
        after = Asked(link, "INCR", "a")
        nursery.start_soon(after.run)
        with pytest.raises((BrokerUnavailable, ResponseError)):
            await link.subscribe("SUBSCRIBE", ["a"])
        with pytest.raises(BrokerUnavailable):
            await link.execute("GET", "a")
        assert not link.is_up


# --- the deadline -----------------------------------------------------------------------------------------------------


async def test_a_stalled_server_is_noticed_at_the_deadline(server: ScriptedRedis, autojump_clock: MockClock) -> None:
    async with server.running(), running_link(server.dial, deadline_s=0.7) as link:
        await trio.sleep(1.0)
        server.stall()
        began_s = trio.current_time()
        with pytest.raises(BrokerUnavailable, match=r"redis: no answer within 0\.7 s"):
            await link.execute("GET", "a")
        assert trio.current_time() - began_s == pytest.approx(0.7)
        with pytest.raises(BrokerUnavailable, match=r"redis: no answer within 0\.7 s"):
            await link.execute("GET", "a")


async def test_a_command_behind_answered_ones_has_its_own_deadline(
    server: ScriptedRedis, autojump_clock: MockClock
) -> None:
    async with server.running(), running_link(server.dial, deadline_s=1.0) as link:
        server.hold()
        async with trio.open_nursery() as nursery:
            for step in range(80):  # asked every 0.3 s, answered every 0.8 s: something is always in flight
                if step % 3 == 0:
                    nursery.start_soon(link.execute, "INCR", "a")
                await trio.sleep(0.1)
                if step % 8 == 7:
                    server.release(100)
        assert link.is_up
        began_s = trio.current_time()
        with pytest.raises(BrokerUnavailable):
            await link.execute("INCR", "a")
        assert trio.current_time() - began_s <= 1.0 + 1e-6


async def test_a_server_that_reads_nothing_is_noticed_while_writing(
    server: ScriptedRedis, autojump_clock: MockClock
) -> None:
    async def dial() -> trio.abc.Stream:
        stream = await server.dial()
        assert isinstance(stream, trio.StapledStream)
        full = trio.Event()

        async def send_all(data: bytes) -> None:
            if len(data) > 1000:
                await full.wait()
            await stream.send_stream.send_all(data)

        stream.send_all = send_all  # type: ignore[method-assign, assignment]
        return stream

    async with server.running(), running_link(dial) as link, trio.open_nursery() as nursery:
        blocked, unsent = Asked(link, "SET", "a", "x" * 2000), Asked(link, "GET", "a")
        nursery.start_soon(blocked.run)
        await wait_all_tasks_blocked()
        nursery.start_soon(unsent.run)
        await trio.sleep(1.1)
        assert isinstance(blocked.failure, BrokerUnavailable)
        assert isinstance(unsent.failure, BrokerUnavailable)


async def test_a_dead_server_is_noticed_although_nobody_asks(server: ScriptedRedis, autojump_clock: MockClock) -> None:
    async with server.running(), running_link(server.dial) as link:
        server.stall()
        began_s = trio.current_time()
        await link.wait_down()
        assert trio.current_time() - began_s <= 3.0 + 1e-6
        assert link.why_down == "no answer within 1 s"


async def test_the_keepalive_keeps_the_replication_id_fresh(server: ScriptedRedis, autojump_clock: MockClock) -> None:
    async with server.running(), running_link(server.dial) as link:
        server.info = information(replication_id="c" * 40, previous="a" * 40)
        await trio.sleep(2.1)
        assert link.server is not None
        assert (link.server.replication_id, link.server.previous_replication_id) == ("c" * 40, "a" * 40)
        assert server.called("INFO")[-1] == [b"INFO", b"replication"]
        await trio.sleep(60)
        assert link.is_up


async def test_a_master_that_became_a_replica_is_left(server: ScriptedRedis, autojump_clock: MockClock) -> None:
    async with server.running(), running_link(server.dial) as link:
        server.info = information(role="slave")
        await link.wait_down()
        assert link.why_down == "the server is a replica now, not a master"


async def test_a_process_that_stood_still_itself_reads_before_it_judges(
    server: ScriptedRedis, mock_clock: MockClock
) -> None:
    async with server.running(), running_link(server.dial) as link, trio.open_nursery() as nursery:
        server.hold()
        asked = Asked(link, "GET", "a")
        nursery.start_soon(asked.run)
        await wait_all_tasks_blocked()
        server.release()
        mock_clock.jump(5.0)
        await wait_all_tasks_blocked()
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert asked.done
        assert asked.failure is None
        assert link.is_up
        nursery.cancel_scope.cancel()


# --- the end of a connection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["end", "reset"])
async def test_who_waits_is_told_when_the_connection_ends(server: ScriptedRedis, end: str) -> None:
    async with server.running(), running_link(server.dial) as link, trio.open_nursery() as nursery:
        server.hold()
        asked = [Asked(link, "GET", "a") for _ in range(5)]
        for each in asked:
            nursery.start_soon(each.run)
        await wait_all_tasks_blocked()
        getattr(server.connections[-1], end)()
        await wait_all_tasks_blocked()
        assert [type(each.failure) for each in asked] == [BrokerUnavailable] * 5
        assert len({id(each.failure) for each in asked}) == 5
        assert not link.is_up
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


async def test_drop_ends_the_connection_and_says_why(server: ScriptedRedis) -> None:
    link = make_link(server.dial)
    link.drop("nothing to drop")
    assert link.why_down == "not connected yet"
    with pytest.raises(BrokerUnavailable, match="redis: not connected yet"):
        await link.execute("GET", "a")

    async with server.running():
        with pytest.RaisesGroup(pytest.RaisesExc(LinkLost, match="^moved$")):
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: link.run(task_status=task_status))
                link.drop("moved")
                assert not link.is_up
                link.drop("again")
                with pytest.raises(BrokerUnavailable, match="redis: moved"):
                    await link.execute("GET", "a")
    assert link.why_down == "moved"


async def test_drop_ends_a_connection_that_is_being_made(server: ScriptedRedis) -> None:
    async def dial() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    for dialling in (dial, server.dial):  # while it connects; while it greets, since nobody serves
        link = make_link(dialling)
        with pytest.RaisesGroup(pytest.RaisesExc(LinkLost, match="^moved$")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                await wait_all_tasks_blocked()
                link.drop("moved")


async def test_the_same_link_runs_again(server: ScriptedRedis, autojump_clock: MockClock) -> None:
    async with server.running(), running_link(server.dial, again=True) as link:
        for number in range(3):
            assert await link.execute("INCR", "a") == number + 1
            server.connections[-1].end()
            await link.wait_down()
            await link.wait_up()
        assert len(server.connections) == 4


async def test_waiting_for_the_end_sees_each_end(server: ScriptedRedis, autojump_clock: MockClock) -> None:
    ends: list[str] = []
    async with (
        server.running(),
        running_link(server.dial, again=True) as link,
        trio.open_nursery() as nursery,
    ):

        async def note() -> None:
            await link.wait_down()
            ends.append(link.why_down)

        nursery.start_soon(note)
        await wait_all_tasks_blocked()
        link.drop("moved")
        await link.wait_up()
        await wait_all_tasks_blocked()
        assert ends == ["moved"]


async def test_who_waits_for_a_link_waits_through_failed_greetings(
    server: ScriptedRedis, autojump_clock: MockClock
) -> None:
    async with server.running(), running_link(server.dial, again=True) as link, trio.open_nursery() as nursery:
        server.reply("HELLO", None)
        link.drop("moved")
        came_up = trio.Event()

        async def note() -> None:
            await link.wait_up()
            came_up.set()

        nursery.start_soon(note)
        await trio.sleep(5)
        assert len(server.called("HELLO")) > 3
        assert not came_up.is_set()
        server.forget("HELLO")
        with trio.fail_after(5):
            await came_up.wait()


async def test_cancelled_it_tells_who_waits_and_closes_the_stream(server: ScriptedRedis) -> None:
    async with server.running(), trio.open_nursery() as nursery:
        link = make_link(server.dial)
        server.hold()
        async with trio.open_nursery() as inner:
            server.reply("HELLO", None)
            inner.start_soon(link.run)
            await wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        server.forget("HELLO")
        async with trio.open_nursery() as inner:
            inner.start_soon(link.run)
            await wait_all_tasks_blocked()
            server.release()
            await link.wait_up()
            server.hold()
            asked = Asked(link, "GET", "a")
            nursery.start_soon(asked.run)
            await wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert isinstance(asked.failure, BrokerUnavailable)
        assert link.why_down == "this node ended the connection"
        for connection in server.connections:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await connection.stream.send_all(b"x")


async def run_and_cancel(step: int | None) -> int:
    """Connect, ask, subscribe; cancel the link at a step of its tasks. How many steps there were."""
    server = ScriptedRedis()
    link = make_link(server.dial)
    own: list[trio.lowlevel.Task] = []
    scope = trio.CancelScope()

    def is_links(task: trio.lowlevel.Task | None) -> bool:
        while task is not None and task not in own:
            task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        return task is not None

    def cancel(_task: trio.lowlevel.Task) -> bool:
        scope.cancel()
        return True

    async def run() -> None:
        own.append(trio.lowlevel.current_task())
        with scope:
            await link.run()

    async with server.running(), trio.open_nursery() as nursery:
        with at_step(is_links, step, cancel) as steps:
            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            asked = [Asked(link, "INCR", "a") for _ in range(3)]
            for each in asked:
                nursery.start_soon(each.run)
            with contextlib.suppress(BrokerUnavailable):
                await link.subscribe("SUBSCRIBE", ["a"])
            await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert not link.is_up
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)
        for each in asked:
            assert each.reply is not None or isinstance(each.failure, BrokerUnavailable)
        for connection in server.connections:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await connection.stream.send_all(b"x")
    return steps.seen


async def test_cancelled_at_any_step_it_leaves_nobody_waiting_and_nothing_open() -> None:
    steps = await run_and_cancel(None)
    assert steps > 15
    for step in range(steps):
        await run_and_cancel(step)


async def test_a_bug_in_who_takes_pushes_is_raised_and_nobody_waits_for_ever(server: ScriptedRedis) -> None:
    def fail(_pushes: list[list[Any]]) -> None:
        raise ZeroDivisionError

    link = make_link(server.dial, on_pushes=fail)
    async with server.running():
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: link.run(task_status=task_status))
                server.hold()
                asked = Asked(link, "GET", "a")
                nursery.start_soon(asked.run)
                await wait_all_tasks_blocked()
                server.connections[-1].send(push(b"message", b"a", b"x"))
        assert isinstance(asked.failure, BrokerUnavailable)
        assert not link.is_up


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak RESP"),
        (b"$-7\r\n", "does not speak RESP"),
        (b"+OK\r\n", "sent a bytes that nobody asked for"),
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
        (b"-MOVED nonsense\r\n", "sent an error that cannot be read"),
    ],
)
async def test_nonsense_ends_the_connection(server: ScriptedRedis, sent: bytes, told: str) -> None:
    async with server.running(), running_link(server.dial) as link:
        server.connections[-1].send(sent)
        await link.wait_down()
        assert told in link.why_down


async def test_what_came_before_the_nonsense_counts(server: ScriptedRedis) -> None:
    pushes: list[list[Any]] = []
    async with server.running(), running_link(server.dial, on_pushes=pushes.extend) as link:
        server.reply("GET", push(b"message", b"a", b"x") + bulk("right") + b"?\r\n")
        assert await link.execute("GET", "a") == b"right"
        assert pushes == [[b"message", b"a", b"x"]]
        assert not link.is_up


@pytest.mark.parametrize(
    "text",
    [
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "ERR Error running script (call to f_6b): @user_script:1: -READONLY You can't write to a read only replica.",
    ],
)
async def test_a_server_that_is_no_master_is_left(server: ScriptedRedis, text: str) -> None:
    server.reply("SET", error(text))
    for several in (False, True):
        async with server.running(), running_link(server.dial) as link:
            asked = link.execute_all([("GET", "a"), ("SET", "a", "1")]) if several else link.execute("SET", "a", "1")
            with pytest.raises(BrokerUnavailable, match=r"redis: .*(read only|loading|MASTER)"):
                await asked
            await link.wait_down()
            assert "serves no writes" in link.why_down


async def test_a_link_that_is_dropped_as_it_comes_up_was_not_up_for_anybody(server: ScriptedRedis) -> None:
    link = make_link(server.dial)
    came_up = trio.Event()

    class DropAtOnce:
        def started(self, value: None = None) -> None:
            link.drop("at once")

    async def note() -> None:
        await link.wait_up()
        came_up.set()

    async with server.running(), trio.open_nursery() as nursery:
        nursery.start_soon(note)
        with pytest.raises(LinkLost, match="at once"):
            await link.run(task_status=DropAtOnce())
        await wait_all_tasks_blocked()
        assert not came_up.is_set()
        nursery.start_soon(link.run)
        await came_up.wait()
        nursery.cancel_scope.cancel()


async def test_what_was_read_as_it_was_dropped_is_nobodys(server: ScriptedRedis) -> None:
    pushes: list[list[Any]] = []
    async with server.running(), running_link(server.dial, on_pushes=pushes.extend) as link:
        await wait_all_tasks_blocked()
        server.connections[-1].send(push(b"message", b"a", b"x"))
        link.drop("moved")
        await wait_all_tasks_blocked()
        assert pushes == []
        with pytest.raises(BrokerUnavailable, match="redis: moved"):
            await link.execute_unready("GET", "a")


async def test_a_connection_that_cannot_be_written_to_is_left_when_the_server_has_no_last_words(
    server: ScriptedRedis, autojump_clock: MockClock
) -> None:
    async def dial() -> trio.abc.Stream:
        stream = await server.dial()
        assert isinstance(stream, trio.StapledStream)
        send_all = stream.send_all

        async def breaking(data: bytes) -> None:
            if b"GET" in data:
                raise trio.BrokenResourceError from BrokenPipeError(32, "Broken pipe")
            await send_all(data)

        stream.send_all = breaking  # type: ignore[method-assign, assignment]
        return stream

    async with server.running(), running_link(dial) as link:
        with pytest.raises(BrokerUnavailable, match="redis: the connection broke: Broken pipe"):
            await link.execute("GET", "a")


@pytest.mark.parametrize(
    ("failure", "told"), [(LinkLost("no route"), "no route"), (ConnectionRefusedError(111, "refused"), "refused")]
)
async def test_why_it_cannot_connect_is_told(server: ScriptedRedis, failure: Exception, told: str) -> None:
    server.refusal = failure
    link = make_link(server.dial)
    with pytest.raises(LinkLost, match=f"^{told}$"):
        await link.run()
    with pytest.raises(BrokerUnavailable, match=f"^redis: {told}$"):
        await link.execute("GET", "a")
