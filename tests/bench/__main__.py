"""`python -m tests.bench`: all measurements side by side in one run, as a table of ratios.

    python -m tests.bench                     all of them
    python -m tests.bench codec fanout        these
    python -m tests.bench --json FILE         the table, and the figures in a file
    python -m tests.bench --quick             fewer clients and rounds: half a minute becomes ten seconds

Ends with 1 when a target is missed.
"""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from tests.bench import (
    codec,
    connects,
    fanout,
    fanout_growth,
    fanout_paced,
    fanout_rate,
    fanout_tls,
    idle,
    metrics,
    redis_broker,
    redis_link,
    redis_nodes,
    traces,
)
from tests.bench.bare_sends import NoCompiler
from tests.bench.result import Result, table
from tests.reliability.node_process import raise_descriptor_limit


async def _codec(*, quick: bool) -> list[Result]:
    return codec.measure(quick=quick)


MEASUREMENTS: dict[str, Callable[..., Awaitable[list[Result]]]] = {
    "codec": _codec,
    "fanout": fanout.measure,
    "fanout_rate": fanout_rate.measure,
    "fanout_tls": fanout_tls.measure,
    "fanout_growth": fanout_growth.measure,
    "fanout_paced": fanout_paced.measure,
    "metrics": metrics.measure,
    "idle": idle.measure,
    "connects": connects.measure,
    "redis_link": redis_link.measure,
    "redis_broker": redis_broker.measure,
    "redis_nodes": redis_nodes.measure,
    "traces": traces.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure notifyd.")
    parser.add_argument("only", nargs="*", metavar="WHAT", help=f"some of: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument("--quick", action="store_true", help="fewer clients and rounds")
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in MEASUREMENTS]:
        parser.error(f"no measurement is called {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    raise_descriptor_limit()
    results: list[Result] = []
    for name in options.only or MEASUREMENTS:
        try:
            results += trio.run(_measure, name, options.quick)
        except NoCompiler as failure:
            parser.error(str(failure))
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps([result.as_json() for result in results], indent=1), encoding="utf-8")
    return int(any(result.verdict == "MISSED" for result in results))


async def _measure(name: str, quick: bool) -> list[Result]:
    return await MEASUREMENTS[name](quick=quick)


if __name__ == "__main__":
    sys.exit(main())
