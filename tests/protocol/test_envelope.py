import json
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import envelope
from protocol.envelope import MAX_STEPS, Envelope, check_utf8, read_envelope
from protocol.errors import RemoteProtocolError, RequestError
from protocol.framing import Encoding
from protocol.messages import decode_request, decode_server_message
from tests.protocol.strategies import data, json_data

DEEP = 2000
"""Beyond the recursion limit of Python 3.11; later ones have other limits, so here the limit is set by the tests."""


@pytest.fixture(autouse=True, scope="module")
def _the_same_small_stack_on_every_python() -> Iterator[None]:
    def shallow(decode: Callable[..., Any]) -> Callable[..., Any]:
        def decode_shallow(payload: Any, **options: Any) -> Any:
            if isinstance(payload, str):
                containers = re.sub(r'"(?:[^"\\]|\\.)*+"?', "", payload).count("[")
            else:
                containers = sum(payload.count(byte) for byte in b"\x91\x92\x81")
            if containers > 1000:
                raise RecursionError
            return decode(payload, **options)

        return decode_shallow

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_json_envelope", "_msgpack_envelope"):
            patch.setattr(envelope, name, shallow(getattr(envelope, name)))
        patch.setattr(envelope, "json", SimpleNamespace(loads=shallow(json.loads)))
        yield


ids = (
    st.integers(-5, 2**33)
    | st.none()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.lists(st.none())
)


def valid(number: Any) -> int | None:
    return number if type(number) is int and 1 <= number < 2**32 else None


@given(st.text(), ids, json_data)
def test_op_and_id_are_read_from_any_object(op: str, number: Any, other: Any) -> None:
    message = {"x": other, "op": op, "id": number, "y": [other]}
    for encoding, encode in ((Encoding.JSON, msgspec.json.encode), (Encoding.MSGPACK, msgspec.msgpack.encode)):
        assert read_envelope(encode(message), encoding) == Envelope(op, valid(number))
    assert read_envelope(json.dumps(message), Encoding.JSON) == Envelope(op, valid(number))


def test_an_id_is_not_needed() -> None:
    assert read_envelope('{"op":"x"}', Encoding.JSON) == Envelope("x", None)


@given(json_data, st.integers(1, 2**32 - 1))
@example({"a": "]}\"'\\ud800\\"}, 1)
@example(["\\", '"', "{[", "]}"], 2)
def test_a_message_nested_beyond_the_stack_is_read_from_its_outermost_object(other: Any, number: int) -> None:
    text = json.dumps(other)
    deep = "[" * DEEP + text + "]" * DEEP
    for message in (
        f'{{"x":{deep},"op":"publish","id":{number},"y":{text}}}',
        f'{{"op":"publish","id":{number},"x":{text},"y":{deep}}}',
        f'{{"y":{{"z":{deep}}},"id":{number},"op":"publish"}}',
    ):
        assert read_envelope(message, Encoding.JSON) == Envelope("publish", number)
        assert read_envelope(message.encode(), Encoding.JSON) == Envelope("publish", number)


@given(data, st.integers(1, 2**32 - 1))
def test_messagepack_beyond_the_stack_likewise(other: Any, number: int) -> None:
    packed = msgspec.msgpack.encode(other)
    head = b"\xa2op\xa7publish\xa2id" + msgspec.msgpack.encode(number)
    for deep in (b"\x91" * DEEP + packed, b"\x81\xa1k" * DEEP + packed):
        for message in (b"\x84" + head + b"\xa1x" + packed + b"\xa1y" + deep, b"\x83\xa1y" + deep + head):
            assert read_envelope(message, Encoding.MSGPACK) == Envelope("publish", number)


