"""Running commands inside the test's own process, as a shell would."""

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from notifyd.cli import main


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command with these arguments, and bytes on stdin."""

    def run(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 2, err
        return Outcome(int(end.value.code or 0), out, err)

    return run
