"""Row 21 of the reliability table for the decoders: nothing but the protocol's errors escapes from any bytes.

The seed of a run is in its output; `FUZZ_SEED` in the environment replays it.
"""

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from protocol.codec import Frame, FrameDecoder, FrameType, encode_frame, frames_of_message
from protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError, RequestError
from protocol.frames import parse_frame
from protocol.framing import Encoding
from protocol.messages import decode_request, decode_server_message, encode
from tests.protocol.outcomes import outcome_of
from tests.protocol.test_codec import by_codec, by_construct
from tests.protocol.test_vectors import FRAMES, MESSAGES, payloads_of

NORMAL_RUN_S = 4.0
LONG_RUN_INPUTS = 1_000_000
LIMIT_BYTES = 300
INTERESTING = [0, 1, 3, 4, 0x22, 0x5C, 0x5B, 0x7B, 0x7F, 0x80, 0x90, 0xC1, 0xC4, 0xD4, 0xDD, 0xDF, 0xFF, *b"HEAR"]


def corpus() -> list[bytes]:
    """Everything the vectors hold, as bytes of a stream: the valid is the best beginning of the invalid."""
    seeds = [bytes.fromhex(case["hex"]) for case in FRAMES["cases"]]
    for case in (*MESSAGES["valid"], *MESSAGES["invalid"]):
        for payload, encoding in payloads_of(case):
            data = payload if isinstance(payload, bytes) else payload.encode()
            kind = FrameType.JSON if encoding is Encoding.JSON else FrameType.MSGPACK
            seeds += [data, encode_frame(kind, data)]
    return seeds


def mutated(source: random.Random, seeds: list[bytes]) -> bytes:
    """Change a few bytes of a seed, cut it, repeat a piece of it, or join it with another."""
    data = bytearray(source.choice(seeds))
    for _ in range(source.randrange(4)):
        place = source.randrange(len(data) + 1)
        match source.randrange(6):
            case 0:
                data[place : place + 1] = bytes([source.choice(INTERESTING)])
            case 1:
                data[place : place + 1] = bytes([source.randrange(256)])
            case 2:
                del data[place : place + source.randrange(1, 9)]
            case 3:
                data[place:place] = bytes(source.choices(INTERESTING, k=source.randrange(1, 9)))
            case 4:
                data[place:place] = data[place : place + source.randrange(1, 40)] * source.randrange(1, 9)
            case _:
                other = source.choice(seeds)
                data[place:] = other[source.randrange(len(other) + 1) :]
    return bytes(data)


def cut(source: random.Random, data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        stop = start + source.choice([1, 2, 15, 16, 17, 100, len(data)])
        yield data[start:stop]
        start = stop


def feed(source: random.Random, data: bytes, *, with_oracle: bool) -> None:
    """Give one input to everything that reads bytes, and hold what comes out against what must hold."""
    cuts = list(cut(source, data))
    outcome = by_codec(cuts, LIMIT_BYTES)
    assert outcome == by_codec([data], LIMIT_BYTES)
    if with_oracle:
        assert outcome == by_construct(data, LIMIT_BYTES)
        outcome_of(parse_frame, data, LIMIT_BYTES)
    outcome_of(lambda: list(frames_of_message(data, LIMIT_BYTES)))
    for payload in (data, *(frame.payload for frame in outcome[0])):
        for encoding in Encoding:
            read_message(payload, encoding)


def read_message(payload: bytes | str, encoding: Encoding) -> None:
    request = outcome_of(decode_request, payload, encoding)
    if isinstance(request, RemoteProtocolError):
        assert request.close_code is CloseCode.PROTOCOL_ERROR
    elif not isinstance(request, RequestError):
        for other in Encoding:  # what was taken, every receiver can be sent
            assert encode(request, other)
        assert decode_request(encode(request, encoding), encoding) == request
    pushed = outcome_of(decode_server_message, payload, encoding)
    assert not isinstance(pushed, RequestError)


def fuzz(go_on: Callable[[int], bool], report: Callable[[str], None]) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))
    source, seeds, count = random.Random(seed), corpus(), 0
    start_s = time.monotonic()
    while go_on(count):
        data = mutated(source, seeds)
        try:
            feed(source, data, with_oracle=count % 10 == 0)
        except Exception as failure:
            failure.add_note(f"FUZZ_SEED={seed}, input {count}: {data.hex()}")
            raise
        count += 1
    report(f"fuzz: {count:,} inputs in {time.monotonic() - start_s:.1f} s, seed {seed}")
    assert count > 100


def test_nothing_but_the_protocols_errors_escapes(report: Callable[[str], None]) -> None:
    stop_s = time.monotonic() + NORMAL_RUN_S
    fuzz(lambda _: time.monotonic() < stop_s, report)


@pytest.mark.long
def test_nothing_but_the_protocols_errors_escapes_from_a_million_inputs(report: Callable[[str], None]) -> None:
    fuzz(lambda count: count < LONG_RUN_INPUTS, report)


def test_the_fuzzer_sees_what_it_is_there_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(self: FrameDecoder) -> Frame | None:
        raise LocalProtocolError("an error that must not escape")

    monkeypatch.setattr(FrameDecoder, "next_frame", forgets)
    with pytest.raises(LocalProtocolError) as caught:
        fuzz(lambda count: count < 1000, print)
    assert caught.value.__notes__[0].startswith("FUZZ_SEED=")
