"""Query strings and paths as typed values; what is wrong is named, together with what is expected.

Source: spec/http.md, "Parameters".
"""

from typing import Annotated, Literal, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request

from protocol.errors import ErrorCode, RequestError
from protocol.messages import Limit
from protocol.position import Position
from protocol.topics import Pattern, check_topic

MAX_PARAMETERS = 16
"""More than any endpoint knows; a longer query string is not taken apart."""

SINCE_FORMS = "'earliest' or EPOCH:OFFSET"

Parameters = TypeVar("Parameters", bound=Struct)


class NoQuery(Struct, frozen=True):
    """No parameters at all."""


class TopicsQuery(Struct, frozen=True):
    """The parameters of `GET /v1/topics`."""

    match: str | None = None
    limit: Limit = 100


class HistoryQuery(Struct, frozen=True):
    """The parameters of a topic's history."""

    since: Annotated[str, Meta(max_length=512)] = "earliest"
    limit: Limit = 100


class ConnectionsQuery(Struct, frozen=True):
    """The parameters of `GET /v1/connections`."""

    user: str | None = None
    limit: Limit = 100


class RevocationsQuery(Struct, frozen=True):
    """The parameters of `GET /v1/revocations`."""

    limit: Limit = 100


class VersionsQuery(Struct, frozen=True):
    """The parameters of `GET /v1/config/history`."""

    limit: Limit = 100


def read_query(request: Request, kind: type[Parameters]) -> Parameters:
    """Read the query string as `kind`. Raises RequestError 400 naming the parameter and what is expected of it."""
    query: bytes = request.scope["query_string"]
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as failure:
        raise bad_request(f"the query string cannot be read: {failure}") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in kind.__struct_fields__:
            raise bad_request(f"unknown parameter {name[:64]!r}; {_known(kind)}")
        if name in values:
            raise bad_request(f"parameter {name!r} is given twice")
        values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as failure:
        raise bad_request(f"bad parameter: {failure}") from None


def read_topic(request: Request) -> str:
    """Take the topic out of `/v1/topics/{topic}/…`, where it is percent-encoded. Raises RequestError 400."""
    try:
        return check_topic(unquote(request.path_params["topic"], errors="strict"))
    except UnicodeDecodeError:
        raise bad_request("the topic in the path is not percent-encoded UTF-8") from None
    except ValueError as failure:
        raise bad_request(str(failure)) from None


def read_pattern(text: str | None) -> Pattern | None:
    """Read a pattern of topics. Raises RequestError 400."""
    try:
        return None if text is None else Pattern(text)
    except ValueError as failure:
        raise bad_request(f"bad parameter match: {failure}") from None


def read_since(text: str) -> Position | Literal["earliest"]:
    """Read where history begins. Raises RequestError 400."""
    if text == "earliest":
        return "earliest"
    try:
        return Position.parse(text)
    except ValueError:
        raise bad_request(f"bad parameter since: {text[:64]!r}; {SINCE_FORMS} is expected") from None


def bad_request(message: str) -> RequestError:
    """Say what is wrong with a request."""
    return RequestError(ErrorCode.BAD_REQUEST, message)


def _known(kind: type[Struct]) -> str:
    names = kind.__struct_fields__
    return f"known here: {', '.join(names)}" if names else "this path takes none"
