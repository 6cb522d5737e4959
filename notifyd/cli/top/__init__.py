"""`notifyd top`: how all nodes are, live, over the wire protocol."""

import signal
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from notifyd.cli.node_api import ApiKeyOption
from notifyd.cli.server_options import DEFAULT_SERVER_URL, TokenOption, UrlOption

if TYPE_CHECKING:
    from notifyd.cli.top.board import NodeBoard, Said
    from notifyd.client import Client
    from notifyd.errors import NotifydError

ALL_HEARD_S = 2.5
"""From the first figures until every node has spoken, also of its topics: they hear late that somebody watches."""

FIRST_HEARD_S = 10.0
"""How long a node that is connected to may keep its figures to itself."""


def top(
    url: UrlOption = DEFAULT_SERVER_URL,
    token: TokenOption = None,
    api_key: ApiKeyOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON a second, as where no terminal is.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
) -> None:
    """Show live how all nodes are: clients, messages, latency, topics. q or Ctrl-C ends."""
    trio.run(run_top, url, api_key or token, as_json, once)


async def run_top(url: str, token: str | None, as_json: bool, once: bool) -> None:
    """Show the nodes until told to end. Raises NotifydError, and BrokenPipeError when nobody reads any more."""
    from notifyd.cli.top.board import NodeBoard
    from notifyd.client import open_client

    board, is_read = NodeBoard(url), True
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_client(url, token, client_name="notifyd top") as client:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_end_at, signals, nursery.cancel_scope)
                    nursery.start_soon(_listen, client, board, nursery)
                    await _show(board, as_json, once)
                    nursery.cancel_scope.cancel()
            except* BrokenPipeError:
                is_read = False
    if not is_read:
        raise BrokenPipeError


async def _show(board: "NodeBoard", as_json: bool, once: bool) -> None:
    from rich.console import Console

    from notifyd.cli.top.screen import print_lines, print_once, show_nodes

    console = Console(highlight=False)
    is_live = console.is_terminal and not console.is_dumb_terminal and not as_json
    await _wait_heard(board, once)
    if is_live and once:
        print_once(board, console)
    elif is_live:
        await show_nodes(board, console)
    else:
        await print_lines(board, 1 if once else None)


async def _wait_heard(board: "NodeBoard", once: bool) -> None:
    """Wait until there is something to show. Raises NotifydError."""
    from notifyd.errors import NotifydError

    await board.connected.wait()
    with trio.move_on_after(FIRST_HEARD_S):
        await board.heard.wait()
        if once:
            await trio.sleep(ALL_HEARD_S)
        return
    raise NotifydError(f"notifyd top: {board.url} says nothing about itself: is it an older node?")


async def _end_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _listen(client: "Client", board: "NodeBoard", nursery: trio.Nursery) -> None:
    """Connect, and let the board have what is said. Raises NotifydError, also where this client is no operator."""
    from notifyd.cli.server_options import wait_connected_once
    from notifyd.client import ConnectionRefused
    from notifyd.figures.messages import NodeReport, NodeTopics
    from notifyd.hub.watches import FIGURES_TOPIC, TOPICS_TOPIC
    from protocol.errors import CloseCode

    try:
        await wait_connected_once(client, board.url)
    except ConnectionRefused as refusal:
        raise _wants_key(board.url) if refusal.code is CloseCode.UNAUTHORIZED else refusal from None
    nursery.start_soon(_hear, client, board.url, FIGURES_TOPIC, NodeReport, board.take_figures)
    nursery.start_soon(_hear, client, board.url, TOPICS_TOPIC, NodeTopics, board.take_topics)
    async for state in client.states():
        board.take_state(state, client.problem)


async def _hear(
    client: "Client", url: str, topic: str, kind: "type[Said]", take: "Callable[[Said, float], None]"
) -> None:
    from notifyd.cli.top.board import read_said
    from protocol.errors import RequestError
    from protocol.messages import Message

    try:
        async with client.subscribe(topic) as feed:
            async for event in feed:
                if isinstance(event, Message) and (said := read_said(event.data, kind)) is not None:
                    take(said, trio.current_time())
    except RequestError:
        raise _wants_key(url) from None


def _wants_key(url: str) -> "NotifydError":
    from notifyd.errors import NotifydError

    return NotifydError(
        f"notifyd top: {url} tells this to operators only: give one of the node's API keys, by --api-key or "
        "NOTIFYD_API_KEY"
    )
