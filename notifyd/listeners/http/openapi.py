"""The HTTP API as an OpenAPI 3.1 document and as a table, generated from the types that the endpoints read and write.

`python -m notifyd.listeners.http.openapi` writes `spec/openapi.json` and `spec/endpoints.md`; the tests fail while they
are not fresh, or while a path is served that they do not describe.

Source: https://spec.openapis.org/oas/v3.1.0; what the fields mean is said in spec/http.md.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from notifyd import __version__
from notifyd.listeners.http.answers import ErrorBody
from notifyd.listeners.http.backend import Publication
from notifyd.listeners.http.configuring import ConfigurationAnswer, RollbackRequest, VersionsAnswer
from notifyd.listeners.http.guard import PROBES
from notifyd.listeners.http.inspection import (
    METRICS_TYPE,
    ConnectionsAnswer,
    HealthAnswer,
    HistoryAnswer,
    PresenceAnswer,
    ReadyAnswer,
    TopicsAnswer,
)
from notifyd.listeners.http.parameters import (
    ConnectionsQuery,
    HistoryQuery,
    NoQuery,
    RevocationsQuery,
    TopicsQuery,
    VersionsQuery,
)
from notifyd.listeners.http.publishing import MAX_BATCH_ITEMS, PublishAnswer
from notifyd.listeners.http.revoking import RevocationAnswer, RevocationRequest, RevocationsAnswer
from notifyd.supervision import TreeNode

OPENAPI_FILE = "openapi.json"
ENDPOINTS_FILE = "endpoints.md"
JSON = "application/json"

Method = Literal["get", "post", "patch", "delete"]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path takes and answers.

    `answer` and `body` are types, None for nothing; a tuple is any one of its parts, a list has items of any of its
    parts, a batch of them at most. `headers` may be given, each with what it says; `refusals` come beside those that
    every operation has.
    """

    method: Method
    path: str
    summary: str
    answer: Any
    query: type[Struct] = NoQuery
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: HTTPStatus = HTTPStatus.OK
    refusals: Mapping[HTTPStatus, str] = field(default_factory=dict)


EVERYWHERE = {
    HTTPStatus.BAD_REQUEST: "What was sent cannot be read; the message names it and what is expected.",
    HTTPStatus.UNAUTHORIZED: "An API key is needed.",
    HTTPStatus.FORBIDDEN: "A browser asks for another site's page, or the topic is reserved for the server.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The broker is away or refuses, or there are too many connections.",
    HTTPStatus.GATEWAY_TIMEOUT: "The node did not answer in time.",
}
WITH_BODY = {
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body, or the message, is above its limit.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body calls itself something else than JSON, or is compressed.",
}

OF_A_CHANGE = {
    "If-Match": "The version that has to be the newest, bare or as the ETag it was answered with.",
    "X-Author": "Who makes the change: at most 128 printable characters of UTF-8.",
}
REFUSED_CHANGES = {
    HTTPStatus.PRECONDITION_FAILED: "The version in If-Match is not the newest.",
    HTTPStatus.CONFLICT: "A setting needs a restart.",
}

OPERATIONS = (
    Operation(
        "post",
        "/v1/publish",
        "Publish one message, or a list of them that leaves together",
        (PublishAnswer, [PublishAnswer, ErrorBody]),
        body=(Publication, [Publication]),
        headers={"traceparent": "W3C Trace Context, for what has no `trace` of its own; ignored where it is none."},
    ),
    Operation("get", "/v1/topics", "List the topics in use, by name", TopicsAnswer, query=TopicsQuery),
    Operation(
        "get", "/v1/topics/{topic}/history", "Read the messages that a topic keeps", HistoryAnswer, query=HistoryQuery
    ),
    Operation("get", "/v1/topics/{topic}/presence", "Tell who is subscribed to a topic", PresenceAnswer),
    Operation(
        "get", "/v1/connections", "List the clients connected to this node", ConnectionsAnswer, query=ConnectionsQuery
    ),
    Operation(
        "delete",
        "/v1/connections/{session}",
        "Disconnect a client, on whichever node it is",
        None,
        status=HTTPStatus.NO_CONTENT,
        refusals={HTTPStatus.NOT_FOUND: "No connection has this session."},
    ),
    Operation(
        "post", "/v1/revocations", "Revoke a token, or all tokens of a user", RevocationAnswer, body=RevocationRequest
    ),
    Operation("get", "/v1/revocations", "List the revocations in force", RevocationsAnswer, query=RevocationsQuery),
    Operation("get", "/v1/config", "Show the settings in force", ConfigurationAnswer),
    Operation(
        "patch",
        "/v1/config",
        "Change settings on every node, by a JSON merge patch (RFC 7396)",
        ConfigurationAnswer,
        body=dict[str, Any],
        headers=OF_A_CHANGE,
        refusals=REFUSED_CHANGES,
    ),
    Operation("get", "/v1/config/history", "List the versions of the settings", VersionsAnswer, query=VersionsQuery),
    Operation(
        "post",
        "/v1/config/rollback",
        "Go back to an earlier version of the settings",
        ConfigurationAnswer,
        body=RollbackRequest,
        headers=OF_A_CHANGE,
        refusals={**REFUSED_CHANGES, HTTPStatus.NOT_FOUND: "There is no such version, or no more."},
    ),
    Operation("get", "/v1/tree", "Show the supervision tree", TreeNode),
    Operation("get", "/health", "Tell that the process runs", HealthAnswer),
    Operation("get", "/ready", "Tell whether the node serves, and if not, why", ReadyAnswer),
    Operation("get", "/metrics", "Write all metrics in Prometheus' text format", str),
)
"""Everything a node answers but the page."""


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "notifyd",
            "version": __version__,
            "description": "The HTTP API of a node. The text is spec/http.md.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:7502"}],
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of `auth.api_keys`; not needed on a loopback listener without any.",
                }
            },
        },
    }


