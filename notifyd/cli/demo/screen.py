"""Showing the board: live in a terminal, as plain lines anywhere else."""

from datetime import datetime

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from notifyd.cli.demo.board import Board, to_json
from notifyd.cli.lines import STDOUT, LineWriter
from protocol.connecting import ConnectionState

REFRESH_S = 0.25

_STATE_STYLES = {ConnectionState.CONNECTED: "green", ConnectionState.UNAVAILABLE: "bold red"}


async def show_live(board: Board, console: Console) -> None:
    """Draw the board a few times a second, until it ends; the last picture stays."""
    with Live(console=console, auto_refresh=False) as live:
        while not board.ended.is_set():
            live.update(render_board(board), refresh=True)
            with trio.move_on_after(REFRESH_S):
                await board.ended.wait()
        live.update(render_board(board), refresh=True)


async def show_lines(board: Board, lines: trio.MemoryReceiveChannel[str]) -> None:
    """Write each line as it comes, until the board ends. Raises BrokenPipeError when nobody reads any more."""
    writer = LineWriter(STDOUT)
    for line in board.welcome():
        await writer.write(line)
    async for line in lines:
        await writer.write(line)


def render_board(board: Board) -> RenderableType:
    """Draw the board."""
    note = board.note or f"{board.messages} messages, {board.beats} heartbeats. Ctrl-C ends."
    places = Table.grid(padding=(0, 2))
    for line in board.welcome():
        places.add_row(*line.split(maxsplit=1))
    return Group(places, _devices(board), _messages(board), Text(note))


def _devices(board: Board) -> Table:
    table = Table("Device", "State", "Heartbeat", "Round trip", "Beats", "Last reading", title="Devices", expand=True)
    for row in board.devices.values():
        round_trip = "" if row.round_trip_s is None else f"{row.round_trip_s * 1000:.2f} ms"
        state = Text(row.state.value, style=_STATE_STYLES.get(row.state, "yellow"))
        table.add_row(row.name, state, f"every {row.heartbeat_s:g} s", round_trip, str(row.beats), Text(row.last))
    return table


def _messages(board: Board) -> Table:
    table = Table(title="Messages on the WebSocket", expand=True)
    for name in ("Time", "Topic", "Offset"):
        table.add_column(name, no_wrap=True)
    table.add_column("Data", no_wrap=True, overflow="ellipsis", ratio=1)
    for message in board.recent:
        moment = datetime.fromtimestamp(message.time / 1000).astimezone()
        table.add_row(f"{moment:%H:%M:%S}", Text(message.topic), str(message.offset), Text(to_json(message.data)))
    return table
