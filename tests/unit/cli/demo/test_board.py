import io

import trio
from rich.console import Console

from notifyd.cli.demo.board import Board, Places
from notifyd.cli.demo.screen import render_board
from protocol.connecting import ConnectionState
from protocol.messages import Gap, Joined, Message

PLACES = Places("ws://127.0.0.1:7500/ws", "127.0.0.1:7501", "http://127.0.0.1:7502/", "notifyd subscribe a:b")


def message(offset: int) -> Message:
    return Message(topic="metrics:lamp:load", data={"1m": 0.5}, time=1_790_000_000_000, epoch="e", offset=offset)


def fill(board: Board) -> None:
    row = board.add_device("load", 2.0)
    board.take_state(row, ConnectionState.DISCONNECTED, None)
    board.take_state(row, ConnectionState.CONNECTED, None)
    board.take_beat(row, 0.00123)
    row.last = "0.50 on 2 CPUs"
    for offset in range(1, 15):
        board.take_event(message(offset))
    board.take_event(Gap(topic="metrics:lamp:load", first=15, last=17, reason="slow"))
    board.take_event(Joined(topic="metrics:lamp:load", user="ada", session="s"))
    other = board.add_device("disk", 5.0)
    board.take_state(other, ConnectionState.BACKING_OFF, "Connection refused")
    board.take_state(other, ConnectionState.CONNECTING, "Connection refused")


def drawn(board: Board) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(render_board(board))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_is_drawn() -> None:
    board = Board(PLACES)
    fill(board)
    picture = drawn(board)
    for text in (*PLACES, "1.23 ms", "every 2 s", "connected", "connecting", "0.50 on 2 CPUs", '{"1m":0.5}'):
        assert text in picture
    assert "14 messages, 1 heartbeats. Ctrl-C ends." in picture
    assert " 4 " not in picture.split("Messages on")[1]
    board.say("Draining.")
    assert "Draining." in drawn(board)
    board.end()


async def test_what_is_told() -> None:
    board = Board(PLACES)
    board.lines, lines = trio.open_memory_channel[str](10)
    fill(board)
    board.say("done")  # there is no room for it
    board.end()
    board.say("too late")
    told = [line async for line in lines]
    assert told[:3] == [
        "device     load: connected",
        "heartbeat  load: round trip 1.23 ms, every 2 s",
        'message    metrics:lamp:load #1 {"1m":0.5}',
    ]
    assert len(told) == 10


async def test_gaps_and_failures_are_told() -> None:
    board = Board(PLACES)
    board.lines, lines = trio.open_memory_channel[str](100)
    fill(board)
    board.lines.close()
    told = [line async for line in lines]
    assert told[-3:] == [
        "gap        metrics:lamp:load #15 to #17: slow",
        "device     disk: backing off (Connection refused)",
        "device     disk: connecting",
    ]
    board.tell("nobody hears this")
