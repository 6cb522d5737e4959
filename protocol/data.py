"""What the `data` of a message may be: exactly what JSON and MessagePack can both carry.

Source: spec/wire.md, "Data".
"""

from collections.abc import Iterable
from math import isfinite
from typing import Any

from protocol.errors import ErrorCode, RequestError

MAX_DATA_DEPTH = 64
"""Lists and objects inside each other: deep enough for documents, shallow enough for every decoder's stack."""

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1


_CARRIED_BY_BOTH = frozenset({str, bool, type(None), bytes})


def check_data(value: Any) -> None:
    """Raise RequestError 400 unless both encodings can carry `value`, at most 64 lists and objects deep."""
    _check_items((value,), MAX_DATA_DEPTH)


def _check_items(items: Iterable[Any], depth: int) -> None:
    """Check values that may hold `depth` more lists and objects. One call a container: each publish pays for it."""
    for item in items:
        kind = type(item)
        if kind in _CARRIED_BY_BOTH:
            continue
        if kind is int:
            if not MIN_INTEGER <= item <= MAX_INTEGER:
                raise _bad_data("an integer is outside -2^63 to 2^64-1")
        elif kind is float:
            if not isfinite(item):
                raise _bad_data(f"{item} is no number that JSON can carry")
        elif kind is not list and kind is not dict:
            raise _bad_data("a MessagePack extension type has no JSON form")
        elif not depth:
            raise _bad_data(f"more than {MAX_DATA_DEPTH} lists and objects inside each other")
        elif item:
            if kind is dict:
                _check_keys(item)
            _check_items(item.values() if kind is dict else item, depth - 1)


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if type(key) is not str:
            raise _bad_data(f"an object's keys are strings, not {type(key).__name__}")


def _bad_data(problem: str) -> RequestError:
    return RequestError(ErrorCode.BAD_REQUEST, f"data cannot be carried: {problem}")
