"""One trace from a publisher to every delivery: two nodes over Redis, and a collector of the test's own."""

import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest
import trio

from notifyd.node import Node, open_node
from notifyd.settings import TracingSettings, Url, load
from notifyd.telemetry import Telemetry
from protocol.trace import trace_id_of
from tests.http_client import HttpClient
from tests.kit.collector import CollectedSpan, Collector, open_collector
from tests.kit.memory_node import policy
from tests.kit.redis_node import Caller, caller, open_redis_node
from tests.reliability.node_process import NodeProcess, started_node

pytestmark = pytest.mark.guard(60)

TRACE_ID, CALLERS_STEP = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{CALLERS_STEP}-01"
UNSAMPLED = f"00-{TRACE_ID}-{CALLERS_STEP}-00"
STEPS_OF_TWO_NODES = 6
"""Accepted and appended on one, fanned out and delivered on both."""

TOLD = policy("told:*", trace=True)
BRIEF = policy("brief:*", trace=True, history=0)


@asynccontextmanager
async def traced_pair(url: str, prefix: str, **tracing: Any) -> AsyncIterator[tuple[Node, Node, Collector]]:
    async with open_collector() as collector:
        section = TracingSettings(endpoint=Url(collector.url), service="orders", **tracing)
        async with (
            open_redis_node(url, prefix, "n1", TOLD, BRIEF, tracing=section) as one,
            open_redis_node(url, prefix, "n2", TOLD, BRIEF, tracing=section) as two,
        ):
            yield one, two, collector


async def listeners_of(topic: str, *nodes: Node) -> list[Caller]:
    clients = [await caller(node) for node in nodes]
    for client in clients:
        assert (await client.ask("subscribe", topic=topic))["op"] == "subscribed"
    return clients


async def next_message(client: Caller) -> dict[str, Any]:
    while not client.pushes:
        client.pushes.append(await client.line.next())
    return client.pushes.pop(0)


def one(spans: list[CollectedSpan], node: str, name: str) -> CollectedSpan:
    (found,) = [span for span in spans if (span.node, span.name) == (node, name)]
    return found


def assert_one_trace(spans: list[CollectedSpan], publisher: str, topic: str) -> CollectedSpan:
    """Check the six steps and their order; return the step in which the broker took the message."""
    assert len(spans) == STEPS_OF_TWO_NODES
    accept, append = one(spans, publisher, "accept"), one(spans, publisher, "append")
    assert append.parent == accept.id
    for node in ("n1", "n2"):
        fan_out, delivery = one(spans, node, "fan-out"), one(spans, node, "delivery")
        assert (fan_out.parent, delivery.parent) == (append.id, fan_out.id)
        assert fan_out.attributes["notifyd.connections"] == delivery.attributes["notifyd.connections"] == 1
        assert append.began_ns <= fan_out.began_ns <= fan_out.ended_ns <= delivery.began_ns <= delivery.ended_ns
    for span in spans:
        assert (span.trace_id, span.service, span.failed) == (accept.trace_id, "orders", False)
        assert span.attributes["messaging.system"] == "notifyd"
        assert span.attributes["messaging.destination.name"] == topic
        assert span.attributes["messaging.operation.name"] == span.name
    return append


@pytest.mark.parametrize("topic", ["told:a", "brief:a"], ids=["with history", "without history"])
async def test_one_trace_from_the_publisher_to_every_delivery(topic: str, redis_url: str, redis_prefix: str) -> None:
    async with traced_pair(redis_url, redis_prefix) as (n1, n2, collector):
        clients = await listeners_of(topic, n1, n2)
        assert n1.http_address is not None
        answer = await HttpClient(n1.http_address.port).ask(
            "POST",
            "/v1/publish",
            b'{"topic":"%s","data":{"secret":"s3cr3t"}}' % topic.encode(),
            [("traceparent", TRACEPARENT)],
        )
        assert answer.status == 200
        messages = [await next_message(client) for client in clients]
        spans = await collector.wait(lambda spans: len(spans) >= STEPS_OF_TWO_NODES)
        append = assert_one_trace(spans, "n1", topic)
        accept = one(spans, "n1", "accept")
        assert (accept.trace_id, accept.parent) == (TRACE_ID, CALLERS_STEP)
        assert accept.attributes["notifyd.transport"] == "http"
        assert [message["trace"] for message in messages] == [append.trace, append.trace]
        assert not any(b"s3cr3t" in body for body in collector.bodies)


async def test_a_publish_of_the_wire_on_the_other_node(redis_url: str, redis_prefix: str) -> None:
    async with traced_pair(redis_url, redis_prefix) as (n1, n2, collector):
        clients = await listeners_of("plain:a", n1, n2)
        await clients[1].ask("publish", topic="plain:a", data=1, trace=TRACEPARENT, key="k")
        spans = await collector.wait(lambda spans: len(spans) >= STEPS_OF_TWO_NODES)
        assert_one_trace(spans, "n2", "plain:a")
        assert one(spans, "n2", "accept").attributes["notifyd.transport"] == "device"
        assert "trace" not in await next_message(clients[0])  # the topic's policy does not tell it


