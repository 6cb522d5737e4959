"""Asking a running node over HTTP: for commands that look at it or operate it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPConnection
    from urllib.parse import SplitResult

    from notifyd.errors import NotifydError

DEFAULT_HTTP_URL = "http://127.0.0.1:7502"
TIMEOUT_S = 5.0
CLUSTER_TIMEOUT_S = 30.0
"""For what the node tells its cluster before it answers."""

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""A bound on what is read from an address that may be anybody's."""

HttpUrlOption = Annotated[
    str, typer.Option("--url", metavar="URL", help="The node's HTTP listener, as in [listen] http.")
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", envvar="NOTIFYD_API_KEY", help="One of the node's [auth] api_keys."),
]


def ask_node(
    command: str,
    url: str,
    api_key: str | None,
    path: str,
    body: Any = None,
    *,
    method: str = "POST",
    headers: "Mapping[str, bytes] | None" = None,
    timeout_s: float = TIMEOUT_S,
) -> tuple[int, bytes]:
    """GET a path of the API, or send `body` to it as JSON (POST or another method); return status and body.

    `command` is who asks, for the errors. Raises NotifydError that says what to do, also where a key is wanted, and
    BadParameter.
    """
    from http import HTTPStatus

    import msgspec

    from notifyd.errors import NotifydError

    method, content = ("GET", None) if body is None else (method, msgspec.json.encode(body))
    given: dict[str, str | bytes] = dict(headers or {})
    if content:
        given["Content-Type"] = "application/json"
    if api_key is not None:
        given["Authorization"] = f"Bearer {api_key}"
    status, answer = _exchange(command, url, (method, path, content, given), timeout_s=timeout_s)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NotifydError(f"{command}: {url} wants one of the node's API keys: give --api-key, or NOTIFYD_API_KEY")
    return status, answer


def _exchange(
    command: str, url: str, request: tuple[str, str, bytes | None, dict[str, str | bytes]], *, timeout_s: float
) -> tuple[int, bytes]:
    from http.client import HTTPException

    from notifyd.errors import NotifydError

    method, path, content, headers = request
    connection, prefix = _dial(url, timeout_s)
    try:
        connection.request(method, prefix + path, content, headers)
        response = connection.getresponse()
        return response.status, response.read(MAX_ANSWER_BYTES)
    except OSError as error:
        raise NotifydError(
            f"{command}: no node answers at {url} ({error.strerror or error}): "
            "`notifyd serve` starts one, --url names another address"
        ) from None
    except HTTPException as error:
        raise NotifydError(f"{command}: what answers at {url} speaks no HTTP ({type(error).__name__})") from None
    except ValueError:  # its text may hold the key
        raise typer.BadParameter("the URL or the API key has characters that cannot be sent") from None
    finally:
        connection.close()


def _dial(url: str, timeout_s: float) -> "tuple[HTTPConnection, str]":
    """Prepare a connection, past all proxies, and what stands before every path. Raises BadParameter."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise typer.BadParameter(f"{url!r} is no URL: {error}", param_hint="--url") from None
    kinds = {"http": HTTPConnection, "https": HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname:
        raise typer.BadParameter(f"{url!r} is no URL such as {DEFAULT_HTTP_URL}", param_hint="--url")
    return kinds[parts.scheme](parts.hostname, port, timeout=timeout_s), parts.path.rstrip("/")


def refusal(command: str, url: str, status: int, body: bytes) -> "NotifydError":
    """Put what a node answered instead of what was asked for into words."""
    import msgspec

    from notifyd.errors import NotifydError
    from notifyd.listeners.http.answers import ErrorBody
    from notifyd.text import printable

    try:
        problem = msgspec.json.decode(body, type=ErrorBody).error
    except msgspec.DecodeError:
        return NotifydError(f"{command}: {url} is not a node's HTTP listener: it answered {status} with something else")
    return NotifydError(f"{command}: {problem.code} {printable(problem.reason)}: {printable(problem.message)}")
