"""The WebSocket transport below a connection: what reaches trio-websocket, and what leaves by the outbox."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from notifyd.transport.request_head import HeadReader
from notifyd.transport.websocket import WebSocketTransport, echo_frame, open_websocket, send_all
from protocol.codec import Frame, FrameType, encode_frame, encode_heartbeat
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.framing import Form
from tests.kit.clients import WebSocketClient
from tests.kit.frames import FrameReader
from tests.kit.memory_stream import MemoryStream, memory_pair
from tests.kit.scripted_sink import make_outbox
from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, PONG, TEXT, frame
from tests.unit.transport.client_frames import PING as PING_FRAME


class Opened:
    """An open WebSocket: our transport, its outbox, and the bytes of both directions."""

    def __init__(self, transport: WebSocketTransport, server: MemoryStream, client: WebSocketClient) -> None:
        self.transport = transport
        self.server = server
        self.client = client
        self.outbox = make_outbox(server, Form.WEBSOCKET_JSON, 10_000)  # type: ignore[arg-type]
        self.heard: list[int] = []

    def attach(self) -> None:
        """Let the transport have its outbox, and the answer to the handshake leave."""
        self.transport.attach(self.outbox)
        self.outbox.flush()
        pipe = self.client.stream._incoming
        assert bytes(pipe.buffer).startswith(b"HTTP/1.1 101 ")
        pipe.buffer.clear()

    def sent(self) -> list[object]:
        """What left for the client since the last call."""
        reader = FrameReader(Form.WEBSOCKET_JSON)
        pipe = self.client.stream._incoming
        reader.receive(bytes(pipe.buffer))
        pipe.buffer.clear()
        return reader.frames


@asynccontextmanager
async def opened(
    limit_bytes: int = 100,
    trailing: bytes = b"",
    *,
    attach: bool = True,
    connected: bool = True,
    subprotocol: str | None = None,
) -> AsyncIterator[Opened]:
    server, end = memory_pair()
    client = WebSocketClient(end)
    head = HeadReader().receive(
        client.request("/ws", **({"Sec_WebSocket_Protocol": subprotocol} if subprotocol else {}))
    )
    assert head is not None
    heard: list[int] = []
    async with trio.open_nursery() as nursery:
        transport = open_websocket(
            nursery,
            server,
            key=head.key,
            trailing=trailing,
            subprotocol=subprotocol,
            limit_bytes=limit_bytes,
            on_bytes=heard.append,
        )
        one = Opened(transport, server, client)
        one.heard = heard
        if attach:
            one.attach()
        if connected:
            transport.set_payload_limit(limit_bytes)
        yield one
        nursery.cancel_scope.cancel()


async def test_text_is_one_message_and_binary_whole_frames() -> None:
    async with opened() as one:
        binary = encode_heartbeat(FrameType.PING, 7) + encode_frame(FrameType.MSGPACK, b"\x80", 5)
        expected = [Frame(FrameType.JSON, 0, "{}"), Frame(FrameType.PING, 7), Frame(FrameType.MSGPACK, 5, b"\x80")]
        await one.client.send_data(frame(TEXT, b"{}"))
        assert await one.transport.receive() == expected[:1]
        await one.client.send_data(frame(BINARY, binary))
        assert await one.transport.receive() == expected[1:]


async def test_what_arrives_together_is_received_together() -> None:
    async with opened() as one:
        await one.client.send_data(frame(TEXT, b"{}"))
        assert await one.transport.receive()
        await one.client.send_data(b"".join(frame(TEXT, b"%d" % number) for number in range(20)))
        received = [await one.transport.receive() or [] for _ in range(2)]
        assert [frame.payload for frames in received for frame in frames] == [str(number) for number in range(20)]
        assert [len(frames) for frames in received] == [16, 4]


async def test_messages_keep_their_order_whoever_reads_them() -> None:
    """Those in several fragments, and those cut by the network, are read by trio-websocket."""
    fragments = frame(TEXT, b"b", final=False) + frame(PING_FRAME, b"p") + frame(CONTINUATION, b"b")
    async with opened() as one:
        await one.client.send_data(frame(TEXT, b"{}"))
        assert await one.transport.receive()
        cut = frame(TEXT, b"f" * 50)
        stream = frame(TEXT, b"a") + fragments + frame(TEXT, b"c") + frame(TEXT, b"d") + fragments + frame(TEXT, b"e")
        await one.client.send_data(stream + cut[:20])
        await wait_all_tasks_blocked()
        await one.client.send_data(cut[20:] + frame(TEXT, b"g"))
        payloads: list[str | bytes] = []
        while len(payloads) < 8:
            payloads += [frame.payload for frame in await one.transport.receive() or []]
        assert payloads == ["a", "bb", "c", "d", "bb", "e", "f" * 50, "g"]
        assert one.sent() == [(PONG, b"p")] * 2


async def test_a_close_waits_until_what_came_before_it_has_been_answered() -> None:
    async with opened() as one:
        await one.client.send_data(frame(TEXT, b"{}"))
        assert await one.transport.receive()
        await one.client.send_data(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(CLOSE, b"\x03\xe8"))
        assert len(await one.transport.receive() or []) == 2
        await wait_all_tasks_blocked()
        one.outbox.put_frame(b"\x81\x017")
        one.outbox.flush()
        assert await one.transport.receive() is None
        assert one.sent() == [7, (CLOSE, b"\x03\xe8")]


async def test_a_close_with_the_end_of_a_message_does_not_wait_for_it() -> None:
    async with opened() as one:
        await one.client.send_data(frame(TEXT, b"1", final=False))
        await wait_all_tasks_blocked()
        await one.client.send_data(frame(CONTINUATION, b"2") + frame(CLOSE, b"\x03\xe8"))
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "12")]
        assert await one.transport.receive() is None


@pytest.mark.parametrize(
    ("subprotocol", "form"),
    [
        (None, Form.WEBSOCKET_JSON),
        ("notifyd.v1.json", Form.WEBSOCKET_JSON),
        ("notifyd.v1.msgpack", Form.WEBSOCKET_MSGPACK),
    ],
)
async def test_the_subprotocol_is_the_form(subprotocol: str | None, form: Form) -> None:
    async with opened(subprotocol=subprotocol) as one:
        assert one.transport.form is form


async def test_nothing_passes_before_there_is_an_outbox() -> None:
    """A pong that overtook it would stand inside another frame."""
    async with opened(trailing=frame(PING_FRAME, b"a") + frame(TEXT, b"1"), attach=False) as one:
        await wait_all_tasks_blocked()
        assert one.sent() == []
        one.attach()
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "1")]
        assert one.sent() == [(PONG, b"a")]


async def test_pings_are_answered_and_counted_though_nobody_takes_messages() -> None:
    async with opened() as one:
        await one.client.send_data(frame(PING_FRAME, b"a") + frame(PONG) + frame(PING_FRAME, b"b"))
        await wait_all_tasks_blocked()
        assert one.sent() == [(PONG, b"a"), (PONG, b"b")]
        assert sum(one.heard) == 3


async def test_control_frames_go_through_the_outbox_whole() -> None:
    async with opened() as one:
        one.server.most_bytes_a_send = lambda: 3
        one.outbox.put_frame(b"\x81\x05hello")
        one.outbox.flush()
        await one.client.send_data(frame(PING_FRAME, b"x" * 20))
        await wait_all_tasks_blocked()
        await one.outbox.drain(1)
        pipe = one.client.stream._incoming
        assert bytes(pipe.buffer) == b"\x81\x05hello" + b"\x8a\x14" + b"x" * 20


async def test_a_close_is_answered_and_ends_it() -> None:
    async with opened() as one:
        await one.client.send_data(frame(TEXT, b"1") + frame(CLOSE, b"\x03\xe8bye"))
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "1")]
        assert await one.transport.receive() is None
        assert one.sent() == [(CLOSE, b"\x03\xe8bye")]
        assert one.transport.final_frame(CloseCode.NORMAL, "") == b"", "a second Close would be too many"


async def test_a_close_is_answered_that_came_with_the_end_of_a_cut_message() -> None:
    async with opened() as one:
        data = frame(TEXT, b"x" * 50)
        await one.client.send_data(data[:20])
        await trio.testing.wait_all_tasks_blocked()
        await one.client.send_data(data[20:] + frame(CLOSE, b"\x03\xe8"))
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "x" * 50)]
        assert await one.transport.receive() is None


async def test_the_end_without_a_close() -> None:
    async with opened() as one:
        one.client.stream.end()
        assert await one.transport.receive() is None
        assert one.transport.final_frame(CloseCode.RESTART, "bye") == b"\x88\x05\x03\xf4bye"


async def test_a_reset() -> None:
    async with opened() as one:
        one.client.stream.reset()
        assert await one.transport.receive() is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x" * 101), CloseCode.MESSAGE_TOO_BIG),
        (frame(BINARY, b"x" * 117), CloseCode.MESSAGE_TOO_BIG),
        (frame(CONTINUATION, b""), CloseCode.WEBSOCKET_PROTOCOL_ERROR),
        (frame(TEXT, b"\xff"), CloseCode.INVALID_TEXT),
        (frame(TEXT, b"\xc3", final=False) + frame(CONTINUATION, b""), CloseCode.INVALID_TEXT),
        (frame(BINARY, b"HEAR"), CloseCode.PROTOCOL_ERROR),
    ],
)
async def test_a_violation_comes_behind_what_was_good(data: bytes, code: CloseCode) -> None:
    async with opened() as one:
        await one.client.send_data(frame(TEXT, b"1") + data)
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "1")]
        with pytest.raises(RemoteProtocolError) as fault:
            await one.transport.receive()
        assert fault.value.close_code is code


async def test_the_whole_frames_of_a_cut_binary_message_come_first() -> None:
    async with opened() as one:
        await one.client.send_data(frame(BINARY, encode_heartbeat(FrameType.PING, 1) + b"HEA"))
        assert await one.transport.receive() == [Frame(FrameType.PING, 1)]
        for _ in range(2):
            with pytest.raises(RemoteProtocolError):
                await one.transport.receive()


async def test_a_callers_objection_ends_it() -> None:
    async with opened() as one:

        def object_(control_frames: int) -> None:
            raise RemoteProtocolError("no", CloseCode.RATE_LIMITED)

        one.transport._stream._on_bytes = object_
        await one.client.send_data(frame(PING_FRAME))
        with pytest.raises(RemoteProtocolError, match="no"):
            await one.transport.receive()


async def test_until_the_limit_is_set_messages_are_judged_one_by_one() -> None:
    async with opened(limit_bytes=10, connected=False) as one:
        await one.client.send_data(frame(TEXT, b"1") + frame(TEXT, b"x" * 50))
        await wait_all_tasks_blocked()
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "1")]
        await wait_all_tasks_blocked()
        one.transport.set_payload_limit(50)
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "x" * 50)]
        await one.client.send_data(frame(TEXT, b"2") + frame(TEXT, b"3"))
        assert len(await one.transport.receive() or []) == 2, "from now on not"


async def test_without_a_new_limit_the_next_message_is_judged_by_the_old_one() -> None:
    async with opened(limit_bytes=10, connected=False) as one:
        await one.client.send_data(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, b"x" * 50))
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "1")]
        assert await one.transport.receive() == [Frame(FrameType.JSON, 0, "2")]
        with pytest.raises(RemoteProtocolError):
            await one.transport.receive()


async def test_cancelled_no_message_is_lost(autojump_clock: MockClock) -> None:
    async with opened() as one:
        for number in range(5):
            with trio.move_on_after(1):
                await one.transport.receive()
            await one.client.send_data(frame(TEXT, str(number).encode()))
            assert await one.transport.receive() == [Frame(FrameType.JSON, 0, str(number))]


async def test_a_long_chunk_of_small_frames_lets_others_have_their_turn() -> None:
    async with opened() as one:
        turns = 0
        done = trio.Event()

        async def other() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await one.client.send_data(frame(PING_FRAME) * 1600 + frame(TEXT, b"1"))
            assert await one.transport.receive()
            done.set()
        assert turns >= 1600 / 16


async def test_a_reader_that_fails_is_a_bug_that_is_seen() -> None:
    def fail(control_frames: int) -> None:
        raise RuntimeError("a bug")

    async def receive() -> None:
        async with opened() as one:
            one.transport._stream._on_bytes = fail
            await one.client.send_data(frame(TEXT, b"1"))
            await one.transport.receive()

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
        await receive()


async def test_one_that_ends_without_a_reason_is_one_too(autojump_clock: MockClock) -> None:
    async with opened() as one:
        await one.transport._websocket._send_channel.aclose()
        with pytest.raises(RuntimeError, match="without a reason"):
            await one.transport.receive()


async def test_its_stream_says_that_it_takes_everything() -> None:
    async with opened() as one:
        guarded = one.transport._stream
        for ask in (guarded.wait_send_all_might_not_block, guarded.aclose):
            with assert_checkpoints():
                await ask()
        assert not one.server.closed


class TestSendAll:
    async def test_waits_where_the_peer_is_slow(self) -> None:
        server, client = memory_pair(capacity_bytes=10)
        received = b""

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, server, b"x" * 95)
            while len(received) < 95:
                received += await client.receive_some()
        assert received == b"x" * 95

    async def test_waits_until_nothing_is_held(self) -> None:
        class Holding(MemoryStream):
            """Holds what it took until it is asked again, as TLS does."""

            held = 2

            @property
            def has_unsent(self) -> bool:  # type: ignore[override]
                return self.held > 0

            def send_now(self, data: bytes | memoryview) -> int:
                self.held -= 1
                return super().send_now(data)

        server, client = memory_pair()
        holding = Holding(server._incoming, server._outgoing, "a", "b")
        await send_all(holding, b"hello")
        assert not holding.has_unsent
        assert await client.receive_some() == b"hello"


@pytest.mark.parametrize(("message", "written"), [("é", b"\x81\x02\xc3\xa9"), (b"\0", b"\x82\x01\0")])
def test_an_echo_is_what_came(message: str | bytes, written: bytes) -> None:
    assert echo_frame(message) == written
