"""TLS over real sockets, with clients that nobody here wrote: Trio's SSLStream and OpenSSL's own command."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from notifyd.errors import StreamBroken
from notifyd.transport.stream import SocketStream
from notifyd.transport.tls import TlsStream, server_context
from tests.certificates import Certificates, certificates

__all__ = ["certificates"]

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
PATTERN = bytes(range(256)) * 16


@asynccontextmanager
async def connected(
    certificates: Certificates, version: ssl.TLSVersion
) -> AsyncIterator[tuple[TlsStream, trio.SSLStream[trio.SocketStream]]]:
    """A server's stream and Trio's client over sockets that hold little."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = TlsStream(SocketStream(here), server_context(certificates.tls()))
    transport = trio.SocketStream(trio.socket.from_stdlib_socket(there))
    client = trio.SSLStream(transport, certificates.client_context(version=version), server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handshake)
        await client.do_handshake()
    try:
        yield server, client
    finally:
        server.close()
        await trio.aclose_forcefully(client)


async def send(stream: TlsStream, data: bytes) -> None:
    rest = memoryview(data)
    while rest or stream.has_unsent:
        rest = rest[stream.send_now(rest) :]
        if rest or stream.has_unsent:
            await stream.wait_writable()


@pytest.mark.parametrize("version", VERSIONS)
async def test_much_both_ways_at_once(certificates: Certificates, version: ssl.TLSVersion) -> None:
    data = PATTERN * 500
    async with connected(certificates, version) as (server, client), trio.open_nursery() as nursery:

        async def serve() -> None:
            received = b""
            while chunk := await server.receive_some():
                received += chunk
            assert received == data

        async def send_and_close() -> None:
            await client.send_all(data)
            received = bytearray()
            while len(received) < len(data):
                received += await client.receive_some()
            assert received == data
            await client.aclose()

        nursery.start_soon(serve)
        nursery.start_soon(send_and_close)
        await send(server, data)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_finished_stream_ends_in_order_at_the_client(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    async with connected(certificates, version) as (server, client), trio.open_nursery() as nursery:
        data = PATTERN * 20
        server.send_now(data[:10000])
        assert server.has_unsent
        nursery.start_soon(server.finish, 5)
        received = bytearray()
        while chunk := await client.receive_some():
            received += chunk
        assert received == data[:10000]
        await client.aclose()


async def wait_for(process: trio.Process, text: bytes) -> bytes:
    assert process.stdout is not None
    output = b""
    while text not in output:
        chunk = await process.stdout.receive_some()
        assert chunk, output
        output += chunk
    return output


@asynccontextmanager
async def openssl_client(certificates: Certificates, *options: str) -> AsyncIterator[tuple[TlsStream, trio.Process]]:
    """OpenSSL's client, connected by TCP; its lines `K` and `R` make it update keys and renegotiate."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", address, "-CAfile", str(certificates.authority), *options]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        await trio.lowlevel.wait_readable(listener)
        stream = TlsStream(SocketStream(listener.accept()[0]), server_context(certificates.tls()))
    try:
        await stream.handshake()
        yield stream, process
    finally:
        stream.close()
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@needs_openssl
async def test_key_updates_are_answered_and_change_nothing(certificates: Certificates) -> None:
    async with openssl_client(certificates, "-tls1_3") as (stream, client):
        assert client.stdin is not None
        for turn in range(5):
            await client.stdin.send_all(b"line %d\n" % turn)
            assert await stream.receive_some() == b"line %d\n" % turn
            await client.stdin.send_all(b"K\n")
            await wait_for(client, b"KEYUPDATE")
            await client.stdin.send_all(b"after\n")
            assert await stream.receive_some() == b"after\n"
            stream.send_now(b"answer %d\n" % turn)
            await wait_for(client, b"answer %d\n" % turn)


@needs_openssl
async def test_renegotiation_is_refused(certificates: Certificates) -> None:
    async with openssl_client(certificates, "-tls1_2") as (stream, client):
        assert client.stdin is not None
        await client.stdin.send_all(b"R\n")
        with pytest.raises(StreamBroken, match="HANDSHAKE_FAILURE"):  # what the client says to our refusal
            await stream.receive_some()
        await wait_for(client, b"no renegotiation")
