import socket

import pytest
import typer

from notifyd.cli.publish import check_trace, position_line
from notifyd.cli.subscribe import read_start
from protocol.messages import Published
from protocol.position import Position
from tests.unit.cli.command_line import Run

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_is_not_json(run: Run) -> None:
    for text in ("", "{", "[1,]", "NaN"):
        code, out, err = run("publish", "a", text)
        assert (code, out) == (1, "")
        assert err.startswith("notifyd publish: the message is not JSON: ")
        assert len(err.splitlines()) == 1
    assert run("publish", "a", "hello").err.endswith("""a text needs its quotes: '"hello"'\n""")
    assert "not JSON" in run("publish", "a", "-", stdin=b"\xff").err


def test_nobody_serves_there(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"device://127.0.0.1:{unused.getsockname()[1]}"
    told = f"cannot reach {url}: Connection refused; `notifyd serve` starts a node, --url names another\n"
    assert run("publish", "a", "1", "--url", url) == (1, "", told)
    assert run("subscribe", "a", "--url", url) == (1, "", told)


def test_a_server_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifyd.cli.publish.ANSWER_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        told = f"notifyd publish: no answer from {url} within 0.05 s\n"
        assert run("publish", "a", "1", "--url", url) == (1, "", told)


def test_what_is_no_trace(run: Run) -> None:
    told = run("publish", "a", "1", "--trace", "00-4bf9-00f0-01")
    assert told.code == 2
    assert "32 hex digits" in told.err
    assert check_trace(None) is None
    assert check_trace(TRACE) == TRACE
    assert check_trace(f"01{TRACE[2:]}-more") == TRACE


def test_positions() -> None:
    assert position_line(Published(id=1, topic="a", epoch="e", offset=3)) == '{"topic":"a","epoch":"e","offset":3}'
    assert position_line(Published(id=1, topic="a", scope="node")) == '{"topic":"a","scope":"node"}'


def test_what_is_no_url(run: Run) -> None:
    for command in (["publish", "a", "1"], ["subscribe", "a"]):
        code, out, err = run(*command, "--url", "http://127.0.0.1")
        assert (code, out) == (1, "")
        assert "begins with one of ws://" in err


def test_where_to_begin() -> None:
    assert read_start("earliest") == "earliest"
    assert read_start("latest") == "latest"
    assert read_start("a:b:17") == Position("a:b", 17)
    for text in ("", "17", ":17", "e:", "e:-1", "e:x", "e:²", f"e:{2**63}"):
        with pytest.raises(typer.BadParameter, match="earliest, latest or EPOCH:OFFSET"):
            read_start(text)
