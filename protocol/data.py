"""What the `data` of a message may be: exactly what JSON and MessagePack can both carry.

Source: spec/wire.md, "Data".
"""

import math
from typing import Any

from protocol.errors import ErrorCode, RequestError

MAX_DATA_DEPTH = 64
"""Lists and objects inside each other: deep enough for documents, shallow enough for every decoder's stack."""

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1


def check_data(value: Any, *, depth: int = MAX_DATA_DEPTH) -> None:
    """Raise RequestError 400 unless both encodings can carry `value`, at most `depth` lists and objects deep."""
    kind = type(value)
    if kind is str or kind is bool or value is None or kind is bytes:
        return
    if kind is int:
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise _bad_data("an integer is outside -2^63 to 2^64-1")
    elif kind is float:
        if not math.isfinite(value):
            raise _bad_data(f"{value} is no number that JSON can carry")
    elif kind is list or kind is dict:
        if not depth:
            raise _bad_data(f"more than {MAX_DATA_DEPTH} lists and objects inside each other")
        if kind is dict:
            _check_keys(value)
            value = value.values()
        for item in value:
            check_data(item, depth=depth - 1)
    else:
        raise _bad_data("a MessagePack extension type has no JSON form")


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if type(key) is not str:
            raise _bad_data(f"an object's keys are strings, not {type(key).__name__}")


def _bad_data(problem: str) -> RequestError:
    return RequestError(ErrorCode.BAD_REQUEST, f"data cannot be carried: {problem}")
