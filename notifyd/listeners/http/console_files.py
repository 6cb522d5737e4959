"""The files that the console is made of, as they are served: a page, its style, and a module for each of its parts."""

from importlib import resources
from pathlib import PurePath
from typing import NamedTuple

_INDEX = "index.html"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


class ConsoleFile(NamedTuple):
    """One file: its media type and its bytes."""

    media_type: str
    body: bytes


def _read() -> dict[str, ConsoleFile]:
    folder = resources.files(__package__).joinpath("console")
    return {
        "/" if file.name == _INDEX else f"/console/{file.name}": ConsoleFile(
            _TYPES[PurePath(file.name).suffix], file.read_bytes()
        )
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
    }


CONSOLE_FILES = _read()
"""By the path that each is served at."""