class _Schemas:
    """Schemas of types, each named one described once."""

    def __init__(self) -> None:
        types = [kind for one in OPERATIONS for kind in _types(one.answer, one.query, one.body)]
        self._types = [*types, ErrorBody]
        self._schemas, self._components = msgspec.json.schema_components(
            self._types, ref_template="#/components/schemas/{name}"
        )

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of what an operation takes or answers."""
        if isinstance(kind, tuple):
            return {"anyOf": [self.of(part) for part in kind]}
        if isinstance(kind, list):
            items = self.of(kind[0]) if len(kind) == 1 else self.of(tuple(kind))
            return {"type": "array", "items": items, "maxItems": MAX_BATCH_ITEMS}
        return self._schemas[self._types.index(kind)]

    def fields(self, kind: type[Struct]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the fields of a query and their schemas."""
        properties: dict[str, dict[str, Any]] = self._components[kind.__name__]["properties"]
        yield from properties.items()

    def components(self) -> dict[str, Any]:
        """Return the named schemas; queries are not among them, for their fields stand with the operations."""
        queries = {operation.query.__name__ for operation in OPERATIONS}
        named = {name: dict(schema) for name, schema in sorted(self._components.items()) if name not in queries}
        for schema in named.values():
            if "description" in schema:
                schema["description"] = inspect.cleandoc(schema["description"])
        return named


def _types(*kinds: Any) -> Iterator[Any]:
    for kind in kinds:
        if isinstance(kind, tuple | list):
            yield from _types(*kind)
        elif kind is not None:
            yield kind


def _describe(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": _identifier(operation), "summary": operation.summary}
    parameters = [*_path_parameters(operation), *_query_parameters(operation, schemas), *_header_parameters(operation)]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas.of(operation.body)}}}
    described["responses"] = dict(_responses(operation, schemas))
    if operation.path in PROBES:
        described["security"] = []
    return described


def _identifier(operation: Operation) -> str:
    words = re.findall(r"[a-z]+", operation.path.removeprefix("/v1"))
    return "_".join((operation.method, *words))


def _path_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameters(operation: Operation, schemas: _Schemas) -> Iterator[dict[str, Any]]:
    for name, schema in schemas.fields(operation.query):
        given = next((one for one in schema.get("anyOf", ()) if one["type"] != "null"), None)
        yield {"name": name, "in": "query", "schema": given or schema}


def _header_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, says in operation.headers.items():
        yield {"name": name, "in": "header", "description": says, "schema": {"type": "string"}}


def _responses(operation: Operation, schemas: _Schemas) -> Iterator[tuple[str, dict[str, Any]]]:
    yield str(operation.status.value), _response(operation.status.phrase, operation.answer, schemas)
    if operation.path == "/ready":
        phrase = "The node does not serve; the answer says why."
        yield str(HTTPStatus.SERVICE_UNAVAILABLE.value), _response(phrase, ReadyAnswer, schemas)
    if operation.path in PROBES:
        return
    refusals = {**EVERYWHERE, **(WITH_BODY if operation.body else {}), **operation.refusals}
    for status, why in sorted(refusals.items()):
        yield str(status.value), _response(why, ErrorBody, schemas)


def _response(description: str, answer: Any, schemas: _Schemas) -> dict[str, Any]:
    if answer is None:
        return {"description": description}
    kind = METRICS_TYPE if answer is str else JSON
    return {"description": description, "content": {kind: {"schema": schemas.of(answer)}}}


def document_text() -> str:
    """Return the content of `spec/openapi.json`."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def endpoints_text() -> str:
    """Return the content of `spec/endpoints.md`."""
    rows = [["endpoint", "what it does", "it takes", "refusals of its own"], ["---"] * 4]
    rows += ([f"`{one.method.upper()} {one.path}`", one.summary, _taken(one), _own_refusals(one)] for one in OPERATIONS)
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    common = "".join(f"- {status.value}: {why}\n" for status, why in sorted({**EVERYWHERE, **WITH_BODY}.items()))
    return f"""# Endpoints

Generated from the code by `python -m notifyd.listeners.http.openapi`. What they mean: [http.md](http.md). Each field
of what they take and answer: [openapi.json](openapi.json).

{table}
Every one but the probes, `/health` and `/ready`, may also refuse with

{common}
408, 413 and 415 where there is a body.
"""


def _taken(operation: Operation) -> str:
    taken = [f"`{name}`" for name in operation.query.__struct_fields__]
    taken += [f"header `{name}`" for name in operation.headers]
    return ", ".join([*taken, *(["a body"] if operation.body else [])])


def _own_refusals(operation: Operation) -> str:
    return " ".join(f"{status.value}: {why}" for status, why in sorted(operation.refusals.items()))


def write_documents(spec: Path) -> None:
    """Write both files into the directory `spec`."""
    (spec / OPENAPI_FILE).write_text(document_text(), encoding="utf-8")
    (spec / ENDPOINTS_FILE).write_text(endpoints_text(), encoding="utf-8")


if __name__ == "__main__":  # pragma: no cover
    write_documents(Path(sys.argv[1] if len(sys.argv) > 1 else "spec"))
