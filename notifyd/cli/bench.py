"""`notifyd bench`."""

import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import trio
import typer

from notifyd.bench.load import Cut, EncodingName, Load, Scenario, TransportName
from notifyd.bench.payload import LEAST_PAYLOAD_BYTES
from notifyd.cli.node_api import ApiKeyOption
from notifyd.cli.server_options import TokenOption

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console

    from notifyd.bench.report import Comparison, LoadReport, Sample

SECRETS = ("--token", "--api-key")
"""Options whose values are shown to nobody."""

REACH_S = 10.0
"""How long a node has to let a first client in."""

ScenarioArgument = Annotated[Scenario, typer.Argument(help="What the clients do.", show_default=False)]
LoadedUrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The node: ws://, wss://, device:// or device+tls://; else one of its own."),
]
TransportOption = Annotated[TransportName, typer.Option(help="To its own node.")]
EncodingOption = Annotated[EncodingName, typer.Option(help="Of all messages.")]
ConnectionsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Clients.")]
SecondsOption = Annotated[float, typer.Option(metavar="S", min=0.05, help="How long is measured.")]
WarmUpOption = Annotated[float, typer.Option("--warm-up", metavar="S", min=0, help="How long the load runs before.")]
RateOption = Annotated[
    float | None, typer.Option(metavar="R", min=0.001, help="Operations a second, of all; else as fast as accepted.")
]
PayloadOption = Annotated[
    int,
    typer.Option("--payload", metavar="BYTES", min=LEAST_PAYLOAD_BYTES, max=2**20, help="Length of what is published."),
]
TopicsOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Topics that the clients share.")]
PublishersOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Clients that publish to the others.")]
InFlightOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Answers that each publisher waits for at once.")
]
HeartbeatOption = Annotated[float, typer.Option("--heartbeat", metavar="S", min=0.1, help="Between two of a client.")]
MissedOption = Annotated[int, typer.Option(metavar="N", min=1, help="Messages a topic that a recovery brings back.")]
CutOption = Annotated[
    Cut, typer.Option(help="Who cuts in a recovery: this command, or you, by ending the node of --url.")
]
ProcessesOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=256, help="Load processes; else one for each core but one.")
]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of its own node; repeatable.")
]
BrokerOption = Annotated[str | None, typer.Option(metavar="URL", help="Of its own node, such as redis://HOST.")]
MetricsUrlOption = Annotated[
    str | None, typer.Option("--http", metavar="URL", help="Where the node of --url answers /metrics: CPU and memory.")
]
ProfileOption = Annotated[
    Literal["tuning"] | None,
    typer.Option(help="Run it on nodes of its own, as they come and tuned for it, in turns."),
]
HtmlOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with plots.")]


