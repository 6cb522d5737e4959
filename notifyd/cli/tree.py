"""`notifyd tree`."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

import typer

from notifyd.cli.node_api import DEFAULT_HTTP_URL, ApiKeyOption, HttpUrlOption, ask_node

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from notifyd.supervision import TreeNode

STYLES = {
    "connected": "green",
    "connecting": "yellow",
    "backing off": "yellow",
    "unavailable": "bold red",
    "disconnected": "dim",
}


PIPED_COLUMNS = 1000
"""What goes into a file or another program is not cut: it is wider than the longest line."""


def tree(
    url: HttpUrlOption = DEFAULT_HTTP_URL,
    api_key: ApiKeyOption = None,
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

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_COLUMNS
    console.print(render(root, int(time.time() * 1000)), soft_wrap=True)


def fetch_tree(url: str, api_key: str | None) -> "TreeNode":
    """Ask a node for its tree. Raises NotifydError that says what to do."""
    import msgspec

    from notifyd.errors import NotifydError
    from notifyd.supervision import TreeNode

    status, body = ask_node("notifyd tree", url, api_key, "/v1/tree")
    try:
        return msgspec.json.decode(body if status == HTTPStatus.OK else b"", type=TreeNode)
    except msgspec.DecodeError:
        raise NotifydError(
            f"notifyd tree: {url} is not a node's HTTP listener: it answered {status} without a tree"
        ) from None


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
