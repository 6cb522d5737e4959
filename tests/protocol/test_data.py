import math
from typing import Any

import msgspec
import pytest
from hypothesis import given

from protocol.codec import MAX_PAYLOAD_BYTES, MOST_PAYLOAD_LIMIT_BYTES
from protocol.data import MAX_DATA_DEPTH, MAX_INTEGER, MIN_INTEGER, check_data
from protocol.errors import ErrorCode, RequestError
from tests.protocol.strategies import data


def lists_inside_each_other(depth: int, innermost: Any = None) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


@given(data)
def test_what_both_encodings_carry_is_taken(value: Any) -> None:
    check_data(value)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value)) == value
    msgspec.json.decode(msgspec.json.encode(value))


@pytest.mark.parametrize("value", [MIN_INTEGER, MAX_INTEGER, 0, -0.0, 5e-324, 1e308, "", "\0", b"", True, None, [], {}])
def test_the_edges_are_inside(value: Any) -> None:
    check_data(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (MIN_INTEGER - 1, "an integer is outside"),
        (MAX_INTEGER + 1, "an integer is outside"),
        (math.nan, "nan is no number"),
        (math.inf, "inf is no number"),
        (-math.inf, "-inf is no number"),
        ({1: 2}, "keys are strings, not int"),
        ({b"a": 2}, "keys are strings, not bytes"),
        ({None: 2}, "keys are strings, not NoneType"),
        (msgspec.msgpack.Ext(5, b""), "extension type"),
        ((1, 2), "extension type"),
    ],
)
@pytest.mark.parametrize("inside", [lambda value: value, lambda value: [1, value], lambda value: {"a": {"b": value}}])
def test_what_one_encoding_cannot_carry_is_refused_wherever_it_stands(value: Any, said: str, inside: Any) -> None:
    with pytest.raises(RequestError, match=f"^data cannot be carried: .*{said}") as caught:
        check_data(inside(value))
    assert (caught.value.code, caught.value.reason) == (ErrorCode.BAD_REQUEST, "bad_request")


def test_the_depth_is_counted_in_lists_and_objects() -> None:
    check_data(lists_inside_each_other(MAX_DATA_DEPTH))
    check_data(lists_inside_each_other(MAX_DATA_DEPTH - 1, {"a": 1}))
    for too_deep in (
        lists_inside_each_other(MAX_DATA_DEPTH + 1),
        lists_inside_each_other(MAX_DATA_DEPTH, []),
        lists_inside_each_other(MAX_DATA_DEPTH, {}),
        lists_inside_each_other(100_000),
    ):
        with pytest.raises(RequestError, match="more than 64"):
            check_data(too_deep)


@given(data)
def test_json_is_at_most_six_times_messagepack_and_messagepack_two_and_a_quarter_times_json(value: Any) -> None:
    in_json, in_msgpack = msgspec.json.encode(value), msgspec.msgpack.encode(value)
    assert len(in_json) <= 6 * len(in_msgpack)
    assert len(in_msgpack) <= 2.25 * (len(in_json) + 1)


@pytest.mark.parametrize(
    "packed", ["a101", "c2", "ca80000001", "cb800fffffffffffff", "cbffefffffffffffff", "caff7fffff", "90", "80", "c400"]
)
def test_the_growth_of_single_values_in_a_long_list(packed: str) -> None:
    data_bytes = bytes.fromhex(packed) * 1000
    in_msgpack = b"\xdc\x03\xe8" + data_bytes
    assert len(msgspec.json.encode(msgspec.msgpack.decode(in_msgpack))) <= 6 * len(in_msgpack)


def test_the_largest_message_fits_a_frame_in_either_encoding() -> None:
    around_bytes = 1024
    assert 6 * MOST_PAYLOAD_LIMIT_BYTES + around_bytes <= MAX_PAYLOAD_BYTES
