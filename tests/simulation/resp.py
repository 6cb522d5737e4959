"""What a Redis answers, as values, and the bytes they become in RESP3.

An answer is None, int, float, bytes, a list, a dict (a map) or one of the types here.
"""

from math import isnan
from typing import Any, TypeAlias

Reply: TypeAlias = Any


class Simple(bytes):
    """A status such as `+OK`."""


class Members(list[bytes]):
    """A set: RESP3 has a type of its own for it."""


class Scores(list[list[Any]]):
    """Members with their scores, as pairs; scripts get them in one flat list."""


class Push(list[Any]):
    """What comes unasked: a message, or the confirmation of a subscription."""


class Refusal(Exception):
    """An error of a command: its text begins with the code, such as `ERR` or `WRONGTYPE`."""


OK = Simple(b"OK")
SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
NOT_A_FLOAT = "ERR value is not a valid float"
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def number_text(value: float) -> bytes:
    """Write a double as Redis 7.0 does."""
    if value in (float("inf"), float("-inf")):
        return b"inf" if value > 0 else b"-inf"
    return b"%.17g" % value


def encode_reply(reply: Reply) -> bytes:
    """Write an answer down."""
    out: list[bytes] = []
    _encode(reply, out)
    return b"".join(out)


def _encode(reply: Reply, out: list[bytes]) -> None:
    if reply is None:
        out.append(b"_\r\n")
    elif isinstance(reply, Simple):
        out.append(b"+%b\r\n" % reply)
    elif isinstance(reply, bytes):
        out.append(b"$%d\r\n%b\r\n" % (len(reply), reply))
    elif isinstance(reply, int):
        out.append(b":%d\r\n" % reply)
    elif isinstance(reply, float):
        out.append(b",%b\r\n" % number_text(reply))
    elif isinstance(reply, Refusal):
        out.append(b"-%b\r\n" % str(reply).replace("\r", " ").replace("\n", " ").encode())
    elif isinstance(reply, dict):
        out.append(b"%%%d\r\n" % len(reply))
        for key, value in reply.items():
            _encode(key, out)
            _encode(value, out)
    else:
        mark = b"~" if isinstance(reply, Members) else b">" if isinstance(reply, Push) else b"*"
        out.append(b"%b%d\r\n" % (mark, len(reply)))
        for item in reply:
            _encode(item, out)


def plain(reply: Reply) -> Reply:
    """Return an answer as a script sees it: RESP2, without sets and doubles."""
    if isinstance(reply, Scores):
        return [plain(item) for pair in reply for item in pair]
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return number_text(reply) if isinstance(reply, float) else reply


def integer(text: bytes) -> int:
    """Read a whole number of 64 bits. Raises Refusal."""
    if not _is_integer(text) or not -(2**63) <= int(text) < 2**63:
        raise Refusal(NOT_AN_INTEGER)
    return int(text)


def _is_integer(text: bytes) -> bool:
    digits = text[1:] if text[:1] == b"-" else text
    return digits.isdigit() and (digits[:1] != b"0" or text == b"0")


def double(text: bytes, refusal: str = NOT_A_FLOAT) -> float:
    """Read a score. Raises Refusal."""
    try:
        value = float(text)
    except ValueError:
        raise Refusal(refusal) from None
    if isnan(value) or text != text.strip() or b"_" in text:
        raise Refusal(refusal)
    return value
