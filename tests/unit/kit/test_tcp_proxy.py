"""The proxy of the tests: bytes pass, later, not at all, or until an end comes on one side or both."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.kit.tcp_proxy import TcpProxy, open_proxy
from tests.kit.until import until


@asynccontextmanager
async def echoing_proxy() -> AsyncIterator[TcpProxy]:
    """A proxy in front of a server that sends back what it gets, and "bye" when the client has sent all."""

    async def echo(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                async for data in stream:
                    await stream.send_all(data)
                await stream.send_all(b"bye")
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        async with open_proxy(listeners[0].socket.getsockname()[1]) as proxy:
            yield proxy
        nursery.cancel_scope.cancel()


async def connected(proxy: TcpProxy) -> trio.SocketStream:
    client = await trio.open_tcp_stream("127.0.0.1", proxy.port)
    await round_trip(client)
    return client


async def round_trip(client: trio.SocketStream, data: bytes = b"hello") -> float:
    """Send and get back; the seconds."""
    began_s = time.perf_counter()
    await client.send_all(data)
    await read(client, len(data))
    return time.perf_counter() - began_s


async def read(client: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await client.receive_some()
        assert part, "the stream ended"
        data += part
    return data


async def test_bytes_pass_unchanged_and_an_end_of_stream_passes_too() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as client:
        sent = bytes(range(256)) * 4096

        async def send_all() -> None:
            await client.send_all(sent)
            await client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all)
            assert await read(client, len(sent) + 3) == sent + b"bye"
        assert await client.receive_some() == b""
        assert proxy.accepted == 1


async def test_delay_and_jitter_hold_in_each_direction() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as client:
        proxy.delay_ms, proxy.jitter_ms = 300, 100
        assert await round_trip(client) >= 0.6
        proxy.delay_ms = proxy.jitter_ms = 0
        assert await round_trip(client) < 0.6


async def test_a_cut_resets_every_connection_and_new_ones_work() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as one, await connected(proxy) as other:
        assert proxy.cut() == 2
        for client in (one, other):
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        async with await connected(proxy) as client:
            await round_trip(client)
            assert proxy.connections == 1


async def test_a_client_that_is_half_closed_is_still_heard() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as client:
        assert proxy.half_close("client") == 1
        assert await client.receive_some() == b""
        await client.send_all(b"still there")  # and what comes back is thrown away
        await trio.sleep(0.05)
        await client.send_all(b"still there")
        assert proxy.connections == 1


async def test_a_server_that_is_half_closed_says_its_last_words() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as client:
        assert proxy.half_close("server") == 1
        assert await read(client, 3) == b"bye"
        assert await client.receive_some() == b""


async def test_a_stalled_connection_stays_open_and_its_bytes_come_later() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as client:
        proxy.stall()
        proxy.stall()
        await client.send_all(b"held")
        newcomer = await trio.open_tcp_stream("127.0.0.1", proxy.port)
        await newcomer.send_all(b"me too")
        with trio.move_on_after(0.1) as waited:
            await client.receive_some()
        assert waited.cancelled_caught
        proxy.resume()
        assert await read(client, 4) == b"held"
        assert await read(newcomer, 6) == b"me too"
        await newcomer.aclose()


async def test_a_stalled_connection_pushes_back_in_the_end() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as client:
        proxy.stall()
        with trio.move_on_after(0.3) as waited:
            await client.send_all(bytes(64 * 1024 * 1024))
        assert waited.cancelled_caught


async def test_who_is_dropped_gets_in_and_out() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as earlier:
        proxy.drop()
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as client:
            assert await client.receive_some() == b""
        await round_trip(earlier)
        proxy.allow()
        await (await connected(proxy)).aclose()


async def test_who_is_refused_does_not_get_in() -> None:
    async with echoing_proxy() as proxy, await connected(proxy) as earlier:
        proxy.refuse()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", proxy.port)
        await round_trip(earlier)
        proxy.allow()
        await (await connected(proxy)).aclose()


async def test_a_server_that_is_not_there_resets_the_client() -> None:
    async with open_proxy(1) as proxy, await trio.open_tcp_stream("127.0.0.1", proxy.port) as client:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


async def test_who_is_still_being_connected_when_it_ends_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never_connected(*_address: object) -> None:
        await trio.sleep_forever()

    async with open_proxy(1) as proxy:
        client = await trio.open_tcp_stream("127.0.0.1", proxy.port)
        monkeypatch.setattr(trio, "open_tcp_stream", never_connected)
        await until(lambda: proxy.accepted == 1)
    async with client:
        assert await client.receive_some() == b""
