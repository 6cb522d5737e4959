"""`POST /v1/publish`: one message, or a list of them that leaves together.

Source: spec/http.md, "Publish".
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from notifyd.broker.base import Accepted
from notifyd.listeners.http.answers import ErrorBody, error_body, json_answer
from notifyd.listeners.http.backend import Backend, Publication
from notifyd.listeners.http.body import read_json_body
from notifyd.listeners.http.parameters import NoQuery, bad_request, read_query
from protocol.data import check_data
from protocol.errors import ErrorCode, RequestError
from protocol.topics import check_topic, is_reserved
from protocol.trace import read_trace

MAX_BATCH_ITEMS = 1000
"""A batch is one turn of the event loop; larger ones would keep everybody else waiting."""

BODY_PAYLOADS = 64
"""A body may be as large as this many payloads of the largest size."""

_JSON_SPACE = b" \t\r\n"
_decode_items = msgspec.json.Decoder(Annotated[list[Raw], Meta(max_length=MAX_BATCH_ITEMS)]).decode
_decode_publication = msgspec.json.Decoder(Publication).decode


class PublishAnswer(Struct, frozen=True, omit_defaults=True):
    """What became of one message; positions only where the topic keeps history."""

    topic: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    scope: Literal["node"] | UnsetType = UNSET


class Publishing:
    """The endpoint. `payload_limit_bytes` holds for each message as it is written in the body."""

    def __init__(self, backend: Backend, payload_limit_bytes: int) -> None:
        self._backend = backend
        self._payload_limit_bytes = payload_limit_bytes

    async def publish(self, request: Request) -> Response:
        """Answer `POST /v1/publish`."""
        read_query(request, NoQuery)
        trace = _trace_of(request)
        body = (await read_json_body(request, BODY_PAYLOADS * self._payload_limit_bytes)).strip(_JSON_SPACE)
        if body.startswith(b"["):
            return json_answer(await self._publish_batch(_read_items(body), trace))
        publication = self._read_publication(body, trace)
        return json_answer(_answer(publication, await self._backend.publish(publication)))

    async def _publish_batch(self, items: Sequence[Raw], trace: str | None) -> list[PublishAnswer | ErrorBody]:
        read = [self._judge(item, trace) for item in items]
        publications = [item for item in read if isinstance(item, Publication)]
        results = iter(await self._backend.publish_batch(publications) if publications else ())
        return [error_body(item) if isinstance(item, RequestError) else _item(item, next(results)) for item in read]

    def _judge(self, item: Raw, trace: str | None) -> Publication | RequestError:
        try:
            return self._read_publication(bytes(item), trace)
        except RequestError as refusal:
            return refusal

    def _read_publication(self, text: bytes, trace: str | None) -> Publication:
        """Read and check one message; its own trace goes before the request's. Raises RequestError 400, 403 or 413."""
        if len(text) > self._payload_limit_bytes:
            message = f"the message has {len(text)} bytes; {self._payload_limit_bytes} are allowed"
            raise RequestError(ErrorCode.TOO_LARGE, message)
        try:
            publication = _decode_publication(text)
            check_topic(publication.topic)
        except (ValueError, RecursionError) as failure:
            raise bad_request(f"not a message to publish: {failure}") from None
        if is_reserved(publication.topic):
            raise RequestError(ErrorCode.FORBIDDEN, f"topic {publication.topic!r} is reserved for the server")
        check_data(publication.data)
        own = None if publication.trace is None else read_trace(publication.trace)
        return publication if publication.trace == (own or trace) else replace(publication, trace=own or trace)


def _trace_of(request: Request) -> str | None:
    """Read the header; one that is no traceparent, or stands there twice, is as if it were not there."""
    given = request.headers.getlist("traceparent")
    return read_trace(given[0]) if len(given) == 1 else None


def _read_items(body: bytes) -> Sequence[Raw]:
    try:
        items: list[Raw] = _decode_items(body)
    except (ValueError, RecursionError) as failure:
        raise bad_request(f"not a list of messages to publish: {failure}") from None
    return items


def _item(publication: Publication, result: Accepted | RequestError) -> PublishAnswer | ErrorBody:
    return error_body(result) if isinstance(result, RequestError) else _answer(publication, result)


def _answer(publication: Publication, published: Accepted) -> PublishAnswer:
    position = published.position
    return PublishAnswer(
        topic=publication.topic,
        epoch=position.epoch if position else UNSET,
        offset=position.offset if position else UNSET,
        scope=published.scope or UNSET,
    )
