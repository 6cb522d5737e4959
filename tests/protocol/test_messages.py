from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.data import check_data
from protocol.errors import CloseCode, ErrorCode, RemoteProtocolError, RequestError
from protocol.framing import Encoding
from protocol.messages import (
    MAX_PROBLEM_CHARACTERS,
    Connect,
    Gap,
    Message,
    Ping,
    Publish,
    Request,
    ServerMessage,
    decode_request,
    decode_server_message,
    encode,
)
from tests.protocol.outcomes import outcome_of
from tests.protocol.strategies import data, json_data, requests, server_messages

encodings = pytest.mark.parametrize("encoding", Encoding)


@given(requests, st.sampled_from(Encoding))
def test_requests_decode_to_what_was_encoded(request: Request, encoding: Encoding) -> None:
    assert decode_request(encode(request, encoding), encoding) == request


@given(requests)
def test_json_may_come_as_text_or_as_bytes(request: Request) -> None:
    assert decode_request(encode(request, Encoding.JSON).decode(), Encoding.JSON) == request


@given(server_messages, st.sampled_from(Encoding))
def test_server_messages_decode_to_what_was_encoded(message: ServerMessage, encoding: Encoding) -> None:
    assert decode_server_message(encode(message, encoding), encoding) == message


@given(data)
def test_data_of_messagepack_comes_back_with_its_bytes(value: Any) -> None:
    message = Message(topic="a", data=value, time=1)
    assert decode_server_message(encode(message, Encoding.MSGPACK), Encoding.MSGPACK) == message
    in_json = decode_server_message(encode(message, Encoding.JSON), Encoding.JSON)
    assert isinstance(in_json, Message)
    check_data(in_json.data)


@encodings
def test_a_gap_speaks_of_from_and_to(encoding: Encoding) -> None:
    encoded = encode(Gap(topic="a", first=1, last=2, reason="slow"), encoding)
    plain = msgspec.json.decode(encoded) if encoding is Encoding.JSON else msgspec.msgpack.decode(encoded)
    assert plain == {"op": "gap", "topic": "a", "from": 1, "to": 2, "reason": "slow"}


# --- what is wrong ---------------------------------------------------------------------------------------------------


def packed(message: Any, encoding: Encoding) -> bytes:
    return msgspec.json.encode(message) if encoding is Encoding.JSON else msgspec.msgpack.encode(message)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OPS = [kind.__struct_config__.tag for kind in Request.__args__]
FIELD_NAMES = ["id", "topic", "data", "since", "limit", "offset", "key", "echo", "token", "heartbeat", "positions", "x"]
half_right = st.fixed_dictionaries(
    {"op": st.sampled_from(OPS) | st.text(max_size=5)},
    optional=dict.fromkeys(FIELD_NAMES, json_like) | {"id": st.integers(-1, 9), "topic": st.just("a")},
)


@given(half_right, st.sampled_from(Encoding))
def test_an_object_with_an_op_is_answered_never_ended(message: dict[str, Any], encoding: Encoding) -> None:
    outcome = outcome_of(decode_request, packed(message, encoding), encoding)
    assert not isinstance(outcome, RemoteProtocolError)
    if isinstance(outcome, RequestError):
        number = message.get("id")
        assert (outcome.code, outcome.reason) == (ErrorCode.BAD_REQUEST, "bad_request")
        assert outcome.request_id == (number if type(number) is int and number >= 1 else None)
        assert len(outcome.message) <= MAX_PROBLEM_CHARACTERS + 50
    else:
        check_data(getattr(outcome, "data", None))
        assert outcome.__struct_config__.tag == message["op"]


@given(st.binary(max_size=60), st.sampled_from(Encoding))
@example(b"\x81\xa2op\x81\xa2op", Encoding.MSGPACK)
@example(b'{"op":"\\ud800"}', Encoding.JSON)
def test_only_the_two_errors_leave_the_decoders(payload: bytes, encoding: Encoding) -> None:
    requested = outcome_of(decode_request, payload, encoding)
    if isinstance(requested, RemoteProtocolError):
        assert requested.close_code is CloseCode.PROTOCOL_ERROR
    pushed = outcome_of(decode_server_message, payload, encoding)
    assert not isinstance(pushed, RequestError)


@given(st.text(max_size=60))
def test_any_text_likewise(payload: str) -> None:
    with pytest.raises((RemoteProtocolError, RequestError)):
        decode_request(payload, Encoding.JSON)


