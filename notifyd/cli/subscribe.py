"""`notifyd subscribe`."""

import signal
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from notifyd.cli.server_options import DEFAULT_SERVER_URL, TokenOption, UrlOption

if TYPE_CHECKING:
    from notifyd.cli.lines import LineWriter
    from notifyd.client import Client
    from protocol.messages import Since


def subscribe(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", help="Such as chat:room1 orders:status.")],
    since: Annotated[
        str, typer.Option("--since", metavar="SINCE", help="earliest, latest, or EPOCH:OFFSET of the last one seen.")
    ] = "latest",
    url: UrlOption = DEFAULT_SERVER_URL,
    token: TokenOption = None,
) -> None:
    """Print every message of these topics as a JSON line, until interrupted. Status lines go to stderr."""
    trio.run(subscribe_until_signal, list(dict.fromkeys(topics)), read_start(since), url, token)


def read_start(text: str) -> "Since":
    """Read where to begin. Raises BadParameter."""
    from protocol.position import Position

    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    try:
        return Position.parse(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not earliest, latest or EPOCH:OFFSET", param_hint="--since") from None


async def subscribe_until_signal(topics: list[str], since: "Since", url: str, token: str | None) -> None:
    """Print messages until SIGINT or SIGTERM. Raises NotifydError, and BrokenPipeError when nobody reads any more."""
    from notifyd.cli.lines import STDOUT, LineWriter
    from notifyd.client import open_client

    is_read = True
    lines = LineWriter(STDOUT)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_client(url, token, client_name="notifyd subscribe") as client:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_end_at, signals, nursery.cancel_scope)
                    nursery.start_soon(_report, client, url)
                    for topic in topics:
                        nursery.start_soon(_print, client, topic, since, lines)
            except* BrokenPipeError:
                is_read = False
    if not is_read:
        raise BrokenPipeError


async def _end_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _report(client: "Client", url: str) -> None:
    """Say on stderr how the connection stands."""
    from notifyd.cli.server_options import wait_connected_once
    from protocol.connecting import ConnectionState

    await wait_connected_once(client, url)
    async for state in client.states():
        if state is ConnectionState.CONNECTED:
            print(f"connected to {url}, session {client.session}", file=sys.stderr, flush=True)
        elif state is not ConnectionState.CONNECTING:
            print(f"{state.value}: {client.problem}", file=sys.stderr, flush=True)


async def _print(client: "Client", topic: str, since: "Since", lines: "LineWriter") -> None:
    from notifyd.errors import NotifydError
    from protocol.errors import RequestError
    from protocol.framing import Encoding
    from protocol.messages import encode

    try:
        async with client.subscribe(topic, since) as messages:
            async for event in messages:
                await lines.write(encode(event, Encoding.JSON))
    except RequestError as refusal:
        raise NotifydError(f"notifyd subscribe {topic}: {refusal.code} {refusal.reason}: {refusal.message}") from None
