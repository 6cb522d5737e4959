"""A publish with a trace, on the wire: accepted, appended, fanned out, delivered, and told where the policy says so."""

from typing import Any

import pytest
from trio.testing import MockClock

from notifyd.errors import BrokerUnavailable
from notifyd.tracing import CURRENT_TRACE, Step
from protocol.errors import RequestError
from protocol.trace import trace_id_of
from tests.kit.memory_node import ENCODINGS, MemoryNode, open_memory_node, policy, settings
from tests.kit.recorded_tracer import RecordedTracer
from tests.recorded_events import RecordedEvents

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOLD = settings(topics=(policy("told:**", trace=True), policy("**")))


class TracingEvents(RecordedEvents):
    """Notes the trace that a log line would name."""

    def log(self, level: str, event: str, **fields: Any) -> None:
        super().log(level, event, trace=CURRENT_TRACE.get(), **fields)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_each_step_follows_the_one_before(encoding: str, autojump_clock: MockClock) -> None:
    tracer = RecordedTracer()
    async with open_memory_node(TOLD, tracer=tracer) as node:
        ada, bob = await node.connected(encoding=encoding), await node.connected("websocket")
        await bob.ask("subscribe", topic="told:a")
        assert (await ada.ask("publish", topic="told:a", data=1, trace=TRACE))["op"] == "published"
        message = await bob.next_push()
        await node.sleep(0)
        accept, append, fan_out, delivery = tracer.steps
    assert [record.step for record in tracer.steps] == [*Step]
    assert [record.after for record in tracer.steps] == [TRACE, accept.trace, append.trace, fan_out.trace]
    assert all(record.ended and record.failure is None and record.topic == "told:a" for record in tracer.steps)
    assert accept.attributes == {"transport": "device"}
    assert append.attributes == {"repeated": False, "scope": "cluster"}
    assert (fan_out.attributes, delivery.attributes) == ({"connections": 1}, {"connections": 1, "blocked": 0})
    assert message["trace"] == append.trace


@pytest.mark.parametrize("trace", ["", "nonsense", TRACE.upper(), TRACE + "-", None])
async def test_what_is_no_trace_is_ignored(trace: str | None, autojump_clock: MockClock) -> None:
    tracer = RecordedTracer()
    async with open_memory_node(TOLD, tracer=tracer) as node:
        ada = await node.connected()
        await ada.ask("subscribe", topic="told:a")
        assert (await ada.ask("publish", topic="told:a", data=1, trace=trace))["op"] == "published"
        assert "trace" not in await ada.next_push()
    assert tracer.steps == []


async def test_a_trace_that_is_no_text_is_an_error(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        ada = await node.connected()
        assert (await ada.ask("publish", topic="a:b", data=1, trace=7))["reason"] == "bad_request"


async def test_only_where_the_policy_says_so_and_wherever_a_message_comes_from(autojump_clock: MockClock) -> None:
    async with open_memory_node(TOLD) as node:
        ada = await node.connected()
        for topic in ("told:a", "plain:a"):
            for trace in (TRACE, None):
                await ada.ask("publish", topic=topic, data=1, trace=trace)
        found = {}
        for topic in ("told:a", "plain:a"):
            history = (await ada.ask("history", topic=topic))["messages"]
            await ada.ask("subscribe", topic=topic, since="earliest")
            replayed = [await ada.next_push(), await ada.next_push()]
            found[topic] = [message.get("trace") for message in [*history, *replayed]]
    assert found == {"told:a": [TRACE, None] * 2, "plain:a": [None] * 4}


async def test_a_new_policy_holds_at_once(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        ada = await node.connected()
        await ada.ask("subscribe", topic="told:a")
        for told in (TOLD, settings()):
            node.context.reload(told)
            await ada.ask("publish", topic="told:a", data=1, trace=TRACE)
        assert [(await ada.next_push()).get("trace") for _ in range(2)] == [TRACE, None]


async def test_a_refusal_ends_its_step_and_is_nobodys_bug(autojump_clock: MockClock) -> None:
    tracer, events = RecordedTracer(), TracingEvents()
    closed = settings(topics=(policy("closed:*", publish="service"), policy("**")))
    async with open_memory_node(closed, tracer=tracer, events=events) as node:
        ada = await node.connected()
        assert (await ada.ask("publish", topic="closed:a", data=1, trace=TRACE))["code"] == 403
        node.broker.fail("publish", BrokerUnavailable("away"))
        assert (await ada.ask("publish", topic="a:b", data=1, trace=TRACE))["code"] == 503
        forbidden, accept, append = tracer.steps
        assert isinstance(forbidden.failure, RequestError)
        assert accept.failure is append.failure
        assert isinstance(accept.failure, BrokerUnavailable)
        break_publish(node)
        await ada.send({"op": "publish", "topic": "a:b", "data": 1})
        assert (await ada.end()).code == 1011
        assert [line["trace"] for line in events.logged("connection_failed")] == [None]


async def test_a_bug_is_logged_with_the_trace_of_its_request(autojump_clock: MockClock) -> None:
    events = TracingEvents()
    async with open_memory_node(events=events) as node:
        ada = await node.connected()
        break_publish(node)
        await ada.send({"op": "publish", "topic": "a:b", "data": 1, "trace": TRACE})
        assert (await ada.end()).code == 1011
        (line,) = events.logged("connection_failed")
        assert trace_id_of(line["trace"]) == trace_id_of(TRACE)


def break_publish(node: MemoryNode) -> None:
    node.broker.fail("publish", ZeroDivisionError("a bug"))
