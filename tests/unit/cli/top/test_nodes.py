"""What `notifyd top` knows and draws of nodes, without any."""

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from notifyd.cli.top.board import FORGET_NODE_S, SILENT_S, NodeBoard, read_said
from notifyd.cli.top.screen import Picture, describe_board
from notifyd.figures.messages import (
    BrokerFigures,
    ByEncoding,
    Clients,
    Flow,
    Latency,
    NodeReport,
    NodeTopics,
    TopicFigures,
)
from protocol.connecting import ConnectionState

NOW_S = 1000.0
FIGURES = NodeReport(
    node="n1",
    version="0.1.0",
    started=0,
    time=7_500_000,
    state="serving",
    problems=[],
    connections=Clients(ByEncoding(1180, 2), ByEncoding(1, 40)),
    sessions=3,
    topics=12,
    subscriptions=300,
    messages=Flow(12.5, 12345.6),
    bytes=Flow(1000, 2e6),
    latency_ms=Latency(0.31, 0.9, None),
    queue_bytes=1234,
    errors={"gaps": 0, "token_refusals": 3},
    loop_lag_ms=0.6,
    cpu_percent=12.3,
    memory_bytes=54_000_000,
    broker=BrokerFigures("redis", "connected", 0.42),
)


def figures(node: str, **changed: Any) -> NodeReport:
    return msgspec.structs.replace(FIGURES, node=node, **changed)


def board_of(*said: NodeReport, heard_s: float = NOW_S) -> NodeBoard:
    board = NodeBoard("ws://127.0.0.1:7500/ws")
    board.take_state(ConnectionState.CONNECTED, None)
    for each in said:
        board.take_figures(each, heard_s)
    return board


def drawn(board: NodeBoard, now_s: float = NOW_S, *, columns: int = 130, lines: int = 40) -> str:
    console = Console(file=io.StringIO(), width=columns, height=lines)
    console.print(Picture(board, now_s, lines))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def topic(name: str, incoming: float = 0.0, offset: int | None = None, subscribers: int = 1) -> TopicFigures:
    return TopicFigures(name, subscribers, incoming, 2 * incoming, 1000, None if offset is None else "e", offset)


class TestBoard:
    def test_a_node_that_speaks_no_more_is_silent_and_in_the_end_forgotten(self) -> None:
        board = board_of(figures("n2"), figures("n1"))
        board.take_figures(figures("n2"), NOW_S + SILENT_S)
        assert [row.figures.node for row in board.rows(NOW_S)] == ["n1", "n2"]
        later_s = NOW_S + SILENT_S + 0.5
        assert [row.silent_s(later_s) for row in board.rows(later_s)] == [SILENT_S + 0.5, None]
        assert [row.figures.node for row in board.rows(NOW_S + FORGET_NODE_S + 1)] == ["n2"]

    def test_topics_are_the_sums_of_the_nodes_that_speak(self) -> None:
        board = board_of(figures("n1"), figures("n2"), figures("n3"))
        said = {
            "n1": [topic("a:b", 1, 17), topic("c:d", 10)],
            "n2": [topic("a:b", 2, 18), topic("e:f", 0, subscribers=5)],
            "n3": [topic("a:b", 100, 19)],
            "unknown": [topic("g:h", 1000)],
        }
        for node, topics in said.items():
            board.take_topics(NodeTopics(node=node, time=0, topics=topics, more=False), NOW_S)
        for node in ("n1", "n2"):
            board.take_figures(figures(node), NOW_S + SILENT_S)
        listed = board.topics(NOW_S + SILENT_S + 0.1)
        assert [(one.topic, one.incoming, one.outgoing, one.subscribers, one.offset) for one in listed] == [
            ("c:d", 10, 20, 1, None),
            ("a:b", 3, 6, 2, 18),
            ("e:f", 0, 0, 5, None),
        ]

    def test_the_events_say_when_there_is_something_to_show(self) -> None:
        board = NodeBoard("ws://x")
        board.take_state(ConnectionState.BACKING_OFF, "refused")
        assert not board.connected.is_set()
        board.take_state(ConnectionState.CONNECTED, None)
        assert board.connected.is_set()
        assert not board.heard.is_set()
        board.take_figures(FIGURES, NOW_S)
        assert board.heard.is_set()


