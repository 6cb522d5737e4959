"""`notifyd revoke`."""

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifyd.cli.node_api import (
    CLUSTER_TIMEOUT_S,
    DEFAULT_HTTP_URL,
    ApiKeyOption,
    HttpUrlOption,
    ask_node,
    refusal,
)
from notifyd.text import printable

if TYPE_CHECKING:
    from notifyd.listeners.http.revoking import RevocationAnswer


def revoke(
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Whose tokens, all those issued until now.")
    ] = None,
    token_id: Annotated[
        str | None, typer.Option("--token-id", metavar="ID", help="Which one (`jti`; see `notifyd token --show-id`).")
    ] = None,
    ttl: Annotated[
        str,
        typer.Option("--ttl", metavar="DURATION", help="For how long: no shorter than the longest life of a token."),
    ] = "24h",
    url: HttpUrlOption = DEFAULT_HTTP_URL,
    api_key: ApiKeyOption = None,
) -> None:
    """Refuse tokens before they expire, on every node, and disconnect who holds one."""
    if (user is None) == (token_id is None):
        raise typer.BadParameter("give either --user or --token-id")
    named = {"token_id": token_id} if user is None else {"user": user}
    print(describe_revocation(post_revocation({**named, "ttl": _checked_ttl(ttl)}, url, api_key)))


def post_revocation(revocation: dict[str, Any], url: str, api_key: str | None) -> "RevocationAnswer":
    """Ask a node to revoke. Raises NotifydError that says what to do."""
    from http import HTTPStatus

    import msgspec

    from notifyd.listeners.http.revoking import RevocationAnswer

    status, body = ask_node("notifyd revoke", url, api_key, "/v1/revocations", revocation, timeout_s=CLUSTER_TIMEOUT_S)
    if status == HTTPStatus.OK:
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(body, type=RevocationAnswer)
    raise refusal("notifyd revoke", url, status, body)


def describe_revocation(revoked: "RevocationAnswer") -> str:
    """Say what is refused from now on, and until when."""
    from datetime import UTC, datetime

    until = datetime.fromtimestamp(revoked.until, UTC)
    what = f"token {revoked.token_id}" if revoked.token_id else f"every token that {revoked.user} has now"
    return printable(f"{what} is refused until {until:%Y-%m-%d %H:%M:%S} UTC")


def _checked_ttl(text: str) -> str:
    from notifyd.settings.values import parse_duration

    try:
        parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ttl") from None
    return text
