"""`notifyd token`."""

import sys
from typing import Annotated

import typer

from notifyd.cli.configuration import ConfigOption

ID_BYTES = 12
"""Random bytes of a token's id: no two tokens of a fleet share one."""


def token(
    *,
    user: Annotated[str, typer.Option("--user", metavar="USER", help="Who the token is for (`sub`).")],
    subscribe: Annotated[
        list[str] | None, typer.Option("--subscribe", metavar="PATTERN", help="May receive these topics; repeatable.")
    ] = None,
    publish: Annotated[
        list[str] | None, typer.Option("--publish", metavar="PATTERN", help="May send to these topics; repeatable.")
    ] = None,
    topics: Annotated[
        str, typer.Option("--topics", metavar="A,B", help="Subscribed as soon as the client connects.")
    ] = "",
    expires: Annotated[
        str, typer.Option("--expires", metavar="DURATION", help='How long it holds, such as "15m"; or "never".')
    ] = "1h",
    kid: Annotated[
        str | None, typer.Option("--kid", metavar="KID", help="Sign with this key; else with the first that can.")
    ] = None,
    show_id: Annotated[
        bool, typer.Option("--show-id", help="Tell its id on stderr, for `notifyd revoke --token-id`.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Print a token signed with the configured key."""
    import secrets
    import time

    from notifyd.auth.tokens import Signer
    from notifyd.cli.configuration import read_settings
    from notifyd.errors import NotifydError, Unauthorized

    signer = Signer(read_settings(config).auth, kid)
    token_id = secrets.token_urlsafe(ID_BYTES)
    try:
        signed = signer.sign(
            user,
            now_s=time.time(),
            expires_in_s=_read_expiry(expires),
            subscribe=subscribe or [],
            publish=publish or [],
            topics=[topic for topic in topics.split(",") if topic],
            token_id=token_id,
        )
    except Unauthorized as error:
        raise NotifydError(f"notifyd token: no node would accept this token: {error}") from None
    if show_id:
        print(f"token id: {token_id}", file=sys.stderr)
    print(signed)


def _read_expiry(text: str) -> float | None:
    from notifyd.settings.values import parse_duration

    if text == "never":
        return None
    try:
        duration_s = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f'{error}; or "never"', param_hint="--expires") from None
    if duration_s < 1:
        raise typer.BadParameter("a token has to hold for at least 1s", param_hint="--expires")
    return duration_s
