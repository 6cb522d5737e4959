"""Every message of the wire as a type, and their JSON and MessagePack forms from the same types.

One flat object a message; `op` says which. Requests come from clients, replies and pushes from the server.

Source: spec/wire.md, "Messages"; spec/messages.schema.json is generated from this file.
"""

import json
import math
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
from protocol.framing import Encoding
from protocol.position import Position

MAX_DATA_DEPTH = 64
"""Lists and objects inside each other: deep enough for documents, shallow enough for every decoder's stack."""

MAX_KEY_CHARACTERS = 128
"""An idempotency key: a UUID, a hash or a short sentence; each is remembered for minutes, so its size is bounded."""

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1

RequestId: TypeAlias = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARACTERS)]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Since: TypeAlias = Position | Literal["earliest", "latest"]


class ClientInfo(Struct, frozen=True):
    """Which program a client is; shown to operators."""

    name: Annotated[str, Meta(max_length=128)] = ""
    version: Annotated[str, Meta(max_length=128)] = ""


# --- requests: what a client sends ---------------------------------------------------------------------------------


class Connect(Struct, tag="connect", tag_field="op", kw_only=True):
    """Open the session. `heartbeat` is in seconds; `positions` say where to resume each topic."""

    id: RequestId
    token: str | None = None
    session: str | None = None
    client: ClientInfo | None = None
    heartbeat: float | None = None
    positions: dict[str, Position] | None = None


class Subscribe(Struct, tag="subscribe", tag_field="op", kw_only=True):
    """Receive a topic's messages, from now on or from a position in the past."""

    id: RequestId
    topic: str
    since: Since = "latest"


class Unsubscribe(Struct, tag="unsubscribe", tag_field="op", kw_only=True):
    """Stop receiving a topic."""

    id: RequestId
    topic: str


class Publish(Struct, tag="publish", tag_field="op", kw_only=True):
    """Send `data` to every subscriber of a topic. Without `id` it is not answered."""

    topic: str
    data: Any
    id: RequestId | None = None
    key: Key | None = None
    echo: bool = True


class Ack(Struct, tag="ack", tag_field="op", kw_only=True):
    """Everything of the topic up to `offset` has been handled. Without `id` it is not answered."""

    topic: str
    offset: Offset
    id: RequestId | None = None


class Presence(Struct, tag="presence", tag_field="op", kw_only=True):
    """Ask who is subscribed."""

    id: RequestId
    topic: str


class History(Struct, tag="history", tag_field="op", kw_only=True):
    """Ask for kept messages after `since` (exclusive), oldest first."""

    id: RequestId
    topic: str
    since: Since = "earliest"
    limit: Limit = 100


class Call(Struct, tag="call", tag_field="op", kw_only=True):
    """Call a backend's method."""

    id: RequestId
    method: str
    data: Any = None


class Refresh(Struct, tag="refresh", tag_field="op", kw_only=True):
    """Replace the connection's token by a fresh one of the same user."""

    id: RequestId
    token: str


class Ping(Struct, tag="ping", tag_field="op", kw_only=True):
    """A sign of life for clients that can send neither binary nor control frames."""

    id: RequestId


Request: TypeAlias = Connect | Subscribe | Unsubscribe | Publish | Ack | Presence | History | Call | Refresh | Ping


# --- replies and pushes: what the server sends ---------------------------------------------------------------------


class Restored(Struct, frozen=True, omit_defaults=True):
    """How a subscription made by `connected` stands: its position, and whether everything before it will arrive."""

    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET


class Connected(Struct, tag="connected", tag_field="op", kw_only=True):
    """The session is open; without `id` it answers a WebSocket handshake.

    `heartbeat` is in seconds, `expires` (the token's) in Unix seconds; `topics` are those subscribed by this very step.
    """

    session: str
    resumed: bool
    user: str
    node: str
    heartbeat: float
    id: int | UnsetType = UNSET
    expires: int | UnsetType = UNSET
    topics: dict[str, Restored] | UnsetType = UNSET


class Subscribed(Struct, tag="subscribed", tag_field="op", kw_only=True):
    """The topic's messages follow: first the missed ones, then live ones."""

    id: int
    topic: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    scope: Literal["node"] | UnsetType = UNSET


class Unsubscribed(Struct, tag="unsubscribed", tag_field="op", kw_only=True):
    """The topic's messages stop: as a reply with `id`, as a push with `reason`."""

    topic: str
    id: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Published(Struct, tag="published", tag_field="op", kw_only=True):
    """The message was accepted, at this position where the topic keeps history."""

    id: int
    topic: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    scope: Literal["node"] | UnsetType = UNSET


class Acked(Struct, tag="acked", tag_field="op", kw_only=True):
    """The acknowledgement was taken."""

    id: int
    topic: str
    offset: int


class Member(Struct, frozen=True, kw_only=True):
    """One subscribed session of a user, `since` Unix ms."""

    user: str
    session: str
    since: int


class PresenceReply(Struct, tag="presence", tag_field="op", kw_only=True):
    """Who is subscribed."""

    id: int
    topic: str
    members: list[Member]


class Entry(Struct, omit_defaults=True, kw_only=True):
    """A kept message inside a history reply."""

    topic: str
    data: Any
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    time: int
    sender: str | UnsetType = UNSET


class HistoryReply(Struct, tag="history", tag_field="op", kw_only=True):
    """Kept messages, oldest first; `more` when the limit left some out."""

    id: int
    topic: str
    messages: list[Entry]
    more: bool
    epoch: str | UnsetType = UNSET


class Result(Struct, tag="result", tag_field="op", kw_only=True):
    """What a backend's method returned."""

    id: int
    data: Any


