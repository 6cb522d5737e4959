import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from notifyd import __version__, cli
from notifyd.cli import application
from notifyd.errors import ConfigurationError, ListenError
from tests.unit.cli.command_line import Run

ROOT = Path(__file__).parents[3]


def test_version(run: Run) -> None:
    assert run("version") == (0, f"notifyd {__version__}\n", "")
    assert run("--version") == (0, f"notifyd {__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    for name in cli.COMMANDS:
        assert f"\n  {name} " in out
    assert run("--help") == (code, out, err)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_a_home(name: str, run: Run) -> None:
    assert callable(getattr(import_module(f"notifyd.cli.{name}"), name))
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"Usage: notifyd {name}" in out


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (["nonsense"], "notifyd: No such command 'nonsense'."),
        (["--nonsense"], "notifyd: No such option: --nonsense"),
        (["version", "more"], "notifyd version: Got unexpected extra argument"),
        (["token"], "notifyd token: Missing option '--user'."),
        (["token", "--user"], "--user"),
    ],
)
def test_wrong_use_is_told_in_two_lines(arguments: list[str], about: str, run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert about in err
    assert "--help` shows what can be given." in err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `notifyd init` fail with a given error."""

    def fail_with(error: BaseException) -> None:
        def init() -> None:
            raise error

        monkeypatch.setattr(application, "import_module", lambda _: SimpleNamespace(init=init))

    return fail_with


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigurationError("file", "key", "reason"), 1, "file: key: reason\n"),
        (ExceptionGroup("", [ExceptionGroup("", [ValueError(), ListenError("in use")])]), 1, "in use\n"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Abort(), 130, ""),
        (typer.Exit(3), 3, ""),
    ],
)
def test_expected_errors(error: BaseException, code: int, text: str, failing: Any, run: Run) -> None:
    failing(error)
    assert run("init") == (code, "", text)


def test_a_bug_is_two_lines_and_a_way_to_find_it(failing: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(RuntimeError("first line\nsecond line"))
    assert run("init") == (
        1,
        "",
        (
            "notifyd: unexpected RuntimeError: first line\n"
            "This is a bug in notifyd; with NOTIFYD_TRACEBACK=1 it shows where.\n"
        ),
    )
    monkeypatch.setenv("NOTIFYD_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        cli.main(["init"])


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from notifyd.cli import main; main()", "version"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
