"""What is asked for wrongly is said in a line, before anything is started."""

import socket
from pathlib import Path

import pytest

from notifyd.bench.load import Load, Scenario
from notifyd.bench.own_node import DEFAULTS, node_environment
from notifyd.cli.bench import command_line, read_assignments
from tests.unit.cli.command_line import Run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "'nosuch' is not one of 'connect', 'idle', 'fanout'"),
        (["fanout", "--payload", "10"], "greater than or equal to 36"),
        (["fanout", "--connections", "0"], "greater than or equal to 1"),
        (["fanout", "--encoding", "xml"], "'xml' is not one of 'json', 'msgpack'"),
        (["fanout", "--set", "limits.queue"], "'limits.queue' is not KEY=VALUE"),
        (["fanout", "--url", "ws://127.0.0.1:1", "--set", "a.b=1"], "--set: is for a node that this command starts"),
        (["fanout", "--url", "ws://127.0.0.1:1", "--broker", "redis://x"], "--broker: is for a node that this"),
        (["fanout", "--http", "http://127.0.0.1:1"], "--http: is for the node of --url"),
        (["fanout", "--html", "/nosuch/report.html"], "there is no directory /nosuch"),
    ],
)
def test_wrong_use(run: Run, arguments: list[str], said: str) -> None:
    outcome = run("bench", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err.replace("'--set'", "--set").replace("'--broker'", "--broker").replace(
        "'--http'", "--http"
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "is no server URL: it begins with one of ws://"),
        ("ws://127.0.0.1:{port}", "cannot reach ws://127.0.0.1:{port}: Connection refused; `notifyd serve` starts"),
        ("device://127.0.0.1:{port}", "cannot reach device://127.0.0.1:{port}: Connection refused"),
    ],
)
def test_a_node_that_is_not_there(run: Run, url: str, said: str) -> None:
    with socket.socket() as bound:  # a port that is taken, and listened on by nobody
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        outcome = run("bench", "fanout", "--url", url.replace("{port}", port))
    assert (outcome.code, outcome.out) == (1, "")
    assert said.replace("{port}", port) in outcome.err


def test_settings_of_its_own_node() -> None:
    assert read_assignments(["limits.queue = 1MiB", "a=b=c"]) == {"limits.queue": "1MiB", "a": "b=c"}
    load = Load(scenario=Scenario.FANOUT, broker="redis://h", settings={"limits.connects": "{ rate = 5, burst = 1 }"})
    environment = node_environment(load, {"PATH": "/bin", "NOTIFYD_TOKEN": "secret", "NOTIFYD_LISTEN__HTTP": "x:1"})
    assert environment["PATH"] == "/bin"
    assert environment["NOTIFYD_BROKER__URL"] == "redis://h"
    assert environment["NOTIFYD_LIMITS__CONNECTS"] == "{ rate = 5, burst = 1 }"
    assert environment["NOTIFYD_LIMITS__MESSAGES"] == DEFAULTS["limits.messages"]
    assert not {"NOTIFYD_TOKEN", "NOTIFYD_LISTEN__HTTP"} & environment.keys()


def test_the_command_that_is_shown_has_no_secret_in_it() -> None:
    assert command_line(["bench", "fanout", "--token", "ey.J", "--html", "a b"]) == (
        "notifyd bench fanout --token … --html 'a b'"
    )
    assert command_line(["bench", "--token=ey.J"]) == "notifyd bench --token=…"
    assert command_line(["bench", "--api-key", "k"]) == "notifyd bench --api-key …"
    assert command_line(["bench", "--broker", "redis://u:p@h:1/2"]) == "notifyd bench --broker redis://u:…@h:1/2"


def test_what_a_load_takes_where_nothing_is_asked_for() -> None:
    assert Load(scenario=Scenario.TOPICS, connections=100).nature.topics == 20
    assert Load(scenario=Scenario.FANOUT, topics=3).nature.topics == 3
    assert Load(scenario=Scenario.FANOUT, processes=7).process_count == 7
    assert Load(scenario=Scenario.FANOUT).process_count >= 1


def test_a_page_is_written_where_it_was_asked_for(tmp_path: Path, run: Run) -> None:
    outcome = run("bench", "fanout", "--url", "ws://127.0.0.1:1", "--html", str(tmp_path / "no" / "page.html"))
    assert outcome.code == 2
