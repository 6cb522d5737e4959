"""What the HTTP side answers: JSON, and every refusal in one form, `{"error":{"code","reason","message"}}`.

Source: spec/http.md, "Errors".
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from notifyd.errors import BrokerUnavailable
from protocol.errors import ErrorCode, RequestError

_encode = msgspec.json.Encoder().encode

COMMON_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
"""What every answer carries: it is fresh, it is what it says it is, and no other site may embed it."""

NO_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are data: a browser that shows one runs nothing in it."""


class Refusal(Exception):
    """A request that is answered with an error. `status` is HTTP's, `reason` for machines, the message for people."""

    def __init__(
        self, status: HTTPStatus, message: str, *, reason: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason or status.name.lower()
        self.message = message
        self.headers = headers or {}


class Problem(msgspec.Struct, frozen=True):
    """The inside of an error."""

    code: int
    reason: str
    message: str


class ErrorBody(msgspec.Struct, frozen=True):
    """An error as it is written: alone as an answer, or as one item of a batch."""

    error: Problem


def encode_json(value: Any) -> bytes:
    """Write the body of an answer. Its line feed lets the next prompt of a terminal stand on a line of its own."""
    return _encode(value) + b"\n"


def json_answer(value: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with `value` as JSON."""
    return Response(
        encode_json(value),
        status,
        {**COMMON_HEADERS, "content-security-policy": NO_CONTENT_POLICY, **(headers or {})},
        "application/json",
    )


def empty_answer() -> Response:
    """Answer that it is done, with nothing to say."""
    return Response(None, HTTPStatus.NO_CONTENT, COMMON_HEADERS)


def error_body(error: RequestError) -> ErrorBody:
    """Write down a refused request."""
    return ErrorBody(Problem(int(error.code), error.reason, error.message))


def refused(failure: Exception) -> Response | None:
    """Answer a refusal of any of the kinds that mean one; None for a failure that is nobody's refusal."""
    match failure:
        case Refusal():
            problem = Problem(failure.status, failure.reason, failure.message)
            return json_answer(ErrorBody(problem), failure.status, failure.headers)
        case RequestError():
            return request_refused(failure)
        case BrokerUnavailable():
            problem = Problem(ErrorCode.UNAVAILABLE, "unavailable", f"the broker is away: {failure}")
            headers = _retry_after(failure.retry_after_s)
            return json_answer(ErrorBody(problem), HTTPStatus.SERVICE_UNAVAILABLE, headers)
    return None


def request_refused(error: RequestError) -> Response:
    """Answer a refused request with its code as the status."""
    return json_answer(error_body(error), HTTPStatus(error.code), _retry_after(error.retry_after_s))


def router_refused(failure: HTTPException) -> Response:
    """Answer in our words what Starlette's router refuses: an unknown path, or a method that the path does not take."""
    status = HTTPStatus(failure.status_code)
    allowed = ", ".join(sorted((failure.headers or {}).get("Allow", "").split(", ")))
    message = f"this path takes {allowed}" if allowed else "there is nothing at this path"
    problem = Problem(status, status.name.lower(), message)
    return json_answer(ErrorBody(problem), status, {"allow": allowed} if allowed else None)


def _retry_after(delay_s: float | None) -> dict[str, str]:
    """Say when asking again makes sense, in the whole seconds of RFC 9110 section 10.2.3."""
    return {} if delay_s is None else {"retry-after": str(math.ceil(delay_s))}