def bench(
    scenario: ScenarioArgument,
    *,
    url: LoadedUrlOption = None,
    token: TokenOption = None,
    transport: TransportOption = "websocket",
    encoding: EncodingOption = "json",
    connections: ConnectionsOption = None,
    seconds: SecondsOption = 10.0,
    warm_up_s: WarmUpOption = 0.5,
    rate: RateOption = None,
    payload_bytes: PayloadOption = 150,
    topics: TopicsOption = None,
    publishers: PublishersOption = None,
    in_flight: InFlightOption = None,
    heartbeat_s: HeartbeatOption = 30.0,
    missed: MissedOption = 10,
    cut: CutOption = "client",
    processes: ProcessesOption = None,
    settings: SettingsOption = None,
    broker: BrokerOption = None,
    http: MetricsUrlOption = None,
    api_key: ApiKeyOption = None,
    profile: ProfileOption = None,
    html: HtmlOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Load a node and report rate, latency, errors, CPU and memory. Ctrl-C ends it with what was measured so far.

    connect: a storm of clients. idle: clients that only stay. fanout: one topic, many subscribers. topics: many
    topics, few subscribers each. publish: requests with replies. heartbeats: nothing else. recovery: all are cut, miss
    messages, and come back.
    """
    load = Load(
        scenario=scenario,
        url=url,
        transport=transport,
        token=token if url else None,  # its own node lets everybody in, and knows no key
        encoding=encoding,
        processes=processes,
        connections=connections,
        publishers=publishers,
        topics=topics,
        in_flight=in_flight,
        rate=rate,
        seconds=seconds,
        warm_up_s=warm_up_s,
        payload_bytes=payload_bytes,
        heartbeat_s=heartbeat_s,
        missed=missed,
        cut=cut,
        http=http,
        api_key=api_key if http else None,
        broker=broker,
        settings=read_assignments(settings or []),
    )
    check_options(load, html)
    report = trio.run(run_and_print, load, as_json, profile is not None)
    if html is not None:
        write_page(html, report)


def read_assignments(given: Sequence[str]) -> dict[str, str]:
    """Read `--set KEY=VALUE`. Raises BadParameter."""
    settings = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE, such as limits.queue=256KiB", param_hint="--set")
        settings[key.strip()] = value.strip()
    return settings


def check_options(load: Load, html: Path | None) -> None:
    """Raise BadParameter for options that do not go together, and for a report that could not be written."""
    if load.url is not None and (load.broker is not None or load.settings):
        option = "--set" if load.settings else "--broker"
        raise typer.BadParameter("is for a node that this command starts itself, without --url", param_hint=option)
    if load.url is None and load.http is not None:
        raise typer.BadParameter("is for the node of --url; of its own one everything is known", param_hint="--http")
    if load.url is None and load.cut == "server":
        raise typer.BadParameter("is for the node of --url, which you end and start again", param_hint="--cut")
    if html is not None and not html.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {html.parent}", param_hint="--html")


async def run_and_print(load: Load, as_json: bool, is_tuning: bool) -> "LoadReport | Comparison":
    """Run a load with its progress on stderr, and print what it found; SIGINT and SIGTERM end it early.

    Raises NotifydError, and KeyboardInterrupt at a second signal.
    """
    from rich.console import Console

    from notifyd.bench.running import run_load
    from notifyd.bench.tuning import compare_tuning

    report: LoadReport | Comparison | None = None
    interrupted = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt, signals, interrupted, nursery.cancel_scope)
            await reach(load)
            progress = partial(_progress, load, Console(stderr=True, highlight=False), as_json)
            if is_tuning:
                report = await compare_tuning(load, progress, interrupted=interrupted)
            else:
                with progress() as on_sample:
                    report = await run_load(load, on_sample=on_sample, interrupted=interrupted)
            nursery.cancel_scope.cancel()
    if report is None:
        raise KeyboardInterrupt
    print_report(report, as_json)
    return report


async def _interrupt(signals: AsyncIterator[int], interrupted: trio.Event, scope: trio.CancelScope) -> None:
    """End the load at the first signal, and everything at the second."""
    await anext(signals)
    interrupted.set()
    await anext(signals)
    scope.cancel()


def _progress(
    load: Load, console: "Console", as_json: bool, title: str = ""
) -> "AbstractContextManager[Callable[[Sample], None]]":
    """Show the progress; with --json only to somebody who looks."""
    from contextlib import nullcontext

    from notifyd.bench.board import showing_progress

    if as_json and not console.is_terminal:
        return nullcontext(_ignore)
    return showing_progress(load, console, title)


def _ignore(_sample: "Sample") -> None:
    """Show nothing."""


async def reach(load: Load) -> None:
    """Connect once to the node of --url: what is wrong with the URL or the token is said before there is any load.

    Raises NotifydError that says what to do.
    """
    from notifyd.cli.server_options import wait_connected_once
    from notifyd.client import open_client
    from notifyd.errors import NotifydError
    from protocol.framing import Encoding

    if load.url is None:
        return
    with trio.move_on_after(REACH_S):
        encoding = Encoding[load.encoding.upper()]
        async with open_client(load.url, load.token, encoding=encoding, client_name="notifyd bench") as client:
            await wait_connected_once(client, load.url)
        return
    raise NotifydError(f"notifyd bench: no answer from {load.url} within {REACH_S:g} s")


def print_report(report: "LoadReport | Comparison", as_json: bool) -> None:
    """Print what was found."""
    import msgspec
    from rich.console import Console

    from notifyd.bench.report import LoadReport
    from notifyd.bench.text import draw_comparison, draw_report

    if as_json:
        print(msgspec.json.encode(report).decode())
    else:
        drawn = draw_report(report) if isinstance(report, LoadReport) else draw_comparison(report)
        Console(highlight=False).print(drawn)


def write_page(path: Path, report: "LoadReport | Comparison") -> None:
    """Write the report with plots. Raises NotifydError."""
    from notifyd.bench.html import render_page
    from notifyd.errors import NotifydError

    try:
        path.write_text(render_page(report, command_line(sys.argv[1:])), encoding="utf-8")
    except OSError as error:
        raise NotifydError(f"notifyd bench: cannot write {path}: {error.strerror}") from None


def command_line(arguments: Sequence[str]) -> str:
    """Return how to run the same again, without the token, the API key and the passwords of URLs."""
    import re
    import shlex

    shown, is_secret = ["notifyd"], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        known = re.sub(r"(://[^/@:]*:)[^/@]+@", r"\1…@", argument)
        shown.append("…" if is_secret else f"{name}=…" if name in SECRETS and equals else known)
        is_secret = argument in SECRETS
    return " ".join(part if "…" in part else shlex.quote(part) for part in shown)
