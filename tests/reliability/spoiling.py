"""Ways to spoil a conversation.

A spoiled conversation is decided by a seed and its number alone: `make_spoiled(7, 12)` is the same in every run.
"""

import functools
import random
from collections.abc import Callable
from typing import NamedTuple

from tests.reliability.conversations import (
    KINDS,
    Chance,
    Pause,
    Said,
    Step,
    say_on_device,
    say_on_http,
    say_on_websocket,
)

CORPUS = 1000
"""Valid conversations to start from."""

ENDINGS = ("reset", "close", "half-close", "silence")
"""What the client does last: RST; close; end its own sending side and read on; say nothing more for a moment."""


class Conversation(NamedTuple):
    """What a client does at a listener."""

    listener: str
    steps: tuple[Step, ...]
    ending: str


def make_spoiled(seed: int, number: int) -> Conversation:
    """Make one: most are spoiled in one to four places, some are left as they are."""
    chance = random.Random(f"{seed}:{number}")
    listener, steps = chance.choice(_corpus(seed))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 4))):
        steps = chance.choice(_SPOILERS)(chance, steps)
    return Conversation(listener, tuple(steps), chance.choice(ENDINGS))


@functools.cache
def _corpus(seed: int) -> list[Said]:
    """Make the valid conversations: the spoiling differs each time, and costs much less."""
    chance = random.Random(seed)
    kinds = chance.choices(list(KINDS), weights=[weight for weight, _ in KINDS.values()], k=CORPUS)
    return [KINDS[kind][1](chance) for kind in kinds]


def _somewhere(chance: Chance, steps: list[Step]) -> int | None:
    """The place of a step that sends something."""
    places = [place for place, step in enumerate(steps) if isinstance(step, bytes) and step]
    return chance.choice(places) if places else None


def _rewrite(chance: Chance, steps: list[Step], change: Callable[[bytearray], bytes | bytearray]) -> list[Step]:
    place = _somewhere(chance, steps)
    if place is None:
        return steps
    said = steps[place]
    assert isinstance(said, bytes)
    return [*steps[:place], bytes(change(bytearray(said))), *steps[place + 1 :]]


def flip_bits(chance: Chance, steps: list[Step]) -> list[Step]:
    """Flip one to five bits of what is sent."""

    def flip(data: bytearray) -> bytearray:
        for _ in range(chance.choice((1, 1, 2, 5))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return data

    return _rewrite(chance, steps, flip)


def flip_header(chance: Chance, steps: list[Step]) -> list[Step]:
    """Flip a bit in the first bytes of something: where frames have their types and lengths."""

    def flip(data: bytearray) -> bytearray:
        data[chance.randrange(min(16, len(data)))] ^= 1 << chance.randrange(8)
        return data

    return _rewrite(chance, steps, flip)


def truncate(chance: Chance, steps: list[Step]) -> list[Step]:
    """Leave out the end of something; sometimes all that follows too."""
    place = _somewhere(chance, steps)
    if place is None:
        return steps
    said = steps[place]
    assert isinstance(said, bytes)
    rest = [] if chance.random() < 0.5 else steps[place + 1 :]
    return [*steps[:place], said[: chance.randrange(len(said))], *rest]


def duplicate(chance: Chance, steps: list[Step]) -> list[Step]:
    """Say something twice, or a part of it."""
    if chance.random() < 0.5:
        place = _somewhere(chance, steps)
        return steps if place is None else [*steps[: place + 1], *steps[place:]]

    def double(data: bytearray) -> bytearray:
        start = chance.randrange(len(data))
        stop = chance.randrange(start, len(data)) + 1
        return data[:stop] + data[start:]

    return _rewrite(chance, steps, double)


def splice(chance: Chance, steps: list[Step]) -> list[Step]:
    """Put a part of another conversation somewhere."""
    _, others = chance.choice((say_on_device, say_on_websocket, say_on_http))(chance)
    said = chance.choice([step for step in others if isinstance(step, bytes)])
    part = said[chance.randrange(len(said)) :]

    def insert(data: bytearray) -> bytearray:
        at = chance.randrange(len(data) + 1)
        return data[:at] + part + data[at:]

    return _rewrite(chance, steps, insert)


def lie_about_length(chance: Chance, steps: list[Step]) -> list[Step]:
    """Announce another length than what follows."""

    def lie(data: bytearray) -> bytearray:
        if data.startswith(b"HEAR") and len(data) >= 16:
            data[13:16] = chance.choice((bytes(3), b"\0\0\1", b"\xff\xff\xff", chance.randbytes(3)))
        elif (at := data.find(b"Content-Length: ")) >= 0:
            data[at + 16 : at + 17] = chance.choice((b"", b"-", b"9", b"99999999999"))
        elif len(data) > 2:
            data[1] = 0x80 | chance.choice((0, 1, 125, 126, 127, chance.randrange(128)))
        return data

    return _rewrite(chance, steps, lie)


def put_high_bytes(chance: Chance, steps: list[Step]) -> list[Step]:
    """Put a byte of 0x80 or above, or a control character, into a line of a request's head."""

    def put(data: bytearray) -> bytearray:
        end = data.find(b"\r\n\r\n")
        at = chance.randrange(end if end > 0 else len(data)) + 1
        odd = chance.choice((chance.randrange(0x80, 0x100), chance.randrange(0x20), 0x7F))
        data[at:at] = bytes([odd])
        return data

    return _rewrite(chance, steps, put)


def leave_out(chance: Chance, steps: list[Step]) -> list[Step]:
    """Leave out a step."""
    place = chance.randrange(len(steps)) if steps else 0
    return [*steps[:place], *steps[place + 1 :]]


def swap(chance: Chance, steps: list[Step]) -> list[Step]:
    """Say things in another order."""
    shuffled = list(steps)
    if len(shuffled) > 1:
        one, other = chance.sample(range(len(shuffled)), 2)
        shuffled[one], shuffled[other] = shuffled[other], shuffled[one]
    return shuffled


def recut(chance: Chance, steps: list[Step]) -> list[Step]:
    """Send the same bytes in other pieces: all at once, or cut anywhere."""
    whole = b"".join(step for step in steps if isinstance(step, bytes))
    cuts = sorted(chance.randrange(len(whole) + 1) for _ in range(chance.randrange(6)))
    return [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def pause(chance: Chance, steps: list[Step]) -> list[Step]:
    """Wait in the middle."""
    place = chance.randrange(len(steps) + 1)
    return [*steps[:place], Pause(chance.choice((0.001, 0.01, 0.05))), *steps[place:]]


_SPOILERS: tuple[Callable[[Chance, list[Step]], list[Step]], ...] = (
    flip_bits,
    flip_header,
    truncate,
    duplicate,
    splice,
    lie_about_length,
    put_high_bytes,
    leave_out,
    swap,
    recut,
    pause,
)