@pytest.mark.parametrize(
    "other",
    [
        *(0.5, True, None, 127, 128, 256, 2**16, 2**32, 2**63, -32, -33, -129, -(2**15) - 1, -(2**31) - 1),
        *(text * size for text in ("x", b"x") for size in (0, 31, 32, 255, 256, 65535, 65536)),
        *([None] * size for size in (0, 15, 16, 65535, 65536)),
        *({str(number): 0 for number in range(size)} for size in (0, 15, 16, 65535, 65536)),
        *(msgspec.msgpack.Ext(5, bytes(size)) for size in (0, 1, 2, 3, 4, 8, 16, 255, 256, 65536)),
    ],
    ids=lambda other: type(other).__name__,
)
def test_every_form_of_messagepack_is_stepped_over(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_STEPS", 10**6)
    packed = msgspec.msgpack.encode(other)
    message = b"\x83\xa1y" + b"\x92\xc0" * DEEP + packed + b"\xa1x" + packed + b"\xa2op\xa7publish"
    assert read_envelope(message, Encoding.MSGPACK) == Envelope("publish", None)


def test_floats_of_32_bits_are_stepped_over_too() -> None:
    message = b"\x83\xa1y" + b"\x91" * DEEP + b"\xc0\xa1z\xca\x3f\xc0\x00\x00\xa2op\xa1x"
    assert read_envelope(message, Encoding.MSGPACK) == Envelope("x", None)


@pytest.mark.parametrize(
    ("message", "encoding"),
    [
        ("[" * DEEP + "]" * DEEP, Encoding.JSON),
        ('{"x":' + "[" * DEEP + '],"op":"x"}', Encoding.JSON),
        ('{"x":' + "[" * DEEP + "]" * DEEP + "}", Encoding.JSON),
        ('{"x":' + "[" * DEEP + "]" * DEEP + ',"op":"x"', Encoding.JSON),
        ('{"x":' + "[" * DEEP + '"' + '\\"' * DEEP, Encoding.JSON),
        (b"\x91" * DEEP + b"\xc0", Encoding.MSGPACK),
        (b"\x82\xa1y" + b"\x91" * DEEP, Encoding.MSGPACK),
        (b"\x82\xa1y" + b"\x91" * DEEP + b"\xc0\xa2op", Encoding.MSGPACK),
        (b"\x82\xa1y" + b"\x91" * DEEP + b"\xc0\xa2op\xa9x", Encoding.MSGPACK),
        (b"\x82\xa1y" + b"\x91" * DEEP + b"\xc0\xa2op\xa1x\xc0", Encoding.MSGPACK),
        (b"\x82" + b"\x91" * DEEP + b"\xc0\xc0\xa2op\xa1x", Encoding.MSGPACK),
        (b"\x82\xa1y" + b"\x91" * DEEP + b"\xdf\xff\xff\xff\xff", Encoding.MSGPACK),
    ],
)
def test_what_is_no_message_is_none_at_any_depth(message: bytes | str, encoding: Encoding) -> None:
    with pytest.raises(RemoteProtocolError):
        read_envelope(message, encoding)


@pytest.mark.parametrize(
    ("message", "encoding"),
    [
        ('{"op":"x","id":5,"y":' + "[" * DEEP + "[]," * MAX_STEPS + "1" + "]" * DEEP + "}", Encoding.JSON),
        ('{"op":"x","id":5,"z":"\\ud800","y":' + "[" * (MAX_STEPS + DEEP) + "}", Encoding.JSON),
        (b"\x83\xa1y" + b"\x92\xc0" * MAX_STEPS + b"\xc0\xa2op\xa1x\xa2id\x05", Encoding.MSGPACK),
        (
            b"\x83\xa2op\xa1x\xa2id\x05\xa1y" + b"\x91" * DEEP + b"\xdd\xff\xff\xff\xff" + b"\xc0" * MAX_STEPS,
            Encoding.MSGPACK,
        ),
    ],
    ids=["json", "json with a surrogate", "msgpack", "msgpack with a long list"],
)
def test_what_would_cost_too_much_to_read_is_not_read(message: bytes | str, encoding: Encoding) -> None:
    assert read_envelope(message, encoding) == Envelope(None, None)
    with pytest.raises(RequestError) as caught:
        decode_request(message, encoding)
    assert caught.value.request_id is None
    with pytest.raises(RemoteProtocolError):
        decode_server_message(message, encoding)


@pytest.mark.parametrize("number", ["5", "null", "0", '"5"', "[5]"])
def test_half_a_surrogate_pair_hides_neither_op_nor_id(number: str) -> None:
    message = '{"op":"publish","id":' + number + ',"data":"\\ud83d"}'
    assert read_envelope(message, Encoding.JSON) == Envelope("publish", valid(json.loads(number)))
    assert read_envelope('{"op":"x","a":"\\udc00"}', Encoding.JSON) == Envelope("x", None)
    deep = '{"op":"x","a":"\\udc00","b":' + "[" * DEEP + "]" * DEEP + "}"
    assert read_envelope(deep, Encoding.JSON) == Envelope("x", None)


@pytest.mark.parametrize("message", ['["\\ud83d"]', '{"id":1,"a":"\\ud83d"}', '{"op":5,"a":"\\ud83d"}', '"\\ud83d"'])
def test_half_a_surrogate_pair_makes_no_message_of_what_is_none(message: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_envelope(message, Encoding.JSON)


def test_text_that_python_can_hold_and_utf8_cannot() -> None:
    assert read_envelope('{"op":"x","a":"\ud83d"}', Encoding.JSON) == Envelope("x", None)


def test_messagepack_that_came_as_text_is_judged_as_its_bytes() -> None:
    with pytest.raises(RemoteProtocolError, match="not an object"):
        read_envelope("hello", Encoding.MSGPACK)


@given(st.binary(max_size=20))
def test_utf8_is_checked_as_python_checks_it(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as failure:
        with pytest.raises(RemoteProtocolError, match=f"at byte {failure.start}$"):
            check_utf8(payload)
    else:
        check_utf8(payload)
