"""One message to a crowd of WebSocket clients by TLS, against the same by plain TCP: two whole nodes, in turns."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.crowd import crowded_node
from tests.bench.fanout import JOINED, TOPIC, by_hub_us
from tests.bench.result import Result, compare
from tests.certificates import write_certificates

TARGET = 0.4


async def measure(*, quick: bool) -> list[Result]:
    """Hand out single messages, then `JOINED` at once."""
    connections, rounds = (250, 15) if quick else (1000, 40)
    results = []
    with TemporaryDirectory() as directory:
        certificates = write_certificates(Path(directory))
        async with (
            crowded_node(connections, TOPIC, tls=certificates) as encrypting,
            crowded_node(connections, TOPIC) as plain,
        ):
            for messages in (1, JOINED):
                costs = [
                    (await by_hub_us(encrypting, messages), await by_hub_us(plain, messages)) for _ in range(rounds)
                ]
                name = f"fan-out by TLS, {'one message' if messages == 1 else f'{messages} joined'}"
                results.append(compare(name, "us", f"without TLS, {connections} clients", costs, target=TARGET))
    return results
