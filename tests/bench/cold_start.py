"""How soon notifyd is there: from the start of its process to what was asked for, in CPU time of that process.

A start hardly waits for anything, so on a machine that is not busy the clock says the same. Beside each stands what
cannot be done without: an empty Python, and the import of what a node is made of.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import trio

from tests.bench.counterpart import cpu_us
from tests.bench.result import Result, compare

NOTIFYD = (sys.executable, "-c", "from notifyd.cli import main; main()")
ADDRESSES = ("--websocket", "127.0.0.1:0", "--device", "127.0.0.1:0", "--http", "127.0.0.1:0")
DEPENDENCIES = "trio, trio_websocket, msgspec, jwt, cryptography, typer, structlog, starlette, hypercorn.trio"
VERSION_MS = 150
SERVE_MS = 600
START_S = 20.0
LOG_BYTES = 64 * 1024
SAY_CPU = "import time; print(time.process_time())"


async def measure(*, quick: bool) -> list[Result]:
    """Start each in turns; with a configuration as `notifyd init` writes it."""
    rounds = 3 if quick else 15
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        await trio.run_process([*NOTIFYD, "init"], cwd=home, stdout=subprocess.DEVNULL)
        version, serve = [], []
        for _ in range(rounds):
            version.append((await _version_ms(home), await _python_ms("pass")))
            serve.append((await _serve_ms(home), await _python_ms(f"import {DEPENDENCIES}")))
    return [
        compare("notifyd version", "ms", "python -c pass", version, target=0.25),
        compare("notifyd version, in all", "ms", "0.15 s", [(ours, VERSION_MS) for ours, _ in version], target=1.0),
        compare("notifyd serve, accepts", "ms", "import of what it uses", serve, target=0.5),
        compare("notifyd serve, in all", "ms", "0.6 s", [(ours, SERVE_MS) for ours, _ in serve], target=1.0),
    ]


async def _version_ms(home: Path) -> float:
    code = f"import sys; sys.argv[1:] = ['version']\nfrom notifyd.cli import main\ntry: main()\nfinally: {SAY_CPU}"
    return await _said_ms(code, home)


async def _python_ms(code: str) -> float:
    return await _said_ms(f"{code}\n{SAY_CPU}", Path.cwd())


async def _said_ms(code: str, home: Path) -> float:
    """Run code that says its CPU time last, in seconds."""
    finished = await trio.run_process([sys.executable, "-c", code], cwd=home, capture_stdout=True)
    return float(finished.stdout.split()[-1]) * 1000


async def _serve_ms(home: Path) -> float:
    """Start a node and end it; the CPU time that it took until it accepted on all listeners."""
    with tempfile.TemporaryFile() as log:
        process = await trio.lowlevel.open_process([*NOTIFYD, "serve", *ADDRESSES], cwd=home, stderr=log)
        try:
            with trio.fail_after(START_S):
                while b'"serving"' not in os.pread(log.fileno(), LOG_BYTES, 0):
                    assert process.poll() is None, os.pread(log.fileno(), LOG_BYTES, 0)
                    await trio.sleep(0.005)
            return cpu_us(process.pid) / 1000
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
