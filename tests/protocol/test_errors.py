import pytest

from protocol.errors import (
    CloseCode,
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    RequestError,
)


def test_four_codes_forbid_to_come_back() -> None:
    final = {code for code in CloseCode if not code.may_reconnect}
    assert final == {4000, 4001, 4003, 4100}


def test_a_close_code_has_a_stable_word() -> None:
    assert CloseCode.HEARTBEAT_LOST.reason == "heartbeat_lost"
    assert CloseCode(4009).reason == "too_slow"


def test_a_refused_request_has_everything_its_answer_needs() -> None:
    error = RequestError(ErrorCode.RATE_LIMITED, "slow down", retry_after_s=0.5, request_id=7)
    assert (error.code, error.reason, error.message) == (429, "rate_limited", "slow down")
    assert (error.retry_after_s, error.request_id) == (0.5, 7)
    assert str(error) == "slow down"
    plain = RequestError(ErrorCode.NOT_FOUND, "no such method", reason="unknown_method")
    assert (plain.reason, plain.retry_after_s, plain.request_id) == ("unknown_method", None, None)


@pytest.mark.parametrize("error", [LocalProtocolError("ours"), RemoteProtocolError("theirs")])
def test_both_protocol_errors_are_one_kind(error: ProtocolError) -> None:
    assert isinstance(error, ProtocolError)
    assert not isinstance(error, RequestError)


def test_a_violation_is_answered_with_4000_unless_something_else_is_said() -> None:
    assert RemoteProtocolError("x").close_code is CloseCode.PROTOCOL_ERROR
    assert RemoteProtocolError("x", CloseCode.TOO_LARGE).close_code is CloseCode.TOO_LARGE