@encodings
@pytest.mark.parametrize("decode", [decode_request, decode_server_message])
def test_what_is_no_object_with_an_op_ends_the_connection(
    decode: Callable[[bytes, Encoding], object], encoding: Encoding
) -> None:
    messages: tuple[Any, ...] = (None, 5, "ping", [], {}, {"id": 1}, {"op": None}, {"op": 5, "id": 1})
    for message in messages:
        with pytest.raises(RemoteProtocolError, match="not an object with a string 'op'"):
            decode(packed(message, encoding), encoding)
    with pytest.raises(RemoteProtocolError, match=f"not {encoding.name}"):
        decode(b"", encoding)


@encodings
def test_the_answer_says_what_was_wrong_and_quotes_little(encoding: Encoding) -> None:
    for message, said in (
        ({"op": "ping"}, "missing required field `id`"),
        ({"op": "fly", "id": 3}, "unknown op 'fly'"),
        ({"op": "subscribe", "id": 3, "topic": "a", "since": "x" * 50_000}, "xxx…$"),
        ({"op": "x" * 50_000, "id": 3}, "unknown op 'xxx.*…$"),
    ):
        with pytest.raises(RequestError, match=said) as caught:
            decode_request(packed(message, encoding), encoding)
        assert len(caught.value.message) < 300


def test_text_that_is_no_unicode_is_told_so() -> None:
    with pytest.raises(RequestError, match="half of a surrogate pair") as caught:
        decode_request('{"op":"publish","id":4,"topic":"a","data":"\\ud83d"}', Encoding.JSON)
    assert caught.value.request_id == 4
    with pytest.raises(RequestError, match="a string is not valid UTF-8") as caught:
        decode_request(b"\x84\xa2op\xa7publish\xa2id\x04\xa5topic\xa1a\xa4data\xa1\xff", Encoding.MSGPACK)
    assert caught.value.request_id == 4


@encodings
@pytest.mark.parametrize("op", ["publish", "call"])
@pytest.mark.parametrize("depth", [65, 500, 4000])
def test_data_nested_too_deep_is_answered_with_the_id(op: str, depth: int, encoding: Encoding) -> None:
    lists = b"[" * depth + b"]" * depth if encoding is Encoding.JSON else b"\x91" * (depth - 1) + b"\x90"
    if encoding is Encoding.JSON:
        payload = b'{"op":"%b","topic":"a","method":"m","data":%b,"id":7}' % (op.encode(), lists)
    else:
        fields = {"op": op, "topic": "a", "method": "m", "id": 7}
        payload = b"\x85" + msgspec.msgpack.encode(fields)[1:] + b"\xa4data" + lists
    with pytest.raises(RequestError, match="more than 64 lists and objects inside each other") as caught:
        decode_request(payload, encoding)
    assert caught.value.request_id == 7


@given(json_data)
def test_unknown_fields_are_ignored(value: Any) -> None:
    for encoding in Encoding:
        assert decode_request(packed({"x": value, "op": "ping", "id": 1}, encoding), encoding) == Ping(id=1)


@pytest.mark.parametrize("heartbeat", [0, -1, float("nan"), float("-inf"), "30", True])
def test_a_heartbeat_is_a_positive_number(heartbeat: object) -> None:
    with pytest.raises(RequestError) as caught:
        decode_request(packed({"op": "connect", "id": 1, "heartbeat": heartbeat}, Encoding.MSGPACK), Encoding.MSGPACK)
    assert caught.value.request_id == 1


def test_a_whole_number_of_seconds_is_a_heartbeat_too() -> None:
    request = decode_request('{"op":"connect","id":1,"heartbeat":30}', Encoding.JSON)
    assert request == Connect(id=1, heartbeat=30.0)


def test_null_is_an_optional_field_left_out_and_is_data() -> None:
    assert decode_request('{"op":"publish","id":null,"topic":"a","data":null}', Encoding.JSON) == Publish(
        topic="a", data=None
    )


# --- a client reading its server -------------------------------------------------------------------------------------


@encodings
def test_a_client_ignores_what_a_newer_server_says(encoding: Encoding) -> None:
    assert decode_server_message(packed({"op": "withdrawn", "topic": "a"}, encoding), encoding) is None
    assert decode_server_message(packed({"op": "pong", "id": 1, "new": 5}, encoding), encoding) is not None


@encodings
def test_a_known_message_that_is_wrong_ends_the_connection(encoding: Encoding) -> None:
    with pytest.raises(RemoteProtocolError, match=r"not a server message: .*`id`"):
        decode_server_message(packed({"op": "pong"}, encoding), encoding)
