"""Opening links: WebSocket handshakes that fail in every way, TLS, and what a dead stream does."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from notifyd.client import Client, ConnectionRefused, ServerUnreachable, open_client
from notifyd.client.device import DeviceClientLink
from notifyd.client.link import LinkClosed
from protocol.codec import Frame, FrameType
from protocol.connecting import ConnectionState
from protocol.errors import CloseCode
from protocol.framing import Encoding
from protocol.messages import Publish, Published
from tests.certificates import Certificates, write_certificates
from tests.unit.client.scripted_server import KINDS, CloggedStream, ScriptedServer, open_scripted_server

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
"""A hopeless answer: it lacks Sec-WebSocket-Accept."""


@asynccontextmanager
async def answered_by(answer: bytes, *, url: str = "ws://server:7500") -> AsyncIterator[Client]:
    """Open a client whose every connection gets these bytes for its handshake, and then the end of the stream."""

    async def dial(host: str, port: int) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await ours.send_all(answer)
        await ours.send_eof()
        return theirs

    async with open_client(url, dial=dial) as client:
        yield client


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "the server closed the connection during the WebSocket handshake"),
        (b"HTTP/1.1 503 x\r\nContent-Length: 4\r\n\r\nfull", "the server answered HTTP 503: full"),
        (b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", "the server answered HTTP 404"),
        (b"nonsense\r\n\r\n", "the server's WebSocket handshake is not one: "),
        (b"\xff" * 100 + b"\r\n\r\n", "the server's WebSocket handshake is not one: "),
        (SWITCHING + b"\r\n", "the server's WebSocket handshake is not one: "),
        (SWITCHING + b"Sec-WebSocket-Protocol: \xff\r\n\r\n", "the server's WebSocket handshake is not one: "),
    ],
)
async def test_answers_that_are_no_handshake(answer: bytes, problem: str, autojump_clock: MockClock) -> None:
    async with answered_by(answer) as client:
        await trio.testing.wait_all_tasks_blocked()
        assert client.problem is not None
        assert client.problem.startswith(problem)
        assert client.state is ConnectionState.BACKING_OFF


@pytest.mark.parametrize(("status", "code"), [(401, CloseCode.UNAUTHORIZED), (403, CloseCode.FORBIDDEN)])
async def test_http_refusals_that_are_final(status: int, code: CloseCode, autojump_clock: MockClock) -> None:
    async with answered_by(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status) as client:
        with pytest.raises(ConnectionRefused) as refused:
            await client.wait_connected()
        assert refused.value.code is code


async def test_http_says_when_to_come_back(autojump_clock: MockClock) -> None:
    answer = b"HTTP/1.1 503 x\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"
    async with answered_by(answer) as client:
        states = client.states()
        assert [await anext(states) for _ in range(3)][-1] is ConnectionState.BACKING_OFF
        began = trio.current_time()
        assert await anext(states) is ConnectionState.CONNECTING
        assert trio.current_time() - began == pytest.approx(9)


async def test_a_server_of_another_subprotocol(autojump_clock: MockClock) -> None:
    async with open_scripted_server("ws-json") as server, server.client() as client:
        server.subprotocol = None
        await server.accept()
        await trio.testing.wait_all_tasks_blocked()
        assert client.problem == "the server does not speak notifyd.v1.json"


async def test_a_connection_that_breaks_during_the_handshake(autojump_clock: MockClock) -> None:
    class Broken(trio.abc.ReceiveStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytearray:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("reset")

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        _, theirs = memory_stream_pair()
        return trio.StapledStream(theirs.send_stream, Broken())

    for url in ("ws://x", "device://x"):
        async with open_client(url, dial=dial) as client:
            await trio.testing.wait_all_tasks_blocked()
            assert client.problem == "the connection broke: reset"


async def test_an_open_websocket_that_breaks(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    class Breaking(trio.abc.Stream):
        def __init__(self, stream: trio.abc.Stream) -> None:
            self.stream = stream
            self.broken = trio.Event()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data: bytes | bytearray = b""
            async with trio.open_nursery() as inner:

                async def receive() -> None:
                    nonlocal data
                    data = await self.stream.receive_some(max_bytes)
                    inner.cancel_scope.cancel()

                inner.start_soon(receive)
                await self.broken.wait()
                inner.cancel_scope.cancel()
            if self.broken.is_set():
                raise trio.BrokenResourceError("reset")
            return data

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.stream.wait_send_all_might_not_block()

        async def aclose(self) -> None:
            await self.stream.aclose()

    streams: list[Breaking] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        streams.append(Breaking(stream))
        return streams[-1]

    async with open_scripted_server("ws-json") as server:
        server.wrap = wrap
        async with server.client() as client:
            await server.accept_connected()
            await client.wait_connected()
            streams[0].broken.set()
            await trio.testing.wait_all_tasks_blocked()
            assert client.problem == "the server closed the connection"
            await server.accept_connected()
            await client.wait_connected()


async def test_a_device_link_that_is_gone() -> None:
    heard: list[None] = []
    ours, theirs = memory_stream_pair()
    link = DeviceClientLink(theirs, lambda: heard.append(None))
    await ours.aclose()
    with pytest.raises(LinkClosed, match="the connection broke"):
        await link.send([Frame(FrameType.PING, 1)])
    with pytest.raises(LinkClosed, match="the server closed the connection"):
        await link.receive()
    await theirs.aclose()
    await link.close(CloseCode.NORMAL)
    with pytest.raises(LinkClosed, match="the connection broke"):
        await link.receive()
    assert heard == []


async def test_the_last_word_is_heard_also_when_sending_fails_first(
    device_server: ScriptedServer, autojump_clock: MockClock
) -> None:
    class Deaf(CloggedStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if self.blocked:
                raise trio.BrokenResourceError("reset")
            await self.stream.send_all(data)

    streams: list[Deaf] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        streams.append(Deaf(stream))
        return streams[-1]

    device_server.wrap = wrap
    async with device_server.client() as client, trio.open_nursery() as nursery:
        peer = await device_server.accept_connected()
        await client.wait_connected()
        streams[0].blocked = True

        async def replace() -> None:
            await trio.sleep(0.5)
            await peer.end(CloseCode.REPLACED)

        nursery.start_soon(replace)
        with pytest.raises(ConnectionRefused, match="replaced"):
            await client.publish("a", 1)


async def test_a_link_that_cannot_be_written_to_is_given_up(
    device_server: ScriptedServer, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    del ours

    class Deaf(CloggedStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("reset")

    async def dial(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return Deaf(theirs)

    async with open_client("device://x", dial=dial) as client:
        await trio.sleep(1.05)
        assert client.problem == "the connection broke: reset"


async def test_part_of_a_frame_is_life(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_server.client(heartbeat_s=30, floor_s=10) as client:
        peer = await device_server.accept_connected()
        await client.wait_connected()
        peer.awake = False
        for byte in b"HEAR\x03":
            await trio.sleep(31)
            await peer.send_raw(bytes([byte]))
        assert client.state is ConnectionState.CONNECTED


async def test_a_device_may_speak_json(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with open_client(device_server.url, encoding=Encoding.JSON, dial=device_server.dial) as client:
        peer = await device_server.accept_connected()
        assert peer.encoding is Encoding.JSON
        await client.wait_connected()


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


def server_side(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server, certificates.server_key)
    return context


@pytest.mark.parametrize("kind", KINDS)
async def test_over_tls(
    kind: str, certificates: Certificates, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_scripted_server(kind, server_side(certificates)) as server:

        async def serve() -> None:
            peer = await server.accept_connected()
            request = await peer.expect(Publish)
            await peer.send(Published(id=request.id or 0, topic="a"))

        nursery.start_soon(serve)
        async with server.client(ssl_context=certificates.client_context()) as client:
            await client.publish("a", 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_certificate_that_is_not_trusted(
    kind: str, certificates: Certificates, autojump_clock: MockClock
) -> None:
    async with open_scripted_server(kind, server_side(certificates)) as server:
        server.tolerates_failures = True
        async with server.client(give_up=True) as client:
            with pytest.raises(ServerUnreachable, match="the server's certificate is not trusted: "):
                await client.wait_connected()


async def test_a_server_without_tls(autojump_clock: MockClock) -> None:
    async with answered_by(b"HTTP/1.1 400 Bad Request\r\n\r\n", url="wss://localhost") as client:
        await trio.testing.wait_all_tasks_blocked()
        assert client.problem is not None
        assert "SSL" in client.problem


async def test_reasons_that_are_not_there(autojump_clock: MockClock) -> None:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError

    async with open_client("device://x", dial=dial) as client:
        await trio.testing.wait_all_tasks_blocked()
        assert client.problem == "OSError"


async def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with open_client(f"device://127.0.0.1:{port}") as client:
        states = client.states()
        assert [await anext(states) for _ in range(3)][-1] is ConnectionState.BACKING_OFF
        assert client.problem is not None
        assert client.problem == "Connection refused"
