"""Reading the configuration: file, then environment, then flags, each over the one before.

Source: the README's configuration section.
"""

import tomllib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from notifyd.errors import ConfigurationError
from notifyd.settings.layers import Layers
from notifyd.settings.names import children, kind_at
from notifyd.settings.types import Settings
from notifyd.settings.values import TEXTUAL

ENVIRONMENT_PREFIX = "NOTIFYD_"
LEVEL_SEPARATOR = "__"
COMMAND_LINE = "command line"


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """Build the settings of a node from a file, the environment and flags (dotted keys; None is "not given").

    Raises ConfigurationError that names the file, variable or flag, the key, and what to write instead.
    """
    return load_layers(path, environ, overrides).build()


def load_layers(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Layers:
    """Read the same, to be built later. Raises ConfigurationError for what cannot be read."""
    layers = Layers("configuration" if path is None else str(path), Path() if path is None else path.parent)
    if path is not None:
        layers.merge(_read_toml(path), str(path), path.parent)
    for name in sorted(environ):
        if (keys := _keys_of_variable(name)) is not None:
            layers.merge(nest(keys, _read_variable(name, keys, environ[name])), name, Path())
    for key, value in overrides.items():
        if value is not None:
            layers.merge(nest(key.split("."), value), COMMAND_LINE, Path())
    return layers


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise ConfigurationError(str(path), "", "no such file; `notifyd init` writes one to begin with") from None
    except OSError as error:
        raise ConfigurationError(str(path), "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "", f"is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise ConfigurationError(str(path), "", "is nested too deeply to be a configuration") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(str(path), "", f"is not TOML: {error}") from None


def is_setting(variable: str) -> bool:
    """Whether an environment variable of this name is a setting."""
    return _keys_of_variable(variable) is not None


def _keys_of_variable(name: str) -> list[str] | None:
    """Return the levels of a variable's key, None for a variable that is no setting.

    A name with a double underscore is always meant as a setting. Without one it is a whole table (`NOTIFYD_TOPICS`)
    or somebody else's: Kubernetes gives every container NOTIFYD_PORT and the like for a service called notifyd.
    """
    if not name.startswith(ENVIRONMENT_PREFIX):
        return None
    keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split(LEVEL_SEPARATOR)
    return keys if len(keys) > 1 or keys[0] in children(Settings) else None


def _read_variable(name: str, keys: list[str], text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(name, ".".join(keys), "is not UTF-8 text") from None
    return read_value(keys, text)


def read_value(keys: list[str], text: str) -> Any:
    """Read a setting's value as TOML where it is TOML, else as text; a setting that is text in a file stays text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    if parsed.keys() != {"value"}:
        return text
    value = parsed["value"]
    return text if _is_textual(kind_at(list(keys))) and not isinstance(value, str | dict) else value


def _is_textual(kind: Any) -> bool:
    if kind is str or kind in TEXTUAL or (isinstance(kind, type) and issubclass(kind, Enum)):
        return True
    return (
        not children(kind)
        and tuple not in (kind, getattr(kind, "__origin__", None))
        and any(_is_textual(part) for part in get_args(kind) if isinstance(part, type) or get_args(part))
    )


def nest(keys: list[str], value: Any) -> dict[str, Any]:
    """Put a value under its keys: a table in a table."""
    for key in reversed(keys):
        value = {key: value}
    return dict(value)
