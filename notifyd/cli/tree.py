"""`notifyd tree`."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from http.client import HTTPConnection
    from urllib.parse import SplitResult

    from rich.text import Text
    from rich.tree import Tree

    from notifyd.supervision import TreeNode

DEFAULT_URL = "http://127.0.0.1:7502"
TIMEOUT_S = 5.0
MAX_TREE_BYTES = 16 * 1024 * 1024
"""A bound on what is read from an address that may be anybody's."""

STYLES = {
    "connected": "green",
    "connecting": "yellow",
    "backing off": "yellow",
    "unavailable": "bold red",
    "disconnected": "dim",
}


def tree(
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="The node's HTTP listener, as in [listen] http.")
    ] = DEFAULT_URL,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", metavar="KEY", envvar="NOTIFYD_API_KEY", help="One of the node's [auth] api_keys."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tree as JSON.")] = False,
) -> None:
    """Print the live supervision tree of a running node."""
    import time

    import msgspec

    root = fetch_tree(url, api_key)
    if as_json:
        print(msgspec.json.encode(root).decode())
        return
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(render(root, int(time.time() * 1000)))


def fetch_tree(url: str, api_key: str | None) -> "TreeNode":
    """Ask a node for its tree. Raises NotifydError that says what to do."""
    import msgspec

    from notifyd.errors import NotifydError
    from notifyd.supervision import TreeNode

    status, body = _get(url, api_key)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NotifydError(f"notifyd tree: {url} wants one of the node's API keys: give --api-key, or NOTIFYD_API_KEY")
    try:
        return msgspec.json.decode(body if status == HTTPStatus.OK else b"", type=TreeNode)
    except msgspec.DecodeError:
        raise NotifydError(
            f"notifyd tree: {url} is not a node's HTTP listener: it answered {status} without a tree"
        ) from None


def _get(url: str, api_key: str | None) -> tuple[int, bytes]:
    """Return status and body of the answer. Raises NotifydError, BadParameter."""
    from http.client import HTTPException

    from notifyd.errors import NotifydError

    connection, path = _dial(url)
    try:
        connection.request("GET", path, headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"})
        response = connection.getresponse()
        return response.status, response.read(MAX_TREE_BYTES)
    except OSError as error:
        raise NotifydError(
            f"notifyd tree: no node answers at {url} ({error.strerror or error}): "
            "`notifyd serve` starts one, --url names another address"
        ) from None
    except HTTPException as error:
        raise NotifydError(f"notifyd tree: what answers at {url} speaks no HTTP ({type(error).__name__})") from None
    except ValueError:  # its text may hold the key
        raise typer.BadParameter("the URL or the API key has characters that cannot be sent") from None
    finally:
        connection.close()


def _dial(url: str) -> "tuple[HTTPConnection, str]":
    """Prepare a connection, past all proxies, and the path. Raises BadParameter for what is no HTTP URL."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise typer.BadParameter(f"{url!r} is no URL: {error}", param_hint="--url") from None
    kinds = {"http": HTTPConnection, "https": HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname:
        raise typer.BadParameter(f"{url!r} is no URL such as {DEFAULT_URL}", param_hint="--url")
    return kinds[parts.scheme](parts.hostname, port, timeout=TIMEOUT_S), f"{parts.path.rstrip('/')}/v1/tree"


def render(root: "TreeNode", now_ms: int) -> "Tree":
    """Draw a node and what is below it; times are told as how long ago they were."""
    from rich.tree import Tree

    drawn = Tree(describe_node(root, now_ms))
    for child in root.children:
        drawn.add(render(child, now_ms))
    return drawn


def describe_node(node: "TreeNode", now_ms: int) -> "Text":
    """Return one line: name, state and since when, restarts and the last error where there were any."""
    from rich.text import Text

    if node.count is not None:
        return Text.assemble(f"{node.name}: ", (str(node.count), "bold"))
    line = Text.assemble((node.name, "bold"), " ", (node.state.value, STYLES[node.state.value]))
    line.append(f" for {describe_duration(now_ms - node.since_ms)}", "dim")
    if node.restarts:
        line.append(f", {node.restarts} restart{'s'[: node.restarts != 1]}")
    if node.error:
        printable = "".join(character if character.isprintable() else "?" for character in node.error)
        line.append(f", last error: {printable}", "red")
    return line


def describe_duration(duration_ms: int) -> str:
    """Say a duration in its two largest units, such as `2h 5m`."""
    seconds = max(0, duration_ms // 1000)
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    first = next((place for place, (_, size) in enumerate(sizes) if seconds >= size), len(sizes) - 1)
    pieces = []
    for unit, size in sizes[first : first + 2]:
        pieces.append(f"{seconds // size}{unit}")
        seconds %= size
    return " ".join(pieces)
