"""Showing the nodes: live in a terminal, as a line of JSON a second anywhere else."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from notifyd.cli.keys import keys_at_once, wait_quit
from notifyd.cli.lines import STDOUT, LineWriter
from notifyd.cli.top.board import NodeBoard, NodeRow
from notifyd.figures.messages import ByEncoding, Flow, NodeReport, TopicFigures
from notifyd.text import curve_of, describe_bytes, describe_duration, describe_number, printable
from protocol.connecting import ConnectionState

REDRAW_S = 0.5
LINE_S = 1.0

BAD = "bold white on red"
DOUBTFUL = "bold black on yellow"

_STATE_STYLES = {"serving": "green", "degraded": BAD, "draining": DOUBTFUL}
_WIDE_COLUMNS = 110
_WIDE_CURVE, _NARROW_CURVE = 16, 2
_WIDE_NAME, _NARROW_NAME = 40, 14
"""Characters of a curve and of a node's name: what has to be seen fits 80 columns."""

_FEWEST_TOPICS = 3


async def show_nodes(board: NodeBoard, console: Console) -> None:
    """Draw the board again and again, as large as the terminal is then, until somebody presses q."""
    with keys_at_once(), Live(console=console, screen=True, auto_refresh=False) as live:
        async with trio.open_nursery() as nursery:

            async def redraw() -> None:
                while True:
                    live.update(Picture(board, trio.current_time(), console.height), refresh=True)
                    await trio.sleep(REDRAW_S)

            nursery.start_soon(redraw)
            await wait_quit()
            nursery.cancel_scope.cancel()


def print_once(board: NodeBoard, console: Console) -> None:
    """Draw the board, with as many topics as fit the terminal."""
    console.print(Picture(board, trio.current_time(), console.height))


async def print_lines(board: NodeBoard, count: int | None) -> None:
    """Write so many lines (None: for ever), one a second. Raises BrokenPipeError when nobody reads any more."""
    writer = LineWriter(STDOUT)
    while True:
        await writer.write(msgspec.json.encode(describe_board(board, trio.current_time())))
        count = None if count is None else count - 1
        if count == 0:
            return
        await trio.sleep(LINE_S)


