"""The options of commands that are clients of a running node, and how they come to a connection."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from notifyd.client import Client

DEFAULT_SERVER_URL = "ws://127.0.0.1:7500/ws"

UrlOption = Annotated[
    str,
    typer.Option("--url", metavar="URL", help="The node: ws://, wss://, device://HOST:PORT or device+tls://HOST:PORT."),
]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", metavar="JWT", envvar="NOTIFYD_TOKEN", help="Who we are, as `notifyd token` prints it."),
]


async def wait_connected_once(client: "Client", url: str) -> None:
    """Wait for a client's first connection; a command does not wait for a node that is not there.

    Raises NotifydError that says what to do.
    """
    from notifyd.errors import NotifydError
    from protocol.connecting import ConnectionState

    async for state in client.states():
        if state is ConnectionState.BACKING_OFF:
            raise NotifydError(
                f"cannot reach {url}: {client.problem}; `notifyd serve` starts a node, --url names another"
            )
        if state is ConnectionState.CONNECTED:
            break
    await client.wait_connected()
