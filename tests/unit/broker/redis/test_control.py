"""Nodes speak to all others or to one, ask and answer; what nobody understands is counted, and harms nobody."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from notifyd.broker.redis import control
from notifyd.broker.redis.control import Control
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.subscriber import ChannelSubscriber
from notifyd.errors import BrokerUnavailable
from tests.kit.memory_node import run_virtual
from tests.kit.scripted_servers import ScriptedServers
from tests.kit.services import open_services
from tests.recorded_events import RecordedEvents

NAMES = Names("test")


class ControlNode:
    """One node: what it was told, and what it answers."""

    def __init__(self, name: str, servers: ScriptedServers) -> None:
        self.events = RecordedEvents()
        self.told: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | None = {"yes": True}
        self.subscriber = ChannelSubscriber(
            servers,  # type: ignore[arg-type]
            deadline_s=1.0,
            probe_channel="probe",
            on_messages=self._take,
            on_restored=lambda _channels: None,
            events=self.events,
        )
        self.control = Control(
            self.subscriber,
            servers,  # type: ignore[arg-type]
            NAMES,
            name,
            events=self.events,
        )
        self.control.handlers["hear"] = self._hear

    def _take(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for channel, payload in messages:
            self.control.take(channel, payload)

    def _hear(self, message: dict[str, Any]) -> dict[str, Any] | None:
        self.told.append(message)
        return self.answer

    @property
    def malformed(self) -> int:
        return self.events.counted("malformed_arrivals")


@asynccontextmanager
async def open_nodes(*names: str, sharded: bool = False) -> AsyncIterator[tuple[ScriptedServers, list[ControlNode]]]:
    servers = ScriptedServers("a", sharded=sharded)
    nodes = [ControlNode(name, servers) for name in names]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            services = await nursery.start(_serve)
            await node.subscriber.start(services)
            await node.control.start(services)
        await trio.sleep(0.5)
        yield servers, nodes
        nursery.cancel_scope.cancel()


async def _serve(*, task_status: trio.TaskStatus[Any]) -> None:
    async with open_services() as services:
        task_status.started(services)
        await trio.sleep_forever()


@pytest.mark.parametrize("sharded", [False, True])
async def test_what_is_told_to_all_reaches_all_others(autojump_clock: MockClock, sharded: bool) -> None:
    async with open_nodes("n1", "n2", "n3", sharded=sharded) as (_, (one, two, three)):
        await one.control.tell(None, {"op": "hear", "n": 1})
        await trio.sleep(0.1)
        assert one.told == []  # whoever tells does it himself
        assert two.told == three.told == [{"op": "hear", "n": 1, "from": "n1"}]


async def test_what_is_told_to_one_reaches_that_one(autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2", "n3") as (_, (one, two, three)):
        await one.control.tell("n2", {"op": "hear"})
        await one.control.tell("n1", {"op": "hear"})
        await one.control.tell("nobody", {"op": "hear"})
        await trio.sleep(0.1)
        assert [len(node.told) for node in (one, two, three)] == [1, 1, 0]


@pytest.mark.parametrize("sharded", [False, True])
async def test_a_question_is_answered(autojump_clock: MockClock, sharded: bool) -> None:
    async with open_nodes("n1", "n2", sharded=sharded) as (_, (one, two)):
        two.answer = {"record": [1, {"a": None}]}
        assert await one.control.ask("n2", {"op": "hear", "session": "s"}, 1.0) == {"record": [1, {"a": None}]}
        assert two.told[0]["session"] == "s"
        assert one.told == []


async def test_many_questions_at_once_each_get_their_own_answer(autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2") as (_, (one, two)):
        two.control.handlers["double"] = lambda message: {"n": 2 * message["n"]}
        answers: dict[int, Any] = {}

        async def ask(number: int) -> None:
            answers[number] = await one.control.ask("n2", {"op": "double", "n": number}, 1.0)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
        assert answers == {number: {"n": 2 * number} for number in range(100)}
        assert one.control._questions == {}


async def test_who_is_not_there_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (_, (one,)):
        began_s = trio.current_time()
        assert await one.control.ask("nobody", {"op": "hear"}, 10.0) is None
        assert trio.current_time() - began_s < 0.1


async def test_who_does_not_answer_is_waited_for_until_the_deadline(autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2") as (_, (one, two)):
        two.answer = None
        began_s = trio.current_time()
        assert await one.control.ask("n2", {"op": "hear"}, 3.0) is None
        assert trio.current_time() - began_s == pytest.approx(3.0)
        assert len(two.told) == 1
        assert one.control._questions == {}


async def test_an_answer_that_comes_too_late_or_from_another_is_ignored(autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2", "n3") as (_, (one, two, three)):
        two.answer = None
        await one.control.ask("n2", {"op": "hear"}, 0.5)
        late = {"op": "answer", "to": two.told[0]["ask"], "answer": {"late": True}}
        await two.control.tell("n1", late)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_none, one)
            await trio.sleep(0.1)
            await three.control.tell("n1", {"op": "answer", "to": two.told[-1]["ask"], "answer": {"false": True}})
        assert one.malformed == 0


async def _none(one: ControlNode) -> None:
    assert await one.control.ask("n2", {"op": "hear"}, 0.5) is None


async def test_a_cancelled_question_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2") as (_, (one, two)):
        two.answer = None
        with trio.move_on_after(0.1):
            await one.control.ask("n2", {"op": "hear"}, 3.0)
        assert one.control._questions == {}


async def test_while_redis_is_away_telling_and_asking_fail(autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2") as (servers, (one, _)):
        servers.nodes["a"].crash()
        with pytest.raises(BrokerUnavailable):
            await one.control.tell(None, {"op": "hear"})
        with pytest.raises(BrokerUnavailable):
            await one.control.ask("n2", {"op": "hear"}, 1.0)
        assert one.control._questions == {}
        servers.nodes["a"].restart()
        await trio.sleep(3)
        assert await one.control.ask("n2", {"op": "hear"}, 1.0) == {"yes": True}


async def test_an_answer_that_cannot_be_sent_is_left_out(autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2") as (servers, (one, two)):
        servers.lost_table = True
        question = msgspec.msgpack.encode({"op": "hear", "from": "n1", "ask": 1})
        two.control.take(NAMES.control_of("n2"), question)
        await trio.sleep(0.1)
        assert len(two.events.logged("answer_not_sent")) == 1
        servers.lost_table = False
        assert await one.control.ask("n2", {"op": "hear"}, 1.0) == {"yes": True}


async def test_questions_and_answers_are_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_QUESTIONS", 3)
    monkeypatch.setattr(control, "MOST_ANSWERS", 3)
    async with open_nodes("n1", "n2") as (servers, (one, two)):
        two.answer = None
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one.control.ask, "n2", {"op": "hear"}, 0.5)
            await trio.sleep(0.1)
            with pytest.raises(BrokerUnavailable, match="3 questions to other nodes are under way"):
                await one.control.ask("n2", {"op": "hear"}, 0.5)
        two.answer = {}
        question = msgspec.msgpack.encode({"op": "hear", "from": "n1", "ask": 1})
        servers.nodes["a"].stall()
        for _ in range(30):
            two.control.take(NAMES.control_of("n2"), question)
        assert two.events.logged("answer_left_out")


async def test_what_is_on_other_channels_is_none_of_its_business(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (_, (one,)):
        one.control.take("test:channel:{t}", b"whatever")
        assert one.malformed == 0


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode({}),
        msgspec.msgpack.encode({"op": "hear"}),
        msgspec.msgpack.encode({"op": "unknown", "from": "n2"}),
        msgspec.msgpack.encode({"op": ["hear"], "from": "n2"}),
        msgspec.msgpack.encode({"op": "fail", "from": "n2"}),
        msgspec.msgpack.encode({"op": "hear", "from": 7, "ask": 1}),
        msgspec.msgpack.encode({"op": "answer", "from": "n2"}),
        msgspec.msgpack.encode({"op": "answer", "from": "n2", "to": [], "answer": {}}),
    ],
)
async def test_what_nobody_understands_is_counted_and_ignored(autojump_clock: MockClock, payload: bytes) -> None:
    def fail(message: dict[str, Any]) -> None:
        raise KeyError("session")

    async with open_nodes("n1", "n2") as (_, (one, two)):
        one.control.handlers["fail"] = fail
        one.control.take(NAMES.control(), payload)
        assert one.malformed == 1
        assert len(one.events.logged("malformed_arrival")) == 1
        assert await two.control.ask("n1", {"op": "hear"}, 1.0) == {"yes": True}


async def feed(payloads: list[bytes]) -> None:
    async with open_nodes("n1") as (_, (one,)):
        for payload in payloads:
            one.control.take(NAMES.control(), payload)
            one.control.take(NAMES.control_of("n1"), payload)


_plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=9), st.binary(max_size=9)
)
_values = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
_maps = st.dictionaries(
    st.sampled_from(["op", "from", "ask", "to", "answer"]), st.sampled_from(["hear", "answer", "n1", "n2"]) | _values
)


@given(st.lists(st.binary(max_size=50) | _values.map(msgspec.msgpack.encode) | _maps.map(msgspec.msgpack.encode)))
def test_no_bytes_ever_raise(payloads: list[bytes]) -> None:
    run_virtual(feed, payloads)
