"""`python -m tests.bench`: all measurements side by side in one run, as a table of ratios.

    python -m tests.bench                     all of them; the figures go to tests/bench/results.json
    python -m tests.bench codec fanout        these; the others stay there as they were
    python -m tests.bench --curves            how figures grow, instead: takes some minutes
    python -m tests.bench --quick             fewer clients and rounds: minutes become seconds, and nothing is kept
    python -m tests.bench --json FILE         the figures go to FILE

Ends with 1 when a target is missed. `python -m tests.bench.document` then writes the figures into the README, and draws
spec/*.svg.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from tests.bench import (
    churn,
    codec,
    cold_start,
    connects,
    fanout,
    fanout_growth,
    fanout_paced,
    fanout_rate,
    fanout_tls,
    field,
    heartbeats,
    idle,
    latency,
    metrics,
    record,
    recovery_storm,
    redis_broker,
    redis_link,
    redis_nodes,
    requests,
    slow_subscribers,
    traces,
)
from tests.bench.curve import Curve
from tests.bench.result import Result, table
from tests.reliability.node_process import raise_descriptor_limit

MEASUREMENTS: dict[str, Callable[..., Awaitable[list[Result]]]] = {
    "codec": codec.measure,
    "fanout": fanout.measure,
    "fanout_rate": fanout_rate.measure,
    "fanout_tls": fanout_tls.measure,
    "fanout_growth": fanout_growth.measure,
    "fanout_paced": fanout_paced.measure,
    "slow_subscribers": slow_subscribers.measure,
    "field": field.measure,
    "metrics": metrics.measure,
    "idle": idle.measure,
    "heartbeats": heartbeats.measure,
    "churn": churn.measure,
    "connects": connects.measure,
    "recovery_storm": recovery_storm.measure,
    "cold_start": cold_start.measure,
    "redis_link": redis_link.measure,
    "redis_broker": redis_broker.measure,
    "redis_nodes": redis_nodes.measure,
    "requests": requests.measure,
    "traces": traces.measure,
}

CURVES: dict[str, Callable[..., Awaitable[list[Curve]]]] = {
    "fanout_growth": fanout_growth.curves,
    "idle": idle.curves,
    "latency": latency.curves,
}


def main() -> int:
    options = _options()
    raise_descriptor_limit()
    results: dict[str, list[Result]] = {}
    curves: dict[str, list[Curve]] = {}
    for name in options.only:
        if options.curves:
            curves[name] = trio.run(_curves, name, options.quick)
        else:
            results[name] = trio.run(_measure, name, options.quick)
    found = [result for some in results.values() for result in some]
    print(table(found))
    if options.json:
        record.write(options.json, results, curves)
    return int(any(result.verdict == "MISSED" for result in found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure notifyd.")
    parser.add_argument("only", nargs="*", metavar="WHAT", help=f"some of: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--curves", action="store_true", help="measure how figures grow, instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go, with those it holds already")
    parser.add_argument("--quick", action="store_true", help="fewer clients and rounds; kept only with --json")
    options = parser.parse_args()
    known = CURVES if options.curves else MEASUREMENTS
    if unknown := [name for name in options.only if name not in known]:
        parser.error(f"no measurement is called {unknown[0]!r}; there are {', '.join(known)}")
    options.only = options.only or list(known)
    options.json = options.json or (None if options.quick else record.RESULTS)
    return options


async def _measure(name: str, quick: bool) -> list[Result]:
    return await MEASUREMENTS[name](quick=quick)


async def _curves(name: str, quick: bool) -> list[Curve]:
    return await CURVES[name](quick=quick)


if __name__ == "__main__":
    sys.exit(main())
