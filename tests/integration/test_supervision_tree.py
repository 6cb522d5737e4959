"""The tree of a whole node: as spec/supervision.md draws it, over HTTP, and in the terminal."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from notifyd.node import Node, open_node
from notifyd.settings import Address, Settings
from notifyd.supervision import TreeNode
from protocol.connecting import ConnectionState

pytestmark = pytest.mark.guard(30)  # it starts processes

SPEC = Path(__file__).parents[2] / "spec" / "supervision.md"


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    any_port = Address("127.0.0.1", 0)
    settings = Settings.demo()
    listen = msgspec.structs.replace(settings.listen, websocket=any_port, device=any_port, http=any_port)
    async with open_node(msgspec.structs.replace(settings, listen=listen)) as node:
        yield node


def drawn(root: TreeNode) -> list[str]:
    """Draw the names of a tree as the specification does."""
    lines = [root.name]
    for child in root.children:
        last = child is root.children[-1]
        first_line, *others = drawn(child)
        lines += [
            f"{'└── ' if last else '├── '}{first_line}",
            *(f"{'    ' if last else '│   '}{line}" for line in others),
        ]
    return lines


async def run_tree(node: Node, *options: str) -> str:
    """Run `notifyd tree` in a process of its own."""
    program = [sys.executable, "-c", "from notifyd.cli import main; main()"]
    done = await trio.run_process(
        [*program, "tree", "--url", f"http://{node.http_address}", *options], capture_stdout=True
    )
    return done.stdout.decode()


async def test_the_tree_is_the_one_that_the_specification_draws(node: Node) -> None:
    root = msgspec.json.decode(await run_tree(node, "--json"), type=TreeNode)
    picture = SPEC.read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    assert "\n".join(drawn(root)) == picture.rstrip()
    assert root.state is ConnectionState.CONNECTED


async def test_the_tree_is_drawn_in_the_terminal(node: Node) -> None:
    lines = (await run_tree(node)).splitlines()
    assert lines[0].startswith("node connected for ")
    assert "    ├── connections: 0" in lines
