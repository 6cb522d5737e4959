"""The log of one node: structured lines without secrets, for a person at a terminal or as JSON for a collector."""

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from notifyd.settings import LogFormat
from notifyd.settings.values import WITHHELD

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

SECRET_FIELDS = frozenset(
    {"token", "authorization", "data", "payload", "secret", "password", "cookie", "api_key", "api_keys", "session"}
)
"""Fields whose value never reaches the log, whatever it is. A session's name is one: its user can resume by it."""

_SECRET_WORDS = frozenset({"token", "authorization", "secret", "password", "passwd", "cookie", "credentials", "jwt"})
"""Words that make a field secret wherever they stand in its name, such as `X-Access-Token`."""

_NAMES = r"(?:token|secret|password|passwd|authorization|cookie|api[_-]?keys?|session)"

_SECRETS_IN_TEXT = (
    # A JSON Web Token, whatever stands around it. Each place is looked at once: a stranger's text may begin many.
    (re.compile(r"eyJ(?:(?!eyJ)[\w-])*\.[\w-]*(?:\.[\w-]*)?"), WITHHELD),
    (re.compile(r"(?i)\b(bearer|basic)\s+(?!\(withheld)[^\s\"',;]+"), rf"\1 {WITHHELD}"),
    (re.compile(rf"(?i)({_NAMES}\s*=\s*[\"']?)(?!\(withheld)[^\s&\"',;}}]+"), rf"\1{WITHHELD}"),
    (re.compile(rf"(?i)({_NAMES}[\"']\s*:\s*[\"']?)(?!\(withheld)[^\s&\"',;}}]+"), rf"\1{WITHHELD}"),
    (re.compile(r"(?i)\b(authorization|cookie|x-api-key)(\s*:\s*)[^\r\n]+"), rf"\1\2{WITHHELD}"),
    (re.compile(r"//[^\s/]+@"), f"//{WITHHELD}@"),
)

_HEAD = ("timestamp", "level", "event", "node", "connection", "trace_id")
"""What a line begins with, as far as it has it: when, how grave, what; then what it is about."""


class Log:
    """Writes lines of at least `level` to `stream`, in a `form`; a stream that cannot be written to loses them."""

    def __init__(self, level: str, form: LogFormat, stream: TextIO, *, unix_s: Callable[[], float]) -> None:
        self._stream = stream
        self._unix_s = unix_s
        self._least = LEVELS[level]
        self.set_format(form)

    def set_level(self, level: str) -> None:
        """Write lines of at least this level from now on."""
        self._least = LEVELS[level]

    def set_format(self, form: LogFormat) -> None:
        """Write lines as JSON or as text for a person; "auto" is text where the stream is a terminal."""
        is_terminal = self._stream.isatty()
        renderer: Processor = structlog.processors.JSONRenderer()
        if form == "text" or (form == "auto" and is_terminal):
            # `repr`: no text of a stranger's moves the cursor of whoever reads
            renderer = structlog.dev.ConsoleRenderer(colors=is_terminal, repr_native_str=True, sort_keys=False)
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(self._stream),  # a line in one write: several processes may share the stream
            processors=[_withhold, structlog.processors.add_log_level, _head(self._unix_s), renderer],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        )

    def writes(self, level: str) -> bool:
        """Whether lines of this level are written."""
        return LEVELS[level] >= self._least

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line, where its level is written. Never raises."""
        if self.writes(level):
            with contextlib.suppress(OSError, ValueError):  # the stream is gone, or closed
                self._logger.log(LEVELS[level], event, **fields)


def without_secrets(value: Any) -> Any:
    """Return `value` with the secrets in it withheld: fields by their name, credentials in text by their form.

    What is no plain data is written down first: there may be text in it.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {
            without_secrets(str(key)): WITHHELD if _is_secret(str(key)) else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [without_secrets(item) for item in value]
    text = str(value) if isinstance(value, str | BaseException) else _written_down(value)
    for form, replacement in _SECRETS_IN_TEXT:
        text = form.sub(replacement, text)
    return text


def _written_down(value: Any) -> str:
    try:
        return repr(value)
    except Exception as bug:
        return f"({type(value).__name__} that cannot be shown: {type(bug).__name__})"


def _is_secret(field: str) -> bool:
    name = field.lower().replace("-", "_")
    return name in SECRET_FIELDS or not _SECRET_WORDS.isdisjoint(name.split("_"))


def _withhold(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    withheld: EventDict = without_secrets(line)
    return withheld


def _head(unix_s: Callable[[], float]) -> Processor:
    def head(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        """Begin the line with what every reader looks for first."""
        line["timestamp"] = datetime.fromtimestamp(unix_s(), UTC).isoformat(timespec="milliseconds")
        return {**{name: line[name] for name in _HEAD if name in line}, **line}

    return head
