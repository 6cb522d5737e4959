"""The codec against the Construct declarations it was made from."""

from collections.abc import Callable
from timeit import timeit

from protocol.codec import FrameDecoder, FrameType, encode_frame
from protocol.frames import build_frame, parse_frame
from tests.bench.result import Result, compare

PAYLOAD = b'{"op":"message","topic":"orders:status","data":{"order":4711,"state":"paid"},"offset":20}'
TIMESTAMP_MS = 1_790_000_000_123
ROUNDS = 9

Action = Callable[[], object]


async def measure(*, quick: bool) -> list[Result]:
    """Decode and encode one data frame both ways."""
    frame = encode_frame(FrameType.JSON, PAYLOAD, TIMESTAMP_MS)
    decoder = FrameDecoder()

    def decode() -> object:
        decoder.receive(frame)
        return decoder.next_frame()

    return [
        _compare("decode a frame", decode, lambda: parse_frame(frame), quick=quick),
        _compare(
            "encode a frame",
            lambda: encode_frame(FrameType.JSON, PAYLOAD, TIMESTAMP_MS),
            lambda: build_frame(FrameType.JSON, TIMESTAMP_MS, PAYLOAD),
            quick=quick,
        ),
    ]


def _compare(name: str, ours: Action, construct: Action, *, quick: bool) -> Result:
    times = 1_000 if quick else 5_000
    rounds = [(_cost_us(ours, 5 * times), _cost_us(construct, times)) for _ in range(ROUNDS)]
    return compare(name, "us", "Construct", rounds, target=5.0)


def _cost_us(action: Action, times: int) -> float:
    return timeit(action, number=times) / times * 1e6
