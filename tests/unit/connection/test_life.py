"""How connections end, whoever ends them and however; and that nothing but the connection ends with them."""

from typing import Any
from unittest.mock import patch

import pytest
import trio
from trio.testing import MockClock

from notifyd.connection import life
from notifyd.connection.connection import WRITE_DEADLINE_S, Connection
from notifyd.errors import StreamBroken
from notifyd.hub.hub import Hub
from notifyd.settings import LimitSettings
from protocol.codec import FrameType, encode_frame, encode_heartbeat
from protocol.errors import CloseCode
from tests.kit.clients import Client
from tests.kit.memory_node import TRANSPORTS, MemoryNode, open_memory_node, policy, queued_bytes_of, settings
from tests.kit.memory_stream import MemoryStream
from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, TEXT, frame, unmasked

on_both = pytest.mark.parametrize("transport", TRANSPORTS)

DEVICE_FAULTS = {
    b"GET / HTTP/1.1\r\n": 4000,
    b"HEAD": 4000,
    b"HEAR\x04" + bytes(11): 4000,
    b"HEAR\x00" + bytes(10) + b"\x01": 4000,
    encode_frame(FrameType.JSON, b""): 4000,
    encode_frame(FrameType.JSON, b"{"): 4000,
    encode_frame(FrameType.JSON, b"[]"): 4000,
    encode_frame(FrameType.JSON, b'{"op":5}'): 4000,
    encode_frame(FrameType.JSON, b'{"id":5}'): 4000,
    encode_frame(FrameType.JSON, b'\xff{"op":"ping","id":1}'): 4000,
    encode_frame(FrameType.MSGPACK, b"\xc1"): 4000,
    encode_frame(FrameType.MSGPACK, b"\x90"): 4000,
    encode_frame(FrameType.JSON, b"x" * 65_537)[:16]: 4013,
}
WEBSOCKET_FAULTS = {
    frame(TEXT, b""): 4000,
    frame(TEXT, b"{"): 4000,
    frame(TEXT, b"[1]"): 4000,
    frame(BINARY, b""): 4000,
    frame(BINARY, b"HEAR"): 4000,
    frame(BINARY, encode_heartbeat(FrameType.PING, 1) + b"H"): 4000,
    frame(BINARY, b"X" * 16): 4000,
    frame(BINARY, encode_frame(FrameType.JSON, b"x" * 65_537)[:16]): 4013,
    frame(TEXT, b"\xff"): 1007,
    frame(TEXT, b"x" * 65_537)[:14]: 1009,
    frame(TEXT, b"x" * 60_000, final=False) + frame(CONTINUATION, b"x" * 6000)[:8]: 1009,
    frame(TEXT, b"", final=False) + frame(CONTINUATION, b"", final=False) * 1024: 1008,
    frame(3): 1002,
    frame(TEXT, b"{}", reserved=4): 1002,
    unmasked(TEXT, b"{}"): 1002,
    frame(CONTINUATION, b"{}"): 1002,
    frame(CLOSE, b"\x03"): 1002,
    frame(CLOSE, b"\x03\xe8\xff"): 1007,
}


