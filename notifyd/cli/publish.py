"""`notifyd publish`."""

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifyd.cli.server_options import DEFAULT_SERVER_URL, TokenOption, UrlOption

if TYPE_CHECKING:
    from protocol.messages import Published

ANSWER_TIMEOUT_S = 30.0
"""How long a node that could be reached has for its answer."""


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Such as chat:room1.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="The message; - reads it from stdin.")],
    url: UrlOption = DEFAULT_SERVER_URL,
    token: TokenOption = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="The same key within 5 minutes is published once.")
    ] = None,
    *,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="TRACEPARENT", help="The W3C traceparent it belongs to.")
    ] = None,
) -> None:
    """Publish a message and print its position as a JSON line."""
    import trio

    print(
        position_line(
            trio.run(partial(publish_once, topic, read_json(data), url, token, key, trace=check_trace(trace)))
        )
    )


def check_trace(text: str | None) -> str | None:
    """Return a trace as it is sent. Raises BadParameter for what a node would ignore."""
    from protocol.trace import read_trace

    trace = None if text is None else read_trace(text)
    if trace is None and text is not None:
        raise typer.BadParameter(f"{text!r} is not 00-32 hex digits-16 hex digits-2 hex digits", param_hint="--trace")
    return trace


def position_line(published: "Published") -> str:
    """Write down where a message stands; a topic without history has no position."""
    import msgspec

    fields = {name: getattr(published, name) for name in ("topic", "epoch", "offset", "scope")}
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not msgspec.UNSET}).decode()


def read_json(text: str) -> Any:
    """Read the message. Raises NotifydError for what is not JSON."""
    import msgspec

    from notifyd.errors import NotifydError

    try:
        return msgspec.json.decode(sys.stdin.buffer.read() if text == "-" else text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = """; a text needs its quotes: '"hello"'""" if text.isalnum() else ""
        raise NotifydError(f"notifyd publish: the message is not JSON: {error}{hint}") from None


async def publish_once(
    topic: str, data: Any, url: str, token: str | None, key: str | None, *, trace: str | None = None
) -> "Published":
    """Connect, publish, and return the answer. Raises NotifydError."""
    import trio

    from notifyd.cli.server_options import wait_connected_once
    from notifyd.client import open_client
    from notifyd.errors import NotifydError
    from protocol.errors import RequestError

    refusal: RequestError | None = None
    try:
        async with open_client(url, token, client_name="notifyd publish") as client:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                await wait_connected_once(client, url)
                return await client.publish(topic, data, key=key, trace=trace)
            refusal = client.last_refusal
    except RequestError as final:
        refusal = final
    if refusal is not None:
        raise NotifydError(f"notifyd publish: {refusal.code} {refusal.reason}: {refusal.message}")
    raise NotifydError(f"notifyd publish: no answer from {url} within {ANSWER_TIMEOUT_S:g} s")
