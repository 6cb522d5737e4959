"""The command line: one file a command, and this one, which finds the command and prints errors for a person.

To add a command, write `notifyd/cli/<name>.py` with a function `<name>` in it, and put its name into `COMMANDS`. Only
the file of the command that was asked for is imported; what a command needs, it imports inside its function.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, NoReturn

import typer

from notifyd.errors import NotifydError

COMMANDS = (
    "demo",
    "serve",
    "init",
    "check",
    "token",
    "revoke",
    "config",
    "publish",
    "subscribe",
    "bench",
    "decode",
    "tree",
    "top",
    "version",
)
"""In the order of the help text. A name is a module of this package and the function in it."""

FAILED = 1
MISUSED = 2
INTERRUPTED = 130

_UsageError: Any = typer.BadParameter.__mro__[1]
"""What every wrong use of the command line is; Typer exports only one kind of it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process: 0 done, 1 failed, 2 wrong use, 130 interrupted.

    An error is a line or two on stderr. The environment variable NOTIFYD_TRACEBACK shows where a bug is.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if given == ["--version"]:
        given = ["version"]
    try:
        code = build_commands(given[0])(given, prog_name="notifyd", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; the interpreter must not find that out once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if "NOTIFYD_TRACEBACK" in os.environ:
            raise
        code = _report(error)
    sys.exit(code)


def build_commands(command: str) -> typer.Typer:
    """Build the application with the command asked for, or with all of them for the help text."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(help="A distributed real-time notification server for devices and browsers.")(_no_options)
    for name in [command] if command in COMMANDS else COMMANDS:
        app.command(name)(getattr(import_module(f"notifyd.cli.{name}"), name))
    return app


def _no_options() -> None:
    """Stand for the program itself: with it, a single command keeps its name."""


def _report(error: Exception) -> int:
    """Print what a person needs to know; return the exit code."""
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = getattr(context, "command_path", "notifyd")
        print(f"{command}: {error.format_message()}", file=sys.stderr)
        print(f"`{command} --help` shows what can be given.", file=sys.stderr)
        return MISUSED
    leaves = list(_leaves(error))
    for expected in leaves:
        if isinstance(expected, NotifydError):
            print(expected, file=sys.stderr)
            return FAILED
    print(f"notifyd: unexpected {type(leaves[0]).__name__}: {leaves[0]}".splitlines()[0], file=sys.stderr)
    print("This is a bug in notifyd; with NOTIFYD_TRACEBACK=1 it shows where.", file=sys.stderr)
    return FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