class TestFaults:
    @pytest.mark.parametrize(("data", "code"), DEVICE_FAULTS.items(), ids=range(len(DEVICE_FAULTS)))
    async def test_on_a_device_link(self, data: bytes, code: int, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected("device")
            await client.send_data(client.written({"op": "ping", "id": 9}) + data)
            assert (await client.end()).code == code
            assert client.pushes[0] == {"op": "pong", "id": 9}, "the whole frames before it count"
            await node.let_go()
            assert node.barrier_hits == 0
            assert node.events.counted("connections_closed", transport="device", reason=CloseCode(code).reason) == 1
            node.assert_empty()

    @pytest.mark.parametrize(("data", "code"), WEBSOCKET_FAULTS.items(), ids=range(len(WEBSOCKET_FAULTS)))
    async def test_on_a_websocket(self, data: bytes, code: int, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected("websocket")
            await client.send_data(client.written({"op": "ping", "id": 9}) + data)
            assert (await client.end()).code == code
            assert client.pushes[0] == {"op": "pong", "id": 9}
            await node.let_go()
            assert node.barrier_hits == 0
            node.assert_empty()

    async def test_the_whole_frames_of_a_binary_message_count(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected("websocket")
            good = encode_heartbeat(FrameType.PING, 5) + encode_frame(FrameType.JSON, b'{"op":"ping","id":9}')
            await client.send_data(frame(BINARY, good + b"HEAR!"))
            assert (await client.end()).code == 4000
            assert client.heartbeats == [(FrameType.PONG, 5)]
            assert list(client.pushes) == [{"op": "pong", "id": 9}]

    async def test_a_peer_that_answers_the_close_never(self, autojump_clock: MockClock) -> None:
        """It has five seconds, from the fault on."""
        async with open_memory_node() as node:
            client = await node.connected("websocket")
            await client.send_data(frame(TEXT, b"{"))
            await node.let_go()
            assert node.time_s() <= 5 + 2
            node.assert_empty()


class TestSlow:
    @on_both
    async def test_who_takes_nothing_for_ten_seconds_is_too_slow(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(settings(topics=(policy("**", overflow="gap"),))) as node:
            client = await node.connected(transport, capacity_bytes=400)
            await client.ask("subscribe", topic="a:b")
            began_s = node.time_s()
            for _ in range(10):
                await node.hub.publish("a:b", "x" * 100)
            await node.sleep(WRITE_DEADLINE_S - 0.1)
            assert not node.connections[0].ended
            await node.sleep(0.2)
            assert not node.connections
            await node.let_go()
            assert node.time_s() - began_s <= WRITE_DEADLINE_S + 1 + 2.1
            assert node.events.counted("connections_closed", reason="too_slow") == 1
            node.assert_empty()

    @on_both
    async def test_who_reads_slowly_but_steadily_is_not(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport, capacity_bytes=1000)
            await client.ask("subscribe", topic="a:b")
            for number in range(30):
                await node.hub.publish("a:b", number)
            received = b""
            while len(received) < 2000:
                await node.sleep(5)
                await client.send_heartbeat(FrameType.PING, 1)
                received += await client.stream.receive_some(200)
            assert node.connections

    @on_both
    async def test_more_than_the_queue_holds_is_too_slow_at_once(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        limits = LimitSettings(queue_bytes=10_000)
        async with open_memory_node(settings(limits=limits)) as node:
            slow = await node.connected(transport, capacity_bytes=500)
            healthy = await node.connected(transport)
            for client in (slow, healthy):
                await client.ask("subscribe", topic="a:b")
            for number in range(200):
                await node.hub.publish("a:b", number)
                if number % 20 == 0:
                    await node.sleep(0)
                assert max(queued_bytes_of(node)) <= 10_000
            assert node.events.counted("overflows", policy="disconnect") == 1
            assert [(await healthy.next_push())["data"] for _ in range(200)] == [*range(200)]
            assert (await slow.end()).code == 4009
            assert node.time_s() < 1
            slow.stream.close()
            healthy.stream.end()
            await node.let_go()
            node.assert_empty()

    @on_both
    async def test_replies_that_nobody_reads_are_too_slow_too(self, transport: str, autojump_clock: MockClock) -> None:
        limits = LimitSettings(queue_bytes=5000)
        async with open_memory_node(settings(limits=limits)) as node:
            client = await node.connected(transport, capacity_bytes=500)
            await client.send_data(client.written({"op": "history", "id": 1, "topic": "a:b"}) * 100)
            await node.sleep(0)
            assert (await client.end()).code == 4009

    @on_both
    async def test_a_gap_is_told_where_the_policy_says_so(self, transport: str, autojump_clock: MockClock) -> None:
        limits = LimitSettings(queue_bytes=5000)
        topics = (policy("a:*", overflow="gap"),)
        async with open_memory_node(settings(limits=limits, topics=topics)) as node:
            client = await node.connected(transport, capacity_bytes=500)
            await client.ask("subscribe", topic="a:b")
            for _ in range(100):
                await node.hub.publish("a:b", None)
            gap = {}
            while gap.get("op") != "gap":
                offset = gap.get("offset", 0)
                gap = await client.next_push()
            assert (gap["from"], gap["to"], gap["reason"]) == (offset + 1, 100, "slow")
            await node.hub.publish("a:b", None)
            assert (await client.next_push())["offset"] == 101
            history = await client.ask("history", topic="a:b", since={"epoch": gap["epoch"], "offset": offset})
            assert history["messages"][0]["offset"] == offset + 1


class TestLeaving:
    @on_both
    @pytest.mark.parametrize("leave", ["end", "close", "reset"])
    async def test_a_client_may_leave_as_it_likes(self, transport: str, leave: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport)
            await client.ask("subscribe", topic="a:b")
            getattr(client.stream, leave)()
            if leave == "end":
                assert (await client.end()).code is None
            await node.let_go()
            node.assert_empty()
            assert node.barrier_hits == 0
            assert node.events.counted("connections_closed", reason="normal") == 1

    @on_both
    async def test_half_a_message_is_no_fault_when_the_client_leaves(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport)
            await client.send_data(client.written({"op": "ping", "id": 1})[:-3])
            client.stream.end()
            assert (await client.end()).code is None

    @on_both
    async def test_a_reset_while_something_is_sent(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport, capacity_bytes=400)
            await client.ask("subscribe", topic="a:b")
            for _ in range(10):
                await node.hub.publish("a:b", "x" * 100)
            await node.sleep(1)
            client.stream.reset()
            await node.let_go()
            node.assert_empty()
            assert node.barrier_hits == 0

    @on_both
    async def test_a_reset_that_only_the_fan_out_notices(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            broken, healthy = await node.connected(transport), await node.connected(transport)
            for client in (broken, healthy):
                await client.ask("subscribe", topic="a:b")
            with patch.object(node.served[0].stream, "send_now", side_effect=StreamBroken("gone")):
                for _ in range(3):
                    await node.hub.publish("a:b", None)
                await node.sleep(0)
            assert [(await healthy.next_push())["offset"] for _ in range(3)] == [1, 2, 3]
            assert len(node.connections) == 1
            assert node.barrier_hits == 0

    @on_both
    async def test_the_first_reason_is_the_one_told(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport)
            connection = node.connections[0]
            connection.end(CloseCode.FORBIDDEN, "first")
            connection.end(CloseCode.TOO_SLOW, "second")
            assert (await client.end()).code == 4003
            connection.end(CloseCode.TOO_SLOW, "after all is over")

    @on_both
    async def test_the_node_ends(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport)
            node.cancel_connections()
            assert (await client.end()).code == 1012
            await node.let_go()
            node.assert_empty()

    @on_both
    async def test_what_was_queued_before_the_end_is_sent(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport, capacity_bytes=300)
            await client.ask("subscribe", topic="a:b")
            for number in range(10):
                await node.hub.publish("a:b", number)
            node.connections[0].end(CloseCode.RESTART, "bye")
            assert (await client.end()).code == 1012
            assert [push["data"] for push in client.pushes if push["op"] == "message"] == [*range(10)]


class TestBarrier:
    """A bug ends one connection, is counted once, and harms no other."""

    async def check(self, node: MemoryNode, transport: str, provoke: Any, code: int | None = 1011) -> None:
        healthy = await node.connected(transport)
        await healthy.ask("subscribe", topic="h:h")
        client = await node.connected(transport)
        await provoke(client)
        assert (await client.end()).code == code
        await node.sleep(10)
        assert node.barrier_hits == 1
        line = node.events.logged("connection_failed")[0]
        assert "a bug" in line["traceback"]
        await node.hub.publish("h:h", 1)
        assert (await healthy.next_push())["data"] == 1
        healthy.stream.end()
        await node.let_go()
        node.assert_empty()

    @on_both
    async def test_in_a_handler(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            with patch.object(Hub, "presence", side_effect=RuntimeError("a bug")):
                await self.check(node, transport, lambda client: client.send({"op": "presence", "id": 9, "topic": "a"}))

    @on_both
    async def test_in_the_writer(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            bugs = iter([RuntimeError("a bug")])

            async def wait_writable(stream: MemoryStream) -> None:
                for bug in bugs:
                    raise bug
                await genuine(stream)

            async def provoke(client: Client) -> None:
                await client.ask("subscribe", topic="a:b")
                await node.hub.publish("a:b", "x" * 100_000)
                await node.sleep(0)

            genuine = MemoryStream.wait_writable
            with patch.object(MemoryStream, "wait_writable", wait_writable):
                await self.check(node, transport, provoke)

    @on_both
    async def test_while_the_session_is_handed_over(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            node.broker.fail("save_session", RuntimeError("a bug"))

            async def provoke(client: Client) -> None:
                await client.ask("subscribe", topic="a:b")
                client.stream.end()

            await self.check(node, transport, provoke)

    @on_both
    async def test_while_it_is_closed(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            bugs = iter([RuntimeError("a bug")])

            async def finish(stream: MemoryStream, deadline_s: float) -> None:
                for bug in bugs:
                    raise bug
                await genuine(stream, deadline_s)

            genuine = MemoryStream.finish
            with patch.object(MemoryStream, "finish", finish):
                code = 4000 if transport == "device" else 1002
                await self.check(node, transport, lambda client: client.send_data(b"\0" * 20), code)

    @on_both
    async def test_several_at_once_are_one(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:

            async def fail(connection: Connection) -> None:
                raise RuntimeError("a bug in a task")

            async def provoke(client: Client) -> None:
                connection = node.connections[-1]
                connection.nursery.start_soon(fail, connection)
                connection.nursery.start_soon(fail, connection)

            await self.check(node, transport, provoke)

    @on_both
    async def test_a_cancellation_passes_with_the_bug_counted(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected(transport)

            async def fail_when_cancelled() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise RuntimeError("a bug")

            node.connections[0].nursery.start_soon(fail_when_cancelled)
            await node.sleep(0)
            node.cancel_connections()
            await client.end()
            await node.let_go()
            assert node.served[0].scope.cancelled_caught
            assert node.barrier_hits == 1
            node.assert_empty()


@on_both
async def test_a_blocked_send_during_the_last_steps_harms_nobody(transport: str, autojump_clock: MockClock) -> None:
    """Between the end of a connection's tasks and its leaving, the fan-out may still find its socket full."""
    async with open_memory_node() as node:
        leaving, healthy = await node.connected(transport), await node.connected(transport)
        for client in (leaving, healthy):
            await client.ask("subscribe", topic="a:b")
        dying_stream = node.served[0].stream

        dying = node.connections[0]
        blocked = []

        class Publishing(trio.abc.Instrument):
            """Fills the socket in the moment when the nursery takes no task any more."""

            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if dying.nursery._closed and not blocked:
                    dying_stream._outgoing.capacity_bytes = 0
                    dying.outbox.put_frame(b"x")
                    dying.outbox.flush()
                    blocked.append(dying.outbox.is_blocked)

        publishing = Publishing()
        trio.lowlevel.add_instrument(publishing)
        dying.end(CloseCode.FORBIDDEN, "bye")
        await node.sleep(1)
        trio.lowlevel.remove_instrument(publishing)
        assert blocked == [True]
        await node.hub.publish("a:b", 1)
        assert (await healthy.next_push())["data"] == 1
        await node.sleep(20)
        assert len(node.connections) == 1


def test_the_deadlines_fit_together() -> None:
    assert life.STOPPED_DEADLINE_S < life.BLOCKED_DEADLINE_S < life.CLOSE_DEADLINE_S < WRITE_DEADLINE_S
