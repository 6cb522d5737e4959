"""What a command must not import before it is needed: that is what its start costs. In figures: tests/bench.

And how a node starts: Python's collector is told to look at its connections less often.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from notifyd.cli.serve import GARBAGE_THRESHOLDS

ROOT = Path(__file__).parents[3]
SERVE = """
import gc, sys
from notifyd.cli import main
from notifyd.telemetry import Telemetry
Telemetry.log = lambda self, level, event, **fields: event == "serving" and sys.exit(print(*gc.get_threshold()))
main(["serve", "--websocket", "127.0.0.1:0", "--device", "127.0.0.1:0", "--http", "127.0.0.1:0"])
"""
RUNS = {
    "version": "from notifyd.cli import main; main(['version'])",
    "publish": "from notifyd.cli import main; main(['publish', '--help'])",
    "subscribe": "from notifyd.cli import main; main(['subscribe', '--help'])",
    "serve": SERVE,
}
NOT_IMPORTED = {
    "version": "typer pydantic trio jwt cryptography msgspec starlette hypercorn construct redis structlog rich",
    "publish": "trio jwt cryptography msgspec starlette hypercorn construct redis structlog",
    "subscribe": "jwt cryptography starlette hypercorn construct redis structlog",
    "serve": "construct redis hiredis opentelemetry prometheus_client notifyd.broker.redis notifyd.client",
}
"""By command. A node with the embedded broker knows no other, and writes no metrics before it is asked for them."""


@pytest.mark.parametrize("command", NOT_IMPORTED)
def test_what_is_not_needed_is_not_imported(command: str, tmp_path: Path) -> None:
    check = f"import sys; print([name for name in '{NOT_IMPORTED[command]}'.split() if name in sys.modules])"
    program = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\ntry:\n exec({RUNS[command]!r})\nfinally:\n {check}"
    environment = {"NOTIFYD_AUTH__ANONYMOUS": "true", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
    assert command != "serve" or done.stdout.splitlines()[0] == "{} {} {}".format(*GARBAGE_THRESHOLDS), done.stderr
