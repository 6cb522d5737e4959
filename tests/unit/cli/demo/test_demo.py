import socket

import pytest

from tests.unit.cli.command_line import Run

ANY_PORTS = ("--websocket", "0", "--device", "0", "--http", "0")


@pytest.mark.parametrize("option", ["--websocket", "--device", "--http"])
def test_a_port_in_use_is_one_line_that_names_the_option(option: str, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run("demo", *ANY_PORTS, option, str(port))
    assert (code, out) == (1, "")
    assert err.startswith(f"notifyd demo: cannot listen on 127.0.0.1:{port} ({option}): Address already in use")
    assert len(err.splitlines()) == 1


def test_it_ends_by_itself(run: Run) -> None:
    assert run("demo", *ANY_PORTS, "--seconds", "0").code == 0


def test_wrong_use(run: Run) -> None:
    assert run("demo", "--websocket", "70000").code == 2
    assert run("demo", "--seconds", "-1").code == 2
