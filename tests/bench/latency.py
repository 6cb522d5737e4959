"""How long a publish waits for its reply, the more of them there are: up to what one node takes, and a little beyond.

`notifyd bench` drives a node of its own at even rates, 200 clients over WebSocket in JSON, then over device links in
MessagePack. A wait counts from when the request was due, so that above what the node takes it grows and grows.
"""

from notifyd.bench.load import EncodingName, Load, Scenario, TransportName
from notifyd.bench.running import run_load
from tests.bench.curve import Curve

RATES = (1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 35_000, 40_000, 45_000, 50_000, 60_000, 80_000)
CONNECTIONS = 200
SECONDS = 3.0
SATURATED = 0.95
"""Where less than this share of what was due was answered in time, the node takes no more."""

KINDS: tuple[tuple[str, TransportName, EncodingName], ...] = (
    ("WebSocket, JSON", "websocket", "json"),
    ("device link, MessagePack", "device", "msgpack"),
)


async def curves(*, quick: bool) -> list[Curve]:
    """Raise the rate until the node is saturated, over each transport."""
    lines: dict[str, list[list[float]]] = {}
    for name, transport, encoding in KINDS:
        for rate in RATES[:1] if quick else RATES:
            load = Load(
                scenario=Scenario.PUBLISH,
                transport=transport,
                encoding=encoding,
                connections=CONNECTIONS,
                rate=rate,
                seconds=0.5 if quick else SECONDS,
            )
            report = await run_load(load, on_sample=lambda _: None)
            assert report.latency is not None
            lines.setdefault(f"{name}, p50", []).append([rate, report.latency.p50])
            lines.setdefault(f"{name}, p99", []).append([rate, report.latency.p99])
            if report.rate < SATURATED * rate:
                break
    title = f"A publish and its reply, {CONNECTIONS} clients, one core"
    return [Curve("latency", title, "publishes a second", "milliseconds until the reply", lines, log_y=True)]
