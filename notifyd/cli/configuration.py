"""Finding the configuration a command works with."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from notifyd.settings import Layers, Settings

DEFAULT_PATH = Path("notifyd.toml")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The configuration; ./notifyd.toml if not given.")
]
"""The `--config` of every command that has one."""


def find_file(config: Path | None) -> Path | None:
    """Return the file asked for, else ./notifyd.toml where there is one."""
    if config is None and DEFAULT_PATH.exists():
        return DEFAULT_PATH
    return config


def read_settings(config: Path | None, overrides: Mapping[str, Any] | None = None) -> "Settings":
    """Load the settings from the file, the environment and flags; see `read_layers`."""
    return read_layers(config, overrides).build()


def read_layers(config: Path | None, overrides: Mapping[str, Any] | None = None) -> "Layers":
    """Read the file, the environment and flags (`overrides`: dotted keys, None is "not given").

    The settings they make can be used, their keys included. Raises ConfigurationError, also where there is no
    configuration at all: a node never starts on defaults alone.
    """
    from notifyd.auth.verification_keys import load_keys
    from notifyd.errors import ConfigurationError
    from notifyd.settings.loading import is_setting, load_layers

    path = find_file(config)
    if path is None and not any(map(is_setting, os.environ)):
        raise ConfigurationError(
            str(DEFAULT_PATH),
            "",
            "no such file, and no other configuration; `notifyd init` writes one, `notifyd demo` needs none",
        )
    layers = load_layers(path, os.environ, overrides or {})
    settings = layers.build()
    try:
        load_keys(settings.auth)
    except ConfigurationError as error:
        raise ConfigurationError(source_of(config), error.key, error.reason) from None
    return layers


def source_of(config: Path | None) -> str:
    """Name the configuration for an error found after it was read."""
    path = find_file(config)
    return "environment" if path is None else str(path)
