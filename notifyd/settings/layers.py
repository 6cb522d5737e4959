"""The layers of a configuration, each over the one before, and the settings they make together."""

import copy
import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import msgspec

from notifyd.errors import ConfigurationError
from notifyd.settings.checks import check_settings
from notifyd.settings.names import children, dotted, kind_at, nearest_key, unknown_keys
from notifyd.settings.overlay import CENTRE, check_overlay
from notifyd.settings.types import ConnectionLimit, ListenSettings, Settings
from notifyd.settings.values import HIDDEN, Address, convert_value, shown
from notifyd.settings.written import written, written_value

MAX_SECRET_FILE_BYTES = 2**20

_LISTENERS = tuple(name for name, kind in children(ListenSettings).items() if Address in get_args(kind))


class Layers:
    """The values that file, environment and flags give, and which of them each came from.

    `base` is what the paths of files in an overlay are relative to. `adapt` is what the settings still go through when
    they are built: a worker's share of them.
    """

    def __init__(self, first_source: str, base: Path) -> None:
        self.adapt: Callable[[Settings], Settings] | None = None
        self._raw: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._first_source = first_source
        self._base = base
        self._built: Settings | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Layers":
        """Return the layers of settings that came from nowhere: those of a node inside another program."""
        layers = cls("configuration", Path())
        raw = written(settings, reveal=True)
        limit = settings.limits.connections
        if limit == ConnectionLimit(limit=limit.limit):
            del raw["limits"]["connections"]["resume"]
        layers.merge(raw, "configuration", Path())
        layers._built = settings
        return layers

    def merge(self, layer: dict[str, Any], source: str, base: Path) -> None:
        """Lay a layer over the others; `base` is what the paths of files in it are relative to.

        Raises ConfigurationError for a file that cannot be read.
        """
        self._built = None
        _merge(self._raw, _Reader(source, base).read(layer, []), self._sources, source, [])

    def build(self, overlay: Mapping[str, Any] | None = None) -> Settings:
        """Convert and check everything, with the overlay of the configuration centre on top.

        Raises ConfigurationError that names the source, the key, and what to write instead.
        """
        if overlay:
            return self._with(overlay).build()
        settings = self._built or self._convert()
        return settings if self.adapt is None else self.adapt(settings)

    def adapted(self, adapt: Callable[[Settings], Settings]) -> "Layers":
        """Return the same layers, for settings that go through `adapt` in the end."""
        layers = copy.copy(self)
        layers.adapt = adapt
        return layers

    def source_of(self, key: str, overlay: Mapping[str, Any]) -> str:
        """Name what gives a key (dotted) its value: a file, a variable, the flags or the overlay."""
        table: Any = overlay
        for name in key.split("."):
            table = table.get(name) if isinstance(table, Mapping) else None
        return self._source_of(list(key.split("."))) if table is None else CENTRE

    def _with(self, overlay: Mapping[str, Any]) -> "Layers":
        check_overlay(overlay)
        layers = Layers(self._first_source, self._base)
        layers.adapt = self.adapt
        layers._raw, layers._sources = copy.deepcopy(self._raw), dict(self._sources)
        read = _Reader(CENTRE, self._base, plain_files=True).read(dict(overlay), [])
        _complete(layers._raw, read, Settings())
        _merge(layers._raw, read, layers._sources, CENTRE, [])
        return layers

    def _convert(self) -> Settings:
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


def _complete(raw: dict[str, Any], overlay: Mapping[str, Any], defaults: msgspec.Struct) -> None:
    """Put the defaults of what a table needs where an overlay has a part of it alone: one number of a rate."""
    for field in msgspec.structs.fields(type(defaults)):
        default, part = getattr(defaults, field.name), overlay.get(field.encode_name)
        if isinstance(default, msgspec.Struct) and isinstance(part, Mapping):
            table = raw.setdefault(field.encode_name, {})
            for needed in msgspec.structs.fields(type(default)):
                if needed.required:
                    table.setdefault(needed.encode_name, written_value(getattr(default, needed.name), needed.type))
            _complete(table, part, default)


class _Reader:
    """Replaces `{ file = "…" }` by the file's text, and makes the paths of certificates independent of the place.

    With `plain_files` nothing but a regular file is opened: reading a pipe or a device might never end.
    """

    def __init__(self, source: str, base: Path, *, plain_files: bool = False) -> None:
        self._source = source
        self._base = base
        self._plain_files = plain_files

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
            if self._plain_files and place.exists() and not place.is_file():
                raise ConfigurationError(self._source, dotted(path), f"cannot read {place}: not a regular file")
            with place.open("rb") as file:
                content = file.read(MAX_SECRET_FILE_BYTES + 1)
            text = content.decode()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigurationError(self._source, dotted(path), f"cannot read {place}: {reason}") from None
        if len(content) > MAX_SECRET_FILE_BYTES:
            raise ConfigurationError(self._source, dotted(path), f"cannot read {place}: it is larger than 1 MiB")
        return text.rstrip("\r\n")


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