class Refreshed(Struct, tag="refreshed", tag_field="op", kw_only=True):
    """The new token holds, until `expires` (Unix seconds) where it expires."""

    id: int
    expires: int | UnsetType = UNSET


class Pong(Struct, tag="pong", tag_field="op", kw_only=True):
    """The answer to a `ping` message."""

    id: int


class Message(Struct, tag="message", tag_field="op", kw_only=True):
    """A published message. `time` (Unix ms) is when the broker accepted it, `sender` the user who published it."""

    topic: str
    data: Any
    time: int
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    sender: str | UnsetType = UNSET


class Joined(Struct, tag="joined", tag_field="op", kw_only=True):
    """A session subscribed to the topic."""

    topic: str
    user: str
    session: str


class Left(Struct, tag="left", tag_field="op", kw_only=True):
    """A session is no longer subscribed to the topic."""

    topic: str
    user: str
    session: str


class Gap(Struct, tag="gap", tag_field="op", kw_only=True):
    """The offsets `from` to `to` (inclusive) were not delivered; `history` has what is still kept of them."""

    topic: str
    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")
    reason: str
    epoch: str | UnsetType = UNSET


class GoAway(Struct, tag="goaway", tag_field="op", kw_only=True):
    """Reconnect at a random moment between `after` and `after + within` seconds from now."""

    reason: str
    after: float
    within: float


class Error(Struct, tag="error", tag_field="op", kw_only=True):
    """A request failed (with its `id`), or the connection is about to end. `retry_after` is in seconds."""

    code: int
    reason: str
    message: str
    id: int | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET


ServerMessage: TypeAlias = (
    Connected
    | Subscribed
    | Unsubscribed
    | Published
    | Acked
    | PresenceReply
    | HistoryReply
    | Result
    | Refreshed
    | Pong
    | Message
    | Joined
    | Left
    | Gap
    | GoAway
    | Error
)


# --- encoding and decoding -----------------------------------------------------------------------------------------


class _Envelope(Struct):
    """What every message must at least be."""

    op: str
    id: Any = None


_DECODERS = {Encoding.JSON: msgspec.json.Decoder, Encoding.MSGPACK: msgspec.msgpack.Decoder}
_decode_request = {encoding: decoder(Request).decode for encoding, decoder in _DECODERS.items()}
_decode_server_message = {encoding: decoder(ServerMessage).decode for encoding, decoder in _DECODERS.items()}
_decode_envelope = {encoding: decoder(_Envelope).decode for encoding, decoder in _DECODERS.items()}
_encode_message = {Encoding.JSON: msgspec.json.Encoder().encode, Encoding.MSGPACK: msgspec.msgpack.Encoder().encode}
_known_ops = frozenset(request.__struct_config__.tag for request in Request.__args__)


def encode(message: Request | ServerMessage, encoding: Encoding) -> bytes:
    """Write a message down. `bytes` inside `data` become base64 text in JSON and `bin` in MessagePack."""
    return _encode_message[encoding](message)


def decode_request(payload: bytes | str, encoding: Encoding) -> Request:
    """Read a client's message.

    Raises RequestError 400 (with the request's id where it has a valid one) for an unknown `op`, a missing or mistyped
    field and for data that one of the encodings cannot carry; RemoteProtocolError for bytes that are no message at all.
    """
    try:
        request: Request = _decode_request[encoding](payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as failure:
        raise _judge_failure(payload, encoding, failure) from None
    if type(request) is Publish or type(request) is Call:
        try:
            check_data(request.data)
        except RequestError as error:
            error.request_id = request.id
            raise
    return request


def decode_server_message(payload: bytes | str, encoding: Encoding) -> ServerMessage | None:
    """Read a server's message; None for an `op` this version does not know, which a client ignores.

    Raises RemoteProtocolError for anything else.
    """
    try:
        message: ServerMessage = _decode_server_message[encoding](payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as failure:
        try:
            op = _decode_envelope[encoding](payload).op
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            op = ""
        if op and op not in _known_server_ops:
            return None
        raise RemoteProtocolError(f"not a server message: {failure}") from None
    return message


_known_server_ops = frozenset(message.__struct_config__.tag for message in ServerMessage.__args__)


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


def _judge_failure(payload: bytes | str, encoding: Encoding, failure: Exception) -> Exception:
    """Tell a request that is wrong (400, the connection goes on) from bytes that are no message (a protocol error)."""
    envelope: _Envelope | None
    try:
        if encoding is Encoding.JSON and isinstance(payload, bytes):
            payload.decode()
        envelope = _decode_envelope[encoding](payload)
    except RecursionError:
        return _bad_data(f"more than {MAX_DATA_DEPTH} lists and objects inside each other")
    except msgspec.ValidationError as no_envelope:
        return RemoteProtocolError(f"not an object with a string 'op': {no_envelope}")
    except (msgspec.DecodeError, UnicodeError) as malformed:
        if encoding is Encoding.JSON and (envelope := _with_lone_surrogates(payload)) is not None:
            failure = ValueError("a string holds half of a surrogate pair")
        else:
            return RemoteProtocolError(f"not {encoding.name}: {malformed}")
    request_id = envelope.id
    if type(request_id) is not int or not 1 <= request_id < 2**32:
        request_id = None
    problem = str(failure)
    if envelope.op not in _known_ops:
        problem = f"unknown op {envelope.op[:64]!r}"
    return RequestError(ErrorCode.BAD_REQUEST, f"bad request: {problem}", request_id=request_id)


def _with_lone_surrogates(payload: bytes | str) -> _Envelope | None:
    """Read JSON that msgspec calls malformed for half a surrogate pair, which JSON's grammar allows (RFC 8259, 8.2)."""
    try:
        message = json.loads(payload, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        return None
    return _Envelope(op=message["op"], id=message.get("id"))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
