"""Reaching real servers: TCP, TLS, unix sockets, and nobody."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from notifyd.broker.redis.dialing import dial_server
from notifyd.broker.redis.link import LinkLost
from notifyd.broker.redis.target import Endpoint
from tests.certificates import Certificates, certificates
from tests.kit.redis_links import running_link
from tests.kit.redis_process import RedisServer, free_port
from tests.kit.redis_servers import standalone

__all__ = ["certificates"]


@pytest.fixture(scope="module")
def tls_server(certificates: Certificates) -> Iterator[RedisServer]:
    with standalone(certificates=certificates) as server:
        yield server


async def test_tcp(redis_server: RedisServer) -> None:
    dial = dial_server(Endpoint("127.0.0.1", redis_server.port))
    async with running_link(dial) as link:
        assert await link.execute("PING", "x") == b"x"
    stream = await dial()
    assert isinstance(stream, trio.SocketStream)
    async with stream:
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


async def test_a_name_is_resolved(redis_server: RedisServer) -> None:
    async with running_link(dial_server(Endpoint("localhost", redis_server.port))) as link:
        assert link.is_up


async def test_a_unix_socket(tmp_path: Path) -> None:
    with standalone(unix_socket=True) as server:
        async with running_link(dial_server(Endpoint(path=str(server.unix_path)))) as link:
            assert await link.execute("PING", "x") == b"x"
    with pytest.raises(LinkLost, match=r"^No such file or directory$"):
        await dial_server(Endpoint(path=str(tmp_path / "none")))()


async def test_tls_with_a_trusted_authority(tls_server: RedisServer, certificates: Certificates) -> None:
    context = certificates.client_context()
    for host in ("127.0.0.1", "localhost"):
        async with running_link(dial_server(Endpoint(host, tls_server.port), context)) as link:
            large = b"x" * 3_000_000
            assert await link.execute("SET", "large", large) == b"OK"
            assert await link.execute("GET", "large") == large
            replies = await link.execute_all([("INCR", f"counter-{host}")] * 500)
            assert replies == list(range(1, 501))


async def test_tls_with_a_strange_authority(tls_server: RedisServer) -> None:
    with pytest.raises(LinkLost, match=r"^the server's certificate is not trusted: self-signed"):
        await dial_server(Endpoint("127.0.0.1", tls_server.port), ssl.create_default_context())()


async def test_tls_with_another_hosts_certificate(tls_server: RedisServer, certificates: Certificates) -> None:
    with pytest.raises(LinkLost, match=r"^the server's certificate is not trusted: .*127\.0\.0\.2"):
        await dial_server(Endpoint("127.0.0.2", await forwarding_port(tls_server)), certificates.client_context())()


async def forwarding_port(server: RedisServer) -> int:
    """All of 127.0.0.0/8 is this machine, but the server listens on one address: take what reaches it."""
    server.cli("CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2")
    return server.port


async def test_tls_where_the_server_speaks_none(redis_server: RedisServer, certificates: Certificates) -> None:
    with pytest.raises(LinkLost, match=r"^no TLS handshake"):
        await dial_server(Endpoint("127.0.0.1", redis_server.port), certificates.client_context(), deadline_s=0.3)()


async def test_tls_where_the_server_hangs_up(certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("127.0.0.1", listener.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hang_up, listener)
            with pytest.raises(LinkLost, match=r"^no TLS handshake: unexpected eof"):
                await dial_server(endpoint, certificates.client_context())()


async def _hang_up(listener: socket.socket) -> None:
    listening = trio.socket.from_stdlib_socket(listener)
    connected, _ = await listening.accept()
    await connected.recv(10_000)
    connected.close()


async def test_no_tls_where_the_server_wants_it(tls_server: RedisServer) -> None:
    with pytest.raises(LinkLost, match=r"the connection broke|the server closed the connection|does not speak RESP"):
        async with running_link(dial_server(Endpoint("127.0.0.1", tls_server.port))):
            pass


async def test_nobody_listens() -> None:
    with pytest.raises(LinkLost, match=r"^Connection refused$"):
        await dial_server(Endpoint("127.0.0.1", free_port()))()


async def test_a_name_that_nobody_has() -> None:
    with pytest.raises(LinkLost, match=r"^the host is not known: "):
        await dial_server(Endpoint("nobody.invalid", 6379))()


async def test_nobody_answers(certificates: Certificates) -> None:
    """The kernel accepts, and no TLS handshake comes: the deadline is for both."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("127.0.0.1", listener.getsockname()[1])
        began_s = trio.current_time()
        with pytest.raises(LinkLost, match=r"^no TLS handshake within 0\.2 s$"):
            await dial_server(endpoint, certificates.client_context(), deadline_s=0.2)()
        assert trio.current_time() - began_s < 2
