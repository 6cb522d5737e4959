"""Any interleaving of what can happen to a link: everybody gets his own reply or BrokerUnavailable, nobody hangs.

Hypothesis chooses the steps and where the server's bytes are torn apart. Every command carries a number of its own, and
the server's answer to it, of whatever kind, carries it back.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
import trio
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import RedisError
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.broker.redis.link import Link
from notifyd.errors import BrokerUnavailable
from tests.kit.redis_links import AGAIN_S, running_link
from tests.kit.scripted_redis import ScriptedConnection, ScriptedRedis, array, bulk, error, integer, null, push

DEADLINE_S = 1.0

KINDS = ("bulk", "integer", "null", "array", "error", "nested error", "large", "read only")

STEPS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(KINDS[:-1])),
    st.tuples(st.just("ask"), st.sampled_from(KINDS)),
    st.tuples(st.just("ask several"), st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)),
    st.tuples(st.just("subscribe"), st.integers(0, 3)),
    st.tuples(st.just("refused subscription"), st.none()),
    st.tuples(st.just("unsubscribe"), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("cancel now"), st.integers(0, 50)),
    st.tuples(st.just("send"), st.integers(1, 40)),
    st.tuples(st.just("send"), st.integers(100, 100_000)),
    st.tuples(st.just("push"), st.sampled_from([b"message", b"sunsubscribe", b"subscribe", b"invalidate"])),
    st.tuples(st.just("settle"), st.none()),
    st.tuples(st.just("wait"), st.floats(0.01, 0.6)),
    st.tuples(st.sampled_from(["end", "reset", "drop", "nonsense", "settle", "settle", "settle"]), st.none()),
)


class Caller:
    """One call in a task of its own, and whether what came of it is right."""

    def __init__(self, number: int, kinds: Sequence[str], call: Any) -> None:
        self.number = number
        self.kinds = kinds
        self.scope = trio.CancelScope()
        self.outcome = "none"
        self._call = call

    async def run(self) -> None:
        with self.scope:
            try:
                reply = await self._call()
            except BrokerUnavailable:
                self.outcome = "unavailable"
            except RedisError as failure:
                self.check_failure(failure)
            else:
                self.check(reply)

    def check_failure(self, failure: Exception) -> None:
        self.outcome = "own reply"
        assert self.kinds[0] in ("error", "refused"), (self.kinds, failure)
        assert f"number {self.number}" in str(failure)

    def check(self, reply: Any) -> None:
        self.outcome = "own reply"
        if self.kinds[0] in ("refused", "pushes"):
            assert self.kinds[0] == "pushes"
            assert reply is None
        elif len(self.kinds) == 1:
            check_reply(self.kinds[0], self.number, reply)
        else:
            assert len(reply) == len(self.kinds)
            for kind, each in zip(self.kinds, reply, strict=True):
                check_reply(kind, self.number, each)


def check_reply(kind: str, number: int, reply: Any) -> None:
    match kind:
        case "bulk":
            assert reply == b"number %d" % number
        case "integer":
            assert reply == number
        case "null":
            assert reply is None
        case "array":
            assert reply == [b"number", number]
        case "large":
            assert reply == b"%d " % number * 10_000
        case "nested error":
            assert reply[0] == number
            assert f"number {number}" in str(reply[1])
        case "read only":
            raise AssertionError("this is no reply")
        case "error":
            assert isinstance(reply, RedisError)
            assert f"number {number}" in str(reply)


def answer(command: list[bytes]) -> bytes:
    kind, number = command[1].decode(), int(command[2])
    match kind:
        case "bulk":
            return bulk(b"number %d" % number)
        case "integer":
            return integer(number)
        case "null":
            return null()
        case "array":
            return array(bulk(b"number"), integer(number))
        case "large":
            return bulk(b"%d " % number * 10_000)
        case "nested error":
            return array(integer(number), error(f"ERR number {number}"))
        case "read only":
            return error(f"READONLY number {number}")
    return error(f"WRONGTYPE number {number}")


def answer_subscription(command: list[bytes]) -> bytes:
    number = int(command[1].partition(b":")[0])
    if b"refused" in command[1]:
        return error(f"NOPERM number {number}")
    return b"".join(push(command[0].lower(), channel, 1) for channel in command[1:])


class World:
    """A link, its server, and who asked."""

    def __init__(self, server: ScriptedRedis, link: Link, nursery: trio.Nursery) -> None:
        self.server = server
        self.link = link
        self.callers: list[Caller] = []
        self._nursery = nursery

    def start(self, kinds: Sequence[str], call: Any) -> None:
        caller = Caller(len(self.callers), kinds, call)
        self.callers.append(caller)
        self._nursery.start_soon(caller.run)

    @property
    def connection(self) -> ScriptedConnection:
        return self.server.connections[-1]

    async def take(self, name: str, about: Any) -> None:
        if name in ("settle", "cancel"):
            await wait_all_tasks_blocked()
        if name == "wait":
            await trio.sleep(about)
        elif name.startswith("cancel"):
            if self.callers:
                self.callers[about % len(self.callers)].scope.cancel()
        elif name in ("ask", "ask several", "subscribe", "unsubscribe", "refused subscription"):
            self.ask(name, about)
        else:
            self.do(name, about)

    def ask(self, name: str, about: Any) -> None:
        number, link = len(self.callers), self.link
        if name == "ask":
            self.start([about], lambda: link.execute("X", about, number))
        elif name == "ask several":
            kinds = about if len(about) > 1 else [*about, "bulk"]
            self.start(kinds, lambda: link.execute_all([("X", kind, number) for kind in kinds]))
        elif name == "refused subscription":
            self.start(["refused"], lambda: link.subscribe("SSUBSCRIBE", [f"{number}:refused"]))
        else:
            channels = [f"{number}:{channel}" for channel in range(about)]
            self.start(["pushes"], lambda: link.subscribe(name.upper(), channels))

    def do(self, name: str, about: Any) -> None:
        match name:
            case "send":
                self.send(about)
            case "push":
                self.connection.held.append(push(about, b"a", b"number 1"))
            case "end":
                self.connection.end()
            case "reset":
                self.connection.reset()
            case "drop":
                self.link.drop("dropped")
            case "nonsense":
                self.connection.held.append(b"?\r\n")

    def send(self, count: int) -> None:
        """Send so many bytes of what is held: a torn reply as often as not."""
        connection = self.connection
        data = b"".join(connection.held)
        connection.held = [data[count:]]
        if data[:count]:
            connection.send(data[:count])


@given(steps=st.lists(STEPS, min_size=10, max_size=60), answers=st.booleans())
def test_everybody_gets_his_own_reply_or_is_told(steps: list[tuple[str, Any]], answers: bool) -> None:
    trio.run(go_through, steps, answers, clock=MockClock(autojump_threshold=0))


async def go_through(steps: list[tuple[str, Any]], answers: bool) -> None:
    server = ScriptedRedis()
    server.reply("X", answer)
    for verb in ("SUBSCRIBE", "UNSUBSCRIBE", "SSUBSCRIBE"):
        server.reply(verb, answer_subscription)
    async with server.running(), running_link(server.dial, deadline_s=DEADLINE_S, again=True) as link:
        async with trio.open_nursery() as nursery:
            world = World(server, link, nursery)
            server.hold()
            for name, about in steps:
                await world.take(name, about)
            if answers:
                await wait_all_tasks_blocked()
                server.release()
            began_s = trio.current_time()
        assert trio.current_time() - began_s <= DEADLINE_S + 1e-6
        innocent = ("own reply",) if answers and is_quiet(steps) else ("own reply", "unavailable")
        for caller in world.callers:
            assert caller.outcome in innocent or caller.scope.cancel_called
        await check_usable(server, link)


def is_quiet(steps: list[tuple[str, Any]]) -> bool:
    """Whether nothing happened that ends a connection."""
    waited_s = sum(about for name, about in steps if name == "wait")
    endings = {"end", "reset", "drop", "nonsense"}
    masters = any("read only" in about for name, about in steps if name.startswith("ask"))
    return waited_s < DEADLINE_S and not masters and not endings.intersection(name for name, _ in steps)


async def check_usable(server: ScriptedRedis, link: Link) -> None:
    """Whatever was, the link comes back, is empty, and answers rightly."""
    server.release()
    with trio.fail_after(10):
        while True:
            await link.wait_up()
            try:
                assert await link.execute("X", "bulk", 4711) == b"number 4711"
            except BrokerUnavailable:  # what was held before ended this connection too
                await trio.sleep(AGAIN_S)
            else:
                break
    assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


@given(data=st.data())
def test_a_split_anywhere_changes_nothing(data: st.DataObject) -> None:
    """The promise this rests on is hiredis's: replies and pushes do not depend on how bytes arrive."""
    whole = push(b"message", b"a", b"x") + bulk("abc") + error("ERR no") + array(integer(1), null()) + push(b"x")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))))
    expected, torn = hiredis.Reader(), hiredis.Reader()
    expected.feed(whole)
    found, wanted = [], []
    for first, last in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        torn.feed(whole[first:last])
        while (reply := torn.gets()) is not False:
            found.append((type(reply), str(reply)))
    while (reply := expected.gets()) is not False:
        wanted.append((type(reply), str(reply)))
    assert found == wanted
