"""Asking a running node over HTTP: for commands that look at it or operate it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from http.client import HTTPConnection
    from urllib.parse import SplitResult

DEFAULT_HTTP_URL = "http://127.0.0.1:7502"
TIMEOUT_S = 5.0
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
    command: str, url: str, api_key: str | None, path: str, body: Any = None, *, timeout_s: float = TIMEOUT_S
) -> tuple[int, bytes]:
    """GET a path of the API, or POST `body` to it as JSON; return status and body of the answer.

    `command` is who asks, for the errors. Raises NotifydError that says what to do, also where a key is wanted, and
    BadParameter.
    """
    from http import HTTPStatus

    from notifyd.errors import NotifydError

    status, answer = _exchange(command, url, api_key, path, body, timeout_s=timeout_s)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NotifydError(f"{command}: {url} wants one of the node's API keys: give --api-key, or NOTIFYD_API_KEY")
    return status, answer


def _exchange(
    command: str, url: str, api_key: str | None, path: str, body: Any, *, timeout_s: float
) -> tuple[int, bytes]:
    from http.client import HTTPException

    import msgspec

    from notifyd.errors import NotifydError

    connection, prefix = _dial(url, timeout_s)
    method, content = ("GET", None) if body is None else ("POST", msgspec.json.encode(body))
    headers = {"Content-Type": "application/json"} if content else {}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
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