async def test_a_repeated_publish_has_a_trace_of_its_own_and_the_message_the_first_ones(
    redis_url: str, redis_prefix: str
) -> None:
    other = TRACEPARENT.replace("4bf9", "5bf9")
    async with traced_pair(redis_url, redis_prefix) as (n1, n2, collector):
        (client,) = await listeners_of("told:a", n2)
        publisher = await caller(n1)
        for trace in (TRACEPARENT, other):
            await publisher.ask("publish", topic="told:a", data=1, key="k", trace=trace)
        await client.ask("ping")
        spans = await collector.wait(lambda spans: len(spans) >= 6)
        assert [(span.node, span.name) for span in spans if span.trace_id == trace_id_of(other)] == [
            ("n1", "append"),
            ("n1", "accept"),
        ]
        repeats = [span.attributes["notifyd.repeated"] for span in spans if span.name == "append"]
        assert repeats == [False, True]
        messages = [await next_message(client), *(await client.ask("history", topic="told:a"))["messages"]]
        assert [trace_id_of(message["trace"]) for message in messages] == [TRACE_ID, TRACE_ID]


async def test_an_unsampled_trace_is_passed_on_and_kept_by_nobody(redis_url: str, redis_prefix: str) -> None:
    async with traced_pair(redis_url, redis_prefix) as (n1, n2, collector):
        clients = await listeners_of("told:a", n1, n2)
        await clients[0].ask("publish", topic="told:a", data=1, trace=UNSAMPLED)
        assert [(await next_message(client))["trace"] for client in clients] == [UNSAMPLED, UNSAMPLED]
        await clients[0].ask("publish", topic="told:b", data=1, trace=TRACEPARENT)
        spans = await collector.wait(lambda spans: len(spans) >= 2)
        assert {span.attributes["messaging.destination.name"] for span in spans} == {"told:b"}


async def test_publishes_without_a_trace_begin_one_where_that_is_configured(redis_url: str, redis_prefix: str) -> None:
    async with traced_pair(redis_url, redis_prefix, ratio=1.0) as (n1, n2, collector):
        clients = await listeners_of("told:a", n1, n2)
        await clients[0].ask("publish", topic="told:a", data=1)
        spans = await collector.wait(lambda spans: len(spans) >= STEPS_OF_TWO_NODES)
        append = assert_one_trace(spans, "n1", "told:a")
        assert one(spans, "n1", "accept").parent == ""
        assert (await next_message(clients[1]))["trace"] == append.trace


async def test_a_refused_publish_is_a_failed_step(redis_url: str, redis_prefix: str) -> None:
    async with traced_pair(redis_url, redis_prefix) as (n1, _, collector):
        client = await caller(n1)
        assert (await client.ask("publish", topic="$sys", data=1, trace=TRACEPARENT))["code"] == 403
        (span,) = await collector.wait(bool)
        assert (span.name, span.failed, span.attributes["error.type"]) == ("accept", True, "forbidden")


async def publish_times(node: NodeProcess, count: int) -> None:
    client = HttpClient(node.ports["http"])
    for _ in range(count):
        headers = [("traceparent", TRACEPARENT)]
        assert (await client.ask("POST", "/v1/publish", b'{"topic":"a","data":1}', headers)).status == 200


async def ended_in_order(node: NodeProcess) -> None:
    node.process.terminate()
    assert await node.wait_ended() == 0
    assert node.failures == []


async def test_what_is_left_is_sent_when_a_process_ends() -> None:
    async with open_collector() as collector:
        environment = {"TRACING__ENDPOINT": f"{collector.url}/", "NODE__NAME": "alone"}
        with started_node(environment) as node:
            await publish_times(node, 20)
            await ended_in_order(node)
            assert node.events("spans_not_flushed") == []
        spans = await collector.wait(lambda spans: len(spans) >= 40)
        assert {span.node for span in spans} == {"alone"}
        assert len(spans) == 40


@pytest.mark.parametrize("fault", ["refuses", "is silent", "is away"])
async def test_a_collector_that_takes_nothing_harms_nobody(fault: str) -> None:
    async with open_collector() as collector:
        collector.status, collector.silent = (400 if fault == "refuses" else 200), fault == "is silent"
        url = f"http://127.0.0.1:{unused_port()}" if fault == "is away" else collector.url
        with started_node({"TRACING__ENDPOINT": url}) as node:
            await publish_times(node, 20)
            if fault == "refuses":
                await node.wait_metric("spans_lost_total", 40)
                assert "400" in (await node.wait_logged("spans_not_exported"))["problem"]
            began_s = trio.current_time()
            await ended_in_order(node)
            assert node.events("spans_not_flushed") or node.events("spans_not_exported")
            assert trio.current_time() - began_s < 15  # and not the 10 s an export may take, on top of the rest


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


async def test_a_bug_behind_http_is_logged_with_the_trace_of_its_request() -> None:
    anywhere, log = "127.0.0.1:0", io.StringIO()
    flags = {"auth.anonymous": True, "listen.websocket": "", "listen.device": "", "listen.http": anywhere}
    async with open_node(load(None, {}, flags), telemetry=Telemetry("error", stream=log)) as node:
        assert node.http_address is not None
        conversation = await HttpClient(node.http_address.port).open()
        async with conversation.stream:
            with patch.object(node.context.hub.broker, "publish", side_effect=ZeroDivisionError):
                for headers in ([("traceparent", TRACEPARENT)], []):
                    body = b'{"topic":"a","data":1}'
                    assert (await conversation.ask("POST", "/v1/publish", body, headers)).status == 500
    assert [json.loads(line).get("trace_id") for line in log.getvalue().splitlines()] == [TRACE_ID, None]
