"""`notifyd demo`: a node, a fleet of devices and a subscriber, in one process and on this machine alone."""

import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import trio
import typer

if TYPE_CHECKING:
    from notifyd.cli.demo.board import Board, Places
    from notifyd.node import Node
    from notifyd.settings import Settings

DRAIN_S = 0.5
DRAIN_LIMIT_S = 1.5
"""From the signal to the end, even with clients that do not go."""

LAST_LINES_S = 0.5
"""What a slow reader of the output gets for the last lines."""

PortOption = Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="On 127.0.0.1; 0 is any free one.")]


def _check_origin(origin: str) -> str:
    from notifyd.policy.origin import is_serialized_origin

    if not is_serialized_origin(origin):
        raise typer.BadParameter(f"expected an origin such as http://localhost:8000, got {origin!r}")
    return origin


def demo(
    seconds: Annotated[float | None, typer.Option(metavar="N", min=0, help="End by itself after so long.")] = None,
    websocket: PortOption = 7500,
    device: PortOption = 7501,
    http: PortOption = 7502,
    origin: Annotated[
        str, typer.Option(metavar="URL", help="Pages of this origin may connect.", callback=_check_origin)
    ] = "http://localhost:8000",
) -> None:
    """Run a node with devices that publish readings of this machine, and watch them. Needs no configuration."""
    from notifyd.errors import ListenError

    try:
        trio.run(run_demo, demo_settings(websocket, device, http, origin), seconds)
    except ListenError as error:
        raise ListenError(f"notifyd demo: {error}".replace("(listen.", "(--")) from None


def demo_settings(websocket: int, device: int, http: int, *origins: str) -> "Settings":
    """Return the settings of a node on these ports of 127.0.0.1, with anonymous access, from pages of these origins."""
    import msgspec

    from notifyd.settings import Address, Settings

    settings = Settings.demo(*origins)
    host = "127.0.0.1"
    listen = msgspec.structs.replace(
        settings.listen, websocket=Address(host, websocket), device=Address(host, device), http=Address(host, http)
    )
    return msgspec.structs.replace(
        settings, listen=listen, node=msgspec.structs.replace(settings.node, drain_s=DRAIN_S)
    )


async def run_demo(settings: "Settings", seconds: float | None) -> None:
    """Run until a signal, or for so many seconds; then drain. Raises ListenError, and BrokenPipeError for stdout."""
    from notifyd.cli.demo.board import Board
    from notifyd.cli.demo.fleet import run_fleet
    from notifyd.cli.demo.readings import available_readings, host_part
    from notifyd.node import open_node
    from notifyd.telemetry import Telemetry

    is_read = True
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_node(settings, telemetry=Telemetry("warning")) as node:
            host, readings = host_part(), available_readings()
            board = Board(_places(node, f"metrics:{host}:{next(iter(readings))}"))
            try:
                async with trio.open_nursery() as shown, trio.open_nursery() as fleet:
                    shown.start_soon(_show, board)
                    fleet.start_soon(run_fleet, board, host, readings)
                    await _wait_for_the_end(signals, seconds)
                    await _drain(node, board)
                    fleet.cancel_scope.cancel()
                    shown.cancel_scope.deadline = trio.current_time() + LAST_LINES_S
            except* BrokenPipeError:
                is_read = False
    if not is_read:
        raise BrokenPipeError


def _places(node: "Node", topic: str) -> "Places":
    """Say where this node can be looked at."""
    from notifyd.cli.demo.board import Places
    from notifyd.cli.server_options import DEFAULT_SERVER_URL

    url = node.websocket_url or ""
    elsewhere = "" if url == DEFAULT_SERVER_URL else f" --url {url}"
    command = f"notifyd subscribe {topic}{elsewhere}"
    return Places(url, str(node.device_address), f"http://{node.http_address}/", command)


async def _wait_for_the_end(signals: AsyncIterator[int], seconds: float | None) -> None:
    with trio.move_on_after(float("inf") if seconds is None else seconds):
        await anext(signals)


async def _drain(node: "Node", board: "Board") -> None:
    """Let the clients go as a node does that is stopped: they are told first."""
    board.say("Draining: every client is told to go.")
    with trio.move_on_after(DRAIN_LIMIT_S):
        await node.drain()
    board.say(f"Drained: all clients are gone, after {board.messages} messages and {board.beats} heartbeats.")
    board.end()


async def _show(board: "Board") -> None:
    from rich.console import Console

    from notifyd.cli.demo.board import WAITING_LINES
    from notifyd.cli.demo.screen import show_lines, show_live

    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        await show_live(board, console)
        return
    board.lines, lines = trio.open_memory_channel[str](WAITING_LINES)
    await show_lines(board, lines)
