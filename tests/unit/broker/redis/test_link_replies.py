"""The queue of who waits for a reply, without a link around it."""

import gc
import weakref
from typing import Any

import pytest
import trio
from redis.exceptions import ResponseError
from trio.lowlevel import wait_task_rescheduled
from trio.testing import wait_all_tasks_blocked

from notifyd.broker.redis.replies import ConversationBroken, ReplyQueue, SeveralWaiter, Waiter, encode_command
from notifyd.errors import BrokerUnavailable


class Time:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def queue(time: Time) -> ReplyQueue:
    return ReplyQueue("redis", 10, 1000, time)


async def ask(queue: ReplyQueue, *command: str) -> Any:
    waiter = Waiter(encode_command(command))
    queue.add(waiter)
    await wait_task_rescheduled(waiter.leave)
    return waiter.result()


def receive(queue: ReplyQueue, data: bytes) -> list[Any]:
    pushes: list[Any] = []
    queue.receive(data, pushes)
    return pushes


def test_commands_are_written_as_resp() -> None:
    assert encode_command(["SET", "ä", b"\xff", 7, 0.5]) == (
        b"*5\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$1\r\n\xff\r\n$1\r\n7\r\n$3\r\n0.5\r\n"
    )
    assert encode_command([bytearray(b"a"), memoryview(b"bc")]) == b"*2\r\n$1\r\na\r\n$2\r\nbc\r\n"
    for wrong in (None, True, object()):
        with pytest.raises(TypeError):
            encode_command(["SET", "a", wrong])  # type: ignore[list-item]


async def test_all_that_is_unsent_is_taken_as_one(queue: ReplyQueue, nursery: trio.Nursery) -> None:
    for name in "abc":
        nursery.start_soon(ask, queue, "GET", name)
    await wait_all_tasks_blocked()
    taken = queue.take_unsent()
    assert sorted(taken.split(b"*2")[1:]) == sorted(encode_command(["GET", name])[2:] for name in "abc")
    assert queue.take_unsent() == b""
    assert (queue.commands, queue.unanswered_bytes) == (3, len(taken))
    assert receive(queue, b"_\r\n_\r\n_\r\n") == []
    assert (queue.commands, queue.unanswered_bytes) == (0, 0)


async def test_the_age_of_the_oldest_command_is_known(queue: ReplyQueue, time: Time, nursery: trio.Nursery) -> None:
    assert queue.oldest_s is None
    for time.now_s in (1.0, 2.0, 3.0):
        nursery.start_soon(ask, queue, "GET", "a")
        await wait_all_tasks_blocked()
        if time.now_s < 3.0:
            queue.take_unsent()
    assert queue.oldest_s == 1.0
    receive(queue, b"_\r\n")
    assert queue.oldest_s == 2.0
    receive(queue, b"_\r\n")
    assert queue.oldest_s == 3.0
    queue.take_unsent()
    receive(queue, b"_\r\n")
    assert queue.oldest_s is None


async def test_the_writer_is_woken_by_the_first_command(queue: ReplyQueue, nursery: trio.Nursery) -> None:
    taken: list[bytes] = []

    async def write() -> None:
        for _ in range(2):
            await queue.wait_unsent()
            taken.append(queue.take_unsent())

    nursery.start_soon(write)
    for _ in range(2):
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, queue, "GET", "a")
        await wait_all_tasks_blocked()
        receive(queue, b"_\r\n")
    assert taken == [encode_command(["GET", "a"])] * 2
    with trio.move_on_after(0) as scope:
        await queue.wait_unsent()
    assert scope.cancelled_caught


async def test_failing_tells_everybody(queue: ReplyQueue) -> None:
    failures: list[BrokerUnavailable] = []

    async def note(name: str) -> None:
        try:
            await ask(queue, "GET", name)
        except BrokerUnavailable as failure:
            failures.append(failure)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "written")
        await wait_all_tasks_blocked()
        queue.take_unsent()
        nursery.start_soon(note, "unsent")
        await wait_all_tasks_blocked()
        queue.fail("the connection broke")
    assert list(map(str, failures)) == ["the connection broke"] * 2
    assert (queue.commands, queue.unanswered_bytes, queue.oldest_s) == (0, 0, None)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"GET / HTTP/1.1\r\n", "does not speak RESP"),
        (b"+OK\r\n", "sent a bytes that nobody asked for"),
        (b"*1\r\n:1\r\n", "sent a list that nobody asked for"),
        (b"-DENIED Redis is running in protected mode\r\n", "refused the connection: DENIED Redis is running"),
        (b"-ASK x\r\n", "sent an error that cannot be read"),
    ],
)
def test_what_nobody_asked_for_breaks_the_conversation(queue: ReplyQueue, data: bytes, told: str) -> None:
    with pytest.raises(ConversationBroken, match=told):
        receive(queue, data)


async def test_a_torn_reply_waits_for_its_rest(queue: ReplyQueue, nursery: trio.Nursery) -> None:
    replies: list[Any] = []

    async def note() -> None:
        replies.append(await ask(queue, "GET", "a"))

    nursery.start_soon(note)
    await wait_all_tasks_blocked()
    queue.take_unsent()
    for byte in b">2\r\n$1\r\nx\r\n:1\r\n$5\r\nhello\r\n":
        receive(queue, bytes([byte]))
    await wait_all_tasks_blocked()
    assert replies == [b"hello"]


async def test_an_error_leaves_no_circle_of_references(queue: ReplyQueue) -> None:
    """Circles would keep failed calls, and what their frames hold, until the collector comes."""
    seen: list[weakref.ref[Any]] = []

    async def note() -> None:
        try:
            await ask(queue, "GET", "a")
        except ResponseError as failure:
            seen.append(weakref.ref(failure))

    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note)
            await wait_all_tasks_blocked()
            queue.take_unsent()
            receive(queue, b"-ERR no\r\n")
        assert [reference() for reference in seen] == [None]
    finally:
        gc.enable()


async def test_a_group_counts_as_its_commands(queue: ReplyQueue) -> None:
    with pytest.raises(BrokerUnavailable, match="0 commands of 10"):
        queue.add(SeveralWaiter([("GET", "a")] * 11))
    with pytest.raises(BrokerUnavailable, match="0 bytes of 1000"):
        queue.add(Waiter(b"x" * 1001))
    queue.add(SeveralWaiter([("GET", "a")] * 10))
    assert queue.commands == 10
    with pytest.raises(BrokerUnavailable, match="10 commands of 10"):
        queue.add(Waiter(b"x"))


async def test_how_long_commands_took_is_told_once_for_each_write(time: Time, nursery: trio.Nursery) -> None:
    told: list[tuple[float, int]] = []
    queue = ReplyQueue("redis", 10, 1000, time, lambda took_s, commands: told.append((took_s, commands)))
    for time.now_s, name in enumerate(("a", "b", "c"), start=5):
        nursery.start_soon(ask, queue, name)
        await wait_all_tasks_blocked()
        if name != "a":
            queue.take_unsent()
    time.now_s = 8
    receive(queue, b"+OK\r\n")
    assert told == []
    time.now_s = 9
    receive(queue, b"+OK\r\n")
    assert told == [(4, 2)]
    time.now_s = 10
    receive(queue, b"+OK\r\n")
    assert told == [(4, 2), (3, 1)]
