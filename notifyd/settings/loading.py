"""Reading the configuration: file, then environment, then flags, each over the one before.

Source: the README's configuration section.
"""

import re
import tomllib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import msgspec

from notifyd.errors import ConfigurationError
from notifyd.settings.checks import check_settings
from notifyd.settings.names import children, dotted, kind_at, nearest_key, unknown_keys
from notifyd.settings.types import ListenSettings, Settings
from notifyd.settings.values import HIDDEN, TEXTUAL, Address, convert_value, shown

ENVIRONMENT_PREFIX = "NOTIFYD_"
LEVEL_SEPARATOR = "__"
MAX_SECRET_FILE_BYTES = 2**20
COMMAND_LINE = "command line"

_LISTENERS = tuple(name for name, kind in children(ListenSettings).items() if Address in get_args(kind))


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """Build the settings of a node from a file, the environment and flags (dotted keys; None is "not given").

    Raises ConfigurationError that names the file, variable or flag, the key, and what to write instead.
    """
    layers = _Layers("configuration" if path is None else str(path))
    if path is not None:
        layers.merge(_read_toml(path), str(path), path.parent)
    for name in sorted(environ):
        if (keys := _keys_of_variable(name)) is not None:
            layers.merge(_nest(keys, _read_variable(name, keys, environ[name])), name, Path())
    for key, value in overrides.items():
        if value is not None:
            layers.merge(_nest(key.split("."), value), COMMAND_LINE, Path())
    return layers.build()


class _Layers:
    """The values gathered so far, and which source each came from."""

    def __init__(self, first_source: str) -> None:
        self._raw: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._first_source = first_source

    def merge(self, layer: dict[str, Any], source: str, base: Path) -> None:
        """Lay a layer over the others; `base` is what the paths of files in it are relative to."""
        _merge(self._raw, _Reader(source, base).read(layer, []), self._sources, source, [])

    def build(self) -> Settings:
        """Convert and check everything."""
        for path in unknown_keys(self._raw):
            raise self._error(path, f"unknown key; the nearest known one is {nearest_key(path)}")
        self._turn_empty_listeners_off()
        try:
            settings = msgspec.convert(self._raw, Settings, dec_hook=convert_value)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from None
        for path, reason in check_settings(settings):
            raise self._error(path, reason)
        return settings

    def _turn_empty_listeners_off(self) -> None:
        listen = self._raw.get("listen")
        if isinstance(listen, dict):
            listen.update({name: None for name in _LISTENERS if listen.get(name) == ""})

    def _explain(self, message: str) -> ConfigurationError:
        problem, _, place = message.partition(" - at `$")
        path = _read_place(place.removesuffix("`"))
        if missing := re.fullmatch(r"Object missing required field `(\w+)`", problem):
            return self._error([*path, missing[1]], "is required here and missing")
        value: Any = self._raw
        for step in path:
            value = value[step]
        return self._error(path, _reword(problem, kind_at(path), value))

    def _error(self, path: list[str | int], reason: str) -> ConfigurationError:
        return ConfigurationError(self._source_of(path), dotted(path), reason)

    def _source_of(self, path: list[str | int]) -> str:
        key = dotted([step for step in path if isinstance(step, str)])
        table = key
        while table:
            if table in self._sources:
                return self._sources[table]
            table = table.rpartition(".")[0]
        inside = (source for known, source in self._sources.items() if known.startswith(f"{key}."))
        return next(inside, self._first_source)


def _merge(into: dict[str, Any], layer: dict[str, Any], sources: dict[str, str], source: str, path: list[Any]) -> None:
    for name, value in layer.items():
        if isinstance(value, dict):
            if not isinstance(into.get(name), dict):
                into[name] = {}
            _merge(into[name], value, sources, source, [*path, name])
        else:
            into[name] = value
        sources[dotted([*path, name])] = source


class _Reader:
    """Replaces `{ file = "…" }` by the file's text, and makes the paths of certificates independent of the place."""

    def __init__(self, source: str, base: Path) -> None:
        self._source = source
        self._base = base

    def read(self, value: Any, path: list[str | int]) -> Any:
        """Return `value` with its files read."""
        in_tls = path[:2] == ["listen", "tls"] and len(path) == 3
        if isinstance(value, dict):
            if value.keys() == {"file"} and isinstance(value["file"], str):
                place = self._base / value["file"]
                return str(place) if in_tls else self._text_of(place, path)
            return {name: self.read(item, [*path, name]) for name, item in value.items()}
        if isinstance(value, list):
            return [self.read(item, [*path, place]) for place, item in enumerate(value)]
        return str(self._base / value) if in_tls and isinstance(value, str) and value else value

    def _text_of(self, place: Path, path: list[str | int]) -> str:
        try:
            with place.open("rb") as file:
                content = file.read(MAX_SECRET_FILE_BYTES + 1)
            text = content.decode()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigurationError(self._source, dotted(path), f"cannot read {place}: {reason}") from None
        if len(content) > MAX_SECRET_FILE_BYTES:
            raise ConfigurationError(self._source, dotted(path), f"cannot read {place}: it is larger than 1 MiB")
        return text.rstrip("\r\n")


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
    """Read a variable as TOML where it is TOML, else as text; a setting that is text in a file stays text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(name, ".".join(keys), "is not UTF-8 text") from None
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


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _read_place(place: str) -> list[str | int]:
    """Read msgspec's `.auth.keys[0].kid` as a path."""
    return [int(number) if number else name for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", place)]


_WORDS = {
    "`array`": "an array",
    "`object`": "a table",
    "`str`": "text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
}


def _reword(problem: str, kind: Any, value: Any) -> str:
    """Turn msgspec's sentence into one for a person, with the value that was found unless it may be secret."""
    if not problem.startswith(("Expected", "Invalid enum value")):
        return problem
    if problem.startswith("Invalid"):
        choices = get_choices(kind)
        return f"expected one of {', '.join(map(shown, choices))}, got {shown(value)}"
    wanted = (
        problem.partition(", got")[0].replace("Expected", "expected").replace(" | null", "").replace("`null` | ", "")
    )
    for word, plain in _WORDS.items():
        wanted = wanted.replace(word, plain)
    return wanted if _may_hold_secret(kind) else f"{wanted}, got {shown(value)}"


def _may_hold_secret(kind: Any) -> bool:
    parts = [*get_args(kind), *children(kind).values()]
    return kind in HIDDEN or any(_may_hold_secret(part) for part in parts if not isinstance(part, str))


def get_choices(kind: Any) -> list[str]:
    """Return the words an enumeration or a Literal, optional or not, allows."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return [word for part in get_args(kind) for word in ([part] if isinstance(part, str) else get_choices(part))]