class TestPicture:
    def test_a_node_in_two_lines(self) -> None:
        head, names, _, first, second, errors, *_ = drawn(board_of(FIGURES)).splitlines()
        assert head.split() == ["notifyd", "top", "ws://127.0.0.1:7500/ws", "1", "node", "q", "ends"]
        assert names.split()[:3] == ["Node", "json/msgp.", "Messages/s"]
        told = "n1 ws 1.18k/2 in 12.5 █ p50 0.3 1.23 kB 12.3% redis 0.4 in 1 kB 12 topics"
        assert " ".join(first.split()) == told
        told = "serving 2h 5m dev 1/40 out 12.3k █ p99 - lag 0.6 54 MB connected out 2 MB 300 subs"
        assert " ".join(second.split()) == told
        assert errors == "n1: token_refusals 3"

    def test_all_that_matters_fits_eighty_columns(self) -> None:
        board = board_of(figures("workshop-34aba3-12", broker=BrokerFigures("redis", "backing off", 12.3)))
        picture = drawn(board, columns=80)
        assert max(map(len, picture.splitlines())) <= 80
        for shown in ("workshop-34ab…", "serving 2h 5m", "12.3k", "p99 -", "lag 0.6", "54 MB", "backing off"):
            assert shown in picture

    @pytest.mark.parametrize(
        ("changed", "now_s", "told"),
        [
            (
                {"state": "degraded", "problems": ["the broker is away"]},
                NOW_S,
                [" DEGRADED ", "n1: the broker is away"],
            ),
            ({"state": "draining"}, NOW_S, [" DRAINING "]),
            ({}, NOW_S + 5, [" SILENT 5s "]),
            ({"state": "draining"}, NOW_S + 5, [" SILENT 5s "]),
        ],
    )
    def test_bad_states_are_unmistakable(self, changed: dict[str, Any], now_s: float, told: list[str]) -> None:
        picture = drawn(board_of(figures("n1", **changed)), now_s)
        assert all(each in picture for each in told)
        assert "serving" not in picture

    def test_a_lost_connection_is_told_above_all(self) -> None:
        board = board_of(FIGURES)
        board.take_state(ConnectionState.BACKING_OFF, "Connection\x1b[2J refused")
        assert "NOT CONNECTED, backing off: Connection?[2J refused. What follows is old." in drawn(board)

    @given(
        st.integers(1, 8),
        st.integers(0, 120),
        st.integers(20, 60),
        st.sampled_from([40, 80, 130]),
    )
    def test_it_never_grows_beyond_the_window(self, nodes: int, topics: int, lines: int, columns: int) -> None:
        board = board_of(*(figures(f"n{number}", errors={}) for number in range(nodes)))
        listed = [topic(f"t:{number}") for number in range(topics)]
        board.take_topics(NodeTopics(node="n0", time=0, topics=listed, more=True), NOW_S)
        picture = drawn(board, columns=columns, lines=lines).splitlines()
        assert all(len(line) <= columns for line in picture)
        assert len(picture) <= max(lines, 2 * nodes + 8)

    def test_names_are_shown_as_text(self) -> None:
        board = board_of(figures("[red]n\x1b[2J"))
        said = [topic("[bold]:\u202etopic")]
        board.take_topics(NodeTopics(node="[red]n\x1b[2J", time=0, topics=said, more=False), NOW_S)
        picture = drawn(board)
        assert "[red]n?[2J" in picture
        assert "[bold]:?topic" in picture
        assert "\x1b" not in picture


def test_nothing_that_a_node_says_moves_the_cursor() -> None:
    broker = BrokerFigures("redis", "con\x1b[2Jnected", 0.42)
    picture = drawn(board_of(figures("n1", errors={"ga\x1b]0;ps": 3}, broker=broker)))
    assert "con?[2Jnected" in picture
    assert "ga?]0;ps 3" in picture
    assert "\x1b" not in picture


@pytest.mark.parametrize(
    "changed",
    [{"state": "dancing"}, {"queue_bytes": "many"}, {"cpu_percent": float("nan")}, {"messages": {"in": float("inf")}}],
)
def test_what_a_node_of_another_version_says_is_passed_over(changed: dict[str, Any]) -> None:
    said = msgspec.to_builtins(FIGURES)
    assert read_said(said, NodeReport) == FIGURES
    assert read_said({**said, "more": 1}, NodeReport) == FIGURES
    for data in ({**said, **changed}, None, [], "n1", {}):
        assert read_said(data, NodeReport) is None


def test_as_data_it_says_the_same() -> None:
    board = board_of(FIGURES)
    board.take_topics(NodeTopics(node="n1", time=0, topics=[topic("a:b", 1, 17)], more=False), NOW_S)
    told = msgspec.json.decode(msgspec.json.encode(describe_board(board, NOW_S + 5)))
    assert (told["connection"], told["problem"]) == ("connected", None)
    (node,) = told["nodes"]
    assert node.pop("silent_s") == 5.0
    assert msgspec.convert(node, NodeReport) == FIGURES
    assert told["topics"] == []
    board.take_state(ConnectionState.UNAVAILABLE, "refused")
    told = describe_board(board, NOW_S)
    assert (told["connection"], told["problem"]) == ("unavailable", "refused")
    assert told["topics"] == [
        {"topic": "a:b", "subscribers": 1, "in": 1, "out": 2, "history": 1000, "epoch": "e", "offset": 17}
    ]
