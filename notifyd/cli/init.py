"""`notifyd init`."""

from pathlib import Path
from typing import Annotated

import typer

from notifyd.cli.configuration import DEFAULT_PATH


def init(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The file to write.")] = DEFAULT_PATH,
) -> None:
    """Write a configuration to begin with. It is commented, its secrets are random; no file is overwritten."""
    import os
    import secrets
    import time

    from notifyd.errors import ConfigurationError
    from notifyd.settings.template import write_template

    kid = f"{time.strftime('%Y-%m')}-{secrets.token_hex(2)}"
    text = write_template(secret=secrets.token_urlsafe(64), kid=kid, api_key=secrets.token_urlsafe(32))
    try:
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        reason = "is there already and is left as it is; remove it, or write another with `notifyd init --config FILE`"
        raise ConfigurationError(str(config), "", reason) from None
    except OSError as error:
        raise ConfigurationError(str(config), "", f"cannot be written: {error.strerror}") from None
    option = "" if config == DEFAULT_PATH else f" --config {config}"
    print(f"Wrote {config}. It holds secrets: only you can read it, and it belongs in no repository.")
    print(
        f"Next: `notifyd check{option}`, `notifyd serve{option}`, and `notifyd token{option} --user NAME` for a client."
    )
