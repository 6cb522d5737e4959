"""What a WebSocket client costs that connects with a token and subscribes, against trio-websocket on its own.

The reference is its `serve_websocket` with a handler that sends one message back: the same handshake and as many
messages, without a token, a topic or a session. What is told is the serving process's CPU time for one client, the
kernel's share included: on a core of its own, a node lets in as many a second as this goes into one.
"""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from notifyd.auth.tokens import Signer
from notifyd.settings import AuthSettings, Secret, TokenKey
from tests.bench.arrivals import REQUEST, Arrival, running_load
from tests.bench.lines import read_line
from tests.bench.result import Result, compare
from tests.reliability.node_process import running_node

SECRET = "a secret for the benchmark, 64 bytes and more, as HS512 asks for it"
CONNECTS_A_SECOND = 1500
WARM_UP = 100
START_S = 20.0
CROWD = {
    "LIMITS__CONNECTS": "{ rate = 100000, burst = 100000 }",
    "LIMITS__CONNECTIONS": "{ limit = 30000, resume = 29000 }",
}
"""Settings by which nobody waits at the door, and nobody is refused."""

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

TOPIC = "orders:status"


async def measure(*, quick: bool) -> list[Result]:
    """Connect clients to a node, then to the bare library, in turns."""
    count, rounds = (300, 2) if quick else (2000, 5)
    ways = {"its request": _by_request(count), "`connect`": _by_connect(count), "its URL": _by_url(count)}
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    async with running_node(CROWD | _with_token_key()) as node, _stock_server() as stock, running_load() as load:
        await load.arrive(node.ports["websocket"], ways["its request"][:WARM_UP])
        await load.arrive(stock[1], _echoed(WARM_UP))
        for _ in range(rounds):
            stock_us = await load.cost_us(*stock, _echoed(count))
            for way, arrivals in ways.items():
                ours_us = await load.cost_us(node.process.pid, node.ports["websocket"], arrivals)
                found[way].append((ours_us, stock_us))
    against = f"trio-websocket, {count} clients"
    return [
        compare("connects, one after the other", "us", "1,500 a second", _by_rate(found["`connect`"]), target=1.0),
        *(compare(f"connect with a token in {way}", "us", against, costs, target=0.8) for way, costs in found.items()),
    ]


def _by_rate(costs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(ours_us, 1e6 / CONNECTS_A_SECOND) for ours_us, _ in costs]


def _with_token_key() -> dict[str, str]:
    return {"AUTH__ANONYMOUS": "false", "AUTH__KEYS": f'[{{ algorithm = "HS512", secret = "{SECRET}" }}]'}


def _tokens(count: int) -> list[str]:
    """Sign a token for each of so many users."""
    signer = Signer(AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret(SECRET)),)))
    now_s = time.time()
    return [signer.sign(f"user{n}", now_s=now_s, expires_in_s=3600.0, subscribe=["**"]) for n in range(count)]


def _by_request(count: int) -> list[Arrival]:
    return [
        Arrival(
            f"{REQUEST.format('/ws')}Authorization: Bearer {token}\r\n",
            [json.dumps({"op": "subscribe", "id": 1, "topic": TOPIC})],
            {'"op":"connected"': 1, '"op":"subscribed"': 1},
        )
        for token in _tokens(count)
    ]


def _by_connect(count: int) -> list[Arrival]:
    return [
        Arrival(
            REQUEST.format("/ws"),
            [
                json.dumps({"op": "connect", "id": 1, "token": token}),
                json.dumps({"op": "subscribe", "id": 2, "topic": TOPIC}),
            ],
            {'"op":"connected"': 1, '"op":"subscribed"': 1},
        )
        for token in _tokens(count)
    ]


def _by_url(count: int) -> list[Arrival]:
    return [
        Arrival(REQUEST.format(f"/ws?token={token}&topics={TOPIC}"), [], {'"op":"connected"': 1, TOPIC: 1})
        for token in _tokens(count)
    ]


def _echoed(count: int) -> list[Arrival]:
    return [Arrival(REQUEST.format("/"), ["a message"], {"a message": 1})] * count


@asynccontextmanager
async def _stock_server() -> AsyncIterator[tuple[int, int]]:
    """Run it; its process and its port."""
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
