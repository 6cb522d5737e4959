"""`notifyd tree`."""

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

import typer

from notifyd.cli.node_api import DEFAULT_HTTP_URL, ApiKeyOption, HttpUrlOption, ask_node
from notifyd.text import describe_duration, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, Group
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


WATCH_S = 1.0
"""How often `--watch` asks."""

PIPED_COLUMNS = 1000
"""What goes into a file or another program is not cut: it is wider than the longest line."""


def tree(
    url: HttpUrlOption = DEFAULT_HTTP_URL,
    api_key: ApiKeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tree as JSON.")] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Go on showing it, until q or Ctrl-C; not in a terminal, a JSON line a second."),
    ] = False,
) -> None:
    """Print the supervision tree of a running node."""
    root = fetch_tree(url, api_key)
    from rich.console import Console

    console = Console(highlight=False)
    if watch and console.is_terminal and not as_json:
        watch_tree(console, root, lambda: fetch_tree(url, api_key), url)
    elif watch:
        print_trees(root, lambda: fetch_tree(url, api_key))
    elif as_json:
        print(to_line(root))
    else:
        if not console.is_terminal:
            console.width = PIPED_COLUMNS
        console.print(render(root, unix_ms()), soft_wrap=True)


def watch_tree(console: "Console", root: "TreeNode", fetch: "Callable[[], TreeNode]", url: str) -> None:
    """Show the tree once a second until somebody ends it; while the node does not answer, the last one and why.

    It is asked for as without `--watch`: by the same URL, and also where the node's WebSocket listener is off.
    """
    from rich.live import Live

    from notifyd.cli.keys import is_quit_pressed, keys_at_once
    from notifyd.errors import NotifydError

    problem: str | None = None
    with keys_at_once(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(render_watched(root, url, problem), refresh=True)
            if is_quit_pressed(WATCH_S):
                return
            try:
                root, problem = fetch(), None
            except NotifydError as error:
                problem = str(error)


def print_trees(root: "TreeNode", fetch: "Callable[[], TreeNode]") -> None:
    """Print the tree once a second, a JSON line each, until interrupted or the node is gone. Raises NotifydError."""
    while True:
        print(to_line(root), flush=True)
        time.sleep(WATCH_S)
        root = fetch()


def render_watched(root: "TreeNode", url: str, problem: str | None) -> "Group":
    """Draw the tree, and above it from where it is and whether it is old."""
    from rich.console import Group
    from rich.text import Text

    head = Text(f"{url}   q ends", "dim")
    if problem is not None:
        head = Text(f" NO ANSWER: {printable(problem)} ", "bold white on red")
    return Group(head, render(root, unix_ms()))


def to_line(root: "TreeNode") -> str:
    """Write the tree as one line of JSON."""
    import msgspec

    return msgspec.json.encode(root).decode()


def unix_ms() -> int:
    """Return the time of day in milliseconds."""
    return int(time.time() * 1000)


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

    name = printable(node.name)
    if node.count is not None:
        return Text.assemble(f"{name}: ", (str(node.count), "bold"))
    line = Text.assemble((name, "bold"), " ", (node.state.value, STYLES[node.state.value]))
    line.append(f" for {describe_duration(now_ms - node.since_ms)}", "dim")
    if node.restarts:
        line.append(f", {node.restarts} restart{'s'[: node.restarts != 1]}")
    if node.error:
        line.append(f", last error: {printable(node.error)}", "red")
    return line
