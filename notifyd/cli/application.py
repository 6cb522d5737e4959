"""The command line as Typer reads it. What `notifyd version` prints does not need it, and it takes time to import."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

MISUSED = 2

_UsageError: Any = typer.BadParameter.__mro__[1]
"""What every wrong use of the command line is; Typer exports only one kind of it."""


def run_command(given: list[str], commands: Sequence[str]) -> int | None:
    """Run the one of these commands that was asked for; return the exit code. Wrong use is told in two lines."""
    try:
        code: int | None = build_commands(given[0], commands)(given, prog_name="notifyd", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        command = getattr(context, "command_path", "notifyd")
        print(f"{command}: {error.format_message()}", file=sys.stderr)
        print(f"`{command} --help` shows what can be given.", file=sys.stderr)
        return MISUSED
    return code


def build_commands(command: str, commands: Sequence[str]) -> typer.Typer:
    """Build the application with the command asked for, or with all of them for the help text."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(help="A distributed real-time notification server for devices and browsers.")(_no_options)
    for name in [command] if command in commands else commands:
        app.command(name)(getattr(import_module(f"notifyd.cli.{name}"), name))
    return app


def _no_options() -> None:
    """Stand for the program itself: with it, a single command keeps its name."""