def describe_board(board: NodeBoard, now_s: float) -> dict[str, Any]:
    """Tell everything as data; `silent_s` is null for a node that speaks."""
    return {
        "time": int(time.time() * 1000),
        "connection": board.state.value,
        "problem": None if board.state is ConnectionState.CONNECTED else board.problem,
        "nodes": [
            {**msgspec.to_builtins(row.figures), "silent_s": _rounded(row.silent_s(now_s))} for row in board.rows(now_s)
        ],
        "topics": msgspec.to_builtins(board.topics(now_s)),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


class Picture:
    """The board as it is at one moment, drawn as wide as it may be then, in at most `height` lines where that goes."""

    def __init__(self, board: NodeBoard, now_s: float, height: int) -> None:
        self._board = board
        self._now_s = now_s
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the head, the nodes, what is wrong with them, and the topics that still fit."""
        rows = self._board.rows(self._now_s)
        upper = Group(*self._head(rows), _draw_nodes(rows, self._now_s, options.max_width >= _WIDE_COLUMNS))
        wrong = [line for row in rows for line in _describe_trouble(row, self._now_s)]
        taken = len(console.render_lines(upper, options, pad=False)) + len(wrong)
        yield upper
        yield from wrong
        yield _draw_topics(self._board.topics(self._now_s), max(_FEWEST_TOPICS, self._height - taken - 4))

    def _head(self, rows: Sequence[NodeRow]) -> list[RenderableType]:
        board = self._board
        nodes = f"{len(rows)} node{'s'[: len(rows) != 1]}"
        head = [Text.assemble(("notifyd top", "bold"), f"   {board.url}   {nodes}   ", ("q ends", "dim"))]
        head[0].no_wrap, head[0].overflow = True, "ellipsis"
        if board.state is not ConnectionState.CONNECTED:
            why = f": {printable(board.problem)}" if board.problem else ""
            head.append(Text(f" NOT CONNECTED, {board.state.value}{why}. What follows is old. ", BAD))
        return [*head]


def _draw_nodes(rows: Sequence[NodeRow], now_s: float, is_wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("Node", "json/msgp.", "Messages/s", "ms", "Queue", "CPU", "Broker"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    if is_wide:
        table.add_column("Bytes/s", no_wrap=True)
        table.add_column("Topics", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, now_s, is_wide))
    return table


def _cells(row: NodeRow, now_s: float, is_wide: bool) -> list[RenderableType]:
    figures = row.figures
    curve, name = (_WIDE_CURVE, _WIDE_NAME) if is_wide else (_NARROW_CURVE, _NARROW_NAME)
    clients, latency, broker = figures.connections, figures.latency_ms, figures.broker
    memory = "" if figures.memory_bytes is None else describe_bytes(figures.memory_bytes)
    trip = "" if broker.round_trip_ms is None else f" {describe_number(broker.round_trip_ms)}"
    cells: list[RenderableType] = [
        Text.assemble((_cut(printable(figures.node), name), "bold"), "\n", describe_state(row, now_s)),
        f"ws  {_clients(clients.websocket)}\ndev {_clients(clients.device)}",
        Text.assemble(
            *_flow("in ", figures.messages.incoming, row.incoming, curve),
            "\n",
            *_flow("out", figures.messages.outgoing, row.outgoing, curve),
        ),
        f"p50 {_ms(latency.p50)}\np99 {_ms(latency.p99)}",
        f"{describe_bytes(figures.queue_bytes)}\nlag {_ms(figures.loop_lag_ms)}",
        f"{describe_number(figures.cpu_percent)}%\n{memory}",
        Text.assemble(
            broker.kind + trip, "\n", (printable(broker.state), "green" if broker.state == "connected" else BAD)
        ),
    ]
    if is_wide:
        cells.append(_both(figures.bytes))
        cells.append(f"{figures.topics} topics\n{figures.subscriptions} subs")
    return cells


def describe_state(row: NodeRow, now_s: float) -> Text:
    """Say in one or two words how a node is; what is not well is written large."""
    silent_s = row.silent_s(now_s)
    if silent_s is not None:
        return Text(f" SILENT {describe_duration(int(silent_s * 1000))} ", BAD)
    figures = row.figures
    if figures.state != "serving":
        return Text(f" {figures.state.upper()} ", _STATE_STYLES[figures.state])
    return Text(f"serving {describe_duration(figures.time - figures.started)}", _STATE_STYLES["serving"])


def _flow(name: str, rate: float, values: Sequence[float], width: int) -> tuple[str, tuple[str, str]]:
    return f"{name} {describe_number(rate):>5} ", (curve_of(values, width), "cyan")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _clients(count: ByEncoding) -> str:
    return f"{describe_number(count.json)}/{describe_number(count.msgpack)}"


def _both(flow: Flow) -> str:
    return f"in  {describe_bytes(flow.incoming)}\nout {describe_bytes(flow.outgoing)}"


def _ms(duration_ms: float | None) -> str:
    return "-" if duration_ms is None else describe_number(duration_ms)


def _describe_trouble(row: NodeRow, now_s: float) -> list[Text]:
    """Return a line for what a node says is wrong with it, and one for what it counted."""
    figures: NodeReport = row.figures
    lines = []
    name = printable(figures.node)
    if figures.problems and row.silent_s(now_s) is None:
        lines.append(Text(f"{name}: {printable('; '.join(figures.problems))}", "bold red", overflow="ellipsis"))
    errors = [f"{printable(kind)} {count}" for kind, count in sorted(figures.errors.items()) if count]
    if errors:
        lines.append(Text(f"{name}: {', '.join(errors)}", "yellow", overflow="ellipsis"))
    for line in lines:
        line.no_wrap = True
    return lines


def _draw_topics(topics: Sequence[TopicFigures], most: int) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("Busiest topics", no_wrap=True, overflow="ellipsis", min_width=20)
    for name in ("Subscribers", "In/s", "Out/s", "Offset", "Keeps"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in topics[:most]:
        offset = "" if one.offset is None else str(one.offset)
        cells = (one.subscribers, describe_number(one.incoming), describe_number(one.outgoing), offset, one.history)
        table.add_row(Text(printable(one.topic)), *map(str, cells))
    return table
