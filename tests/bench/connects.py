"""What a WebSocket client costs that connects with a token and subscribes, against trio-websocket on its own.

The reference is its `serve_websocket` with a handler that sends one message back: the same handshake and as many
messages, without a token, a topic or a session. What is told is the serving process's CPU time for one client.
"""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from notifyd.auth.tokens import Signer
from notifyd.settings import AuthSettings, Secret, TokenKey
from tests.bench.lines import read_line
from tests.bench.result import Result
from tests.reliability.node_process import running_node
from tests.reliability.raw_clients import UPGRADE, RawWebSocket, masked

SECRET = "a secret for the benchmark, 64 bytes and more, as HS512 asks for it"
AT_ONCE = 16
WARM_UP = 50
START_S = 20.0
STOCK = """
import trio, trio_websocket
async def handler(request):
    connection = await request.accept()
    await connection.send_message(await connection.get_message())
    await trio.sleep_forever()
async def main():
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
        print(server.port, flush=True)
trio.run(main)
"""

Connect = Callable[[], Awaitable[RawWebSocket]]


async def measure(*, quick: bool) -> list[Result]:
    """Connect clients to a node, then to the bare library."""
    clients = 200 if quick else 1500
    async with running_node(_with_token_key()) as node:
        request = _with_token(UPGRADE)
        ours_us = await _cost_us(node.process.pid, clients, lambda: _subscribed(node.ports["websocket"], request))
    async with _stock_server() as (pid, port):
        stock_us = await _cost_us(pid, clients, lambda: _echoed(port))
    against = f"trio-websocket, {clients} clients"
    return [Result("connect with token, subscribe", "us", ours_us, stock_us, against, target=0.5)]


def _with_token_key() -> dict[str, str]:
    return {"AUTH__ANONYMOUS": "false", "AUTH__KEYS": f'[{{ algorithm = "HS512", secret = "{SECRET}" }}]'}


def _with_token(request: bytes) -> bytes:
    auth = AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret(SECRET)),))
    token = Signer(auth).sign("ann", now_s=time.time(), expires_in_s=3600.0, subscribe=["**"])
    return request.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n".encode())


async def _subscribed(port: int, request: bytes) -> RawWebSocket:
    client = await RawWebSocket.open(port)
    head = await client.upgrade(request)
    assert b" 101 " in head, head
    await client.send(masked(1, b'{"op":"subscribe","id":1,"topic":"orders:status"}'))
    answers = [json.loads((await client.frame())[1])["op"] for _ in range(2)]
    assert answers == ["connected", "subscribed"], answers
    return client


async def _echoed(port: int) -> RawWebSocket:
    client = await RawWebSocket.open(port)
    assert b" 101 " in await client.upgrade()
    await client.send(masked(1, b"a message"))
    assert (await client.frame())[1] == b"a message"
    return client


async def _cost_us(pid: int, count: int, connect: Connect) -> float:
    """Let clients connect and stay; return the server's CPU time for one of them."""
    clients: list[RawWebSocket] = []
    await _connect(connect, WARM_UP, clients)
    began_us = _cpu_us(pid)
    await _connect(connect, count, clients)
    spent_us = _cpu_us(pid) - began_us
    for client in clients:
        client.close()
    return spent_us / count


async def _connect(connect: Connect, count: int, clients: list[RawWebSocket]) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one() -> None:
        async with limit:
            clients.append(await connect())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


def _cpu_us(pid: int) -> float:
    """Return the CPU time of a process's only busy thread (proc(5): schedstat counts in nanoseconds)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


@asynccontextmanager
async def _stock_server() -> AsyncIterator[tuple[int, int]]:
    process = await trio.lowlevel.open_process([sys.executable, "-c", STOCK], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(START_S):
            port = int(await read_line(process.stdout))
        yield process.pid, port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
