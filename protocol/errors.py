"""What can go wrong between two peers, as data: error codes, close codes, and the exceptions that carry them.

Source: spec/wire.md, "Errors" and "Close codes".
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """The `code` of an `error` message. The numbers are HTTP's."""

    BAD_REQUEST = 400
    UNAUTHORIZED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    CONFLICT = 409
    TOO_LARGE = 413
    RATE_LIMITED = 429
    INTERNAL = 500
    UNAVAILABLE = 503
    TIMEOUT = 504


class CloseCode(IntEnum):
    """Why a connection ended: the WebSocket close code, or the `code` of a device link's last `error` push."""

    NORMAL = 1000
    GOING_AWAY = 1001
    WEBSOCKET_PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    PROTOCOL_ERROR = 4000
    UNAUTHORIZED = 4001
    FORBIDDEN = 4003
    HEARTBEAT_LOST = 4008
    TOO_SLOW = 4009
    TOO_LARGE = 4013
    RATE_LIMITED = 4029
    REPLACED = 4100

    @property
    def reason(self) -> str:
        """The stable, machine-readable word for this code, such as `heartbeat_lost`."""
        return self.name.lower()

    @property
    def may_reconnect(self) -> bool:
        """Whether a client may reconnect by itself after being closed with this code."""
        return self not in _FINAL_CLOSE_CODES


_FINAL_CLOSE_CODES = frozenset(
    {CloseCode.PROTOCOL_ERROR, CloseCode.UNAUTHORIZED, CloseCode.FORBIDDEN, CloseCode.REPLACED}
)


class RequestError(Exception):
    """A request that is answered with an `error` message; the connection goes on.

    `reason` is stable and machine-readable, `message` is for people, `retry_after_s` says when asking again makes
    sense, `request_id` is the request's `id` where it had a valid one.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        reason: str | None = None,
        retry_after_s: float | None = None,
        request_id: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or code.name.lower()
        self.message = message
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class ProtocolError(Exception):
    """The wire protocol was violated. Parsers raise nothing but its two subclasses."""


class LocalProtocolError(ProtocolError):
    """This side tried to send what the protocol does not allow: a bug in the caller, found before a byte left."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow. `close_code` is the answer it must get."""

    def __init__(self, message: str, close_code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.close_code = close_code
