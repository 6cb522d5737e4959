"""Request bodies: read piece by piece, refused before they are held in memory.

Source: spec/http.md, "Bodies".
"""

from contextlib import aclosing
from http import HTTPStatus

import trio
from starlette.requests import ClientDisconnect, Request

from notifyd.listeners.http.answers import Refusal

JSON_TYPES = ("", "application/json", "application/x-www-form-urlencoded")
"""What a JSON body may be called. The last is what curl and urllib say when they were told nothing; a real form is
no JSON and gets 400, and a browser's form cannot be made to look like JSON by it."""

BODY_S = 30.0
"""A body of the largest size at 1 Mbit/s; one that comes more slowly only holds a place."""


async def read_json_body(request: Request, limit_bytes: int) -> bytes:
    """Read a body that calls itself JSON.

    Raises Refusal: 415 for another type or a content coding, 413 as soon as it is announced or found to be larger than
    `limit_bytes`, 408 when it does not arrive within BODY_S, 400 when the client goes away.
    """
    _check_type(request)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        with trio.fail_after(BODY_S):
            return await _read(request, limit_bytes)
    except trio.TooSlowError:
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_S:g} seconds") from None
    except ClientDisconnect:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the body ended early") from None


async def _read(request: Request, limit_bytes: int) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > limit_bytes:
                raise _too_large(limit_bytes)
    return bytes(body)


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in JSON_TYPES and not kind.endswith("+json"):
        message = f"a body of type {kind[:64]!r} is not taken here; send Content-Type: application/json"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        message = f"content coding {coding[:64]!r} is not taken here; send the body as it is"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)


def _too_large(limit_bytes: int) -> Refusal:
    message = f"the body is larger than {limit_bytes} bytes; send fewer messages at once"
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, reason="too_large")
