"""What a WebSocket client costs that connects with a token and subscribes, against trio-websocket on its own.

The reference is its `serve_websocket` with a handler that sends one message back: the same handshake and as many
messages, without a token, a topic or a session. What is told is the serving process's CPU time for one client, the
kernel's share included: on a core of its own, a node lets in as many a second as this goes into one.
"""

import json
import sys
import time
from collections.abc import Sequence
from statistics import median

from notifyd.auth.tokens import Signer
from notifyd.settings import AuthSettings, Secret, TokenKey
from tests.bench.arrivals import REQUEST, Arrival, running_load
from tests.bench.counterpart import running
from tests.bench.result import Result, compare
from tests.reliability.node_process import running_node

SECRET = "a secret for the benchmark, 64 bytes and more, as HS512 asks for it"
CONNECTS_A_SECOND = 1500
WARM_UP = 100
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
SLOWEST = "`connect`"
"""Of the ways to connect: by this one so many a second have to come in."""


async def measure(*, quick: bool) -> list[Result]:
    """Connect clients to a node, then to the bare library, in turns."""
    count, rounds = (300, 2) if quick else (2000, 5)
    ways = {"its request": _by_request(count), SLOWEST: _by_connect(count), "its URL": _by_url(count)}
    costs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    stock_costs_us = []
    stock_server = [sys.executable, "-c", STOCK]
    async with running_node(CROWD | _with_token_key()) as node, running(stock_server) as stock, running_load() as load:
        port, stock_port = node.ports["websocket"], int(stock.first_line)
        await load.arrive(port, ways[SLOWEST][:WARM_UP])
        await load.arrive(stock_port, _echoed(WARM_UP))
        for _ in range(rounds):
            stock_costs_us.append(await load.cost_us(stock.pid, stock_port, _echoed(count)))
            for way, arrivals in ways.items():
                costs[way].append(await load.costs_us(node.process.pid, port, arrivals))
    against = f"trio-websocket, {count} clients"
    beside = {
        way: [(spent_us, stock_us) for (spent_us, _), stock_us in zip(found, stock_costs_us, strict=True)]
        for way, found in costs.items()
    }
    return [
        *_by_rate(costs[SLOWEST], quick=quick),
        *(compare(f"connect with a token in {way}", "us", against, pairs, target=0.8) for way, pairs in beside.items()),
    ]


def _by_rate(costs: Sequence[tuple[float, float]], *, quick: bool) -> list[Result]:
    """Hold what one takes against so many a second: of a core, and by the clock, with the load on the other core."""
    spent_us, real_us = (median(figures) for figures in zip(*costs, strict=True))
    allowed_us, rate = 1e6 / CONNECTS_A_SECOND, f"{CONNECTS_A_SECOND:,} a second"
    return [
        Result("connect and subscribe, of a core", "us", spent_us, allowed_us, rate, target=1.0),
        Result("connect and subscribe, each", "us", real_us, allowed_us, rate, target=None if quick else 1.0),
    ]


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
