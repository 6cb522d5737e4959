"""The command line: one file a command, and this one, which finds the command and prints errors for a person.

To add a command, write `notifyd/cli/<name>.py` with a function `<name>` in it, and put its name into `COMMANDS`. Only
the file of the command that was asked for is imported; what a command needs, it imports inside its function.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

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
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process: 0 done, 1 failed, 2 wrong use, 130 interrupted.

    An error is a line or two on stderr. The environment variable NOTIFYD_TRACEBACK shows where a bug is.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if given == ["--version"]:
        given = ["version"]
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; the interpreter must not find that out once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if "NOTIFYD_TRACEBACK" in os.environ:
            raise
        code = _report(error)
    sys.exit(code)


def _run(given: list[str]) -> int | None:
    if given == ["version"]:  # there is nothing to read here for Typer, which takes a tenth of a second to import
        from notifyd.cli.version import version

        version()
        return 0
    from notifyd.cli.application import run_command

    return run_command(given, COMMANDS)


def _report(error: Exception) -> int:
    """Print what a person needs to know; return the exit code."""
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
