"""The files that the console is made of, as they are served: a page, its style, and a module for each of its parts."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePath
from typing import NamedTuple

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


class ConsoleFile(NamedTuple):
    """One file: its media type and its bytes."""

    media_type: str
    body: bytes


def _read(file: Traversable) -> ConsoleFile:
    return ConsoleFile(_TYPES[PurePath(file.name).suffix], file.read_bytes())


def _read_all() -> dict[str, ConsoleFile]:
    folder = resources.files(__package__).joinpath("console")
    files = {f"/console/{file.name}": _read(file) for file in sorted(folder.iterdir(), key=lambda file: file.name)}
    return {"/": files.pop("/console/index.html"), **files}


CONSOLE_FILES = _read_all()
"""By the path that each is served at."""
