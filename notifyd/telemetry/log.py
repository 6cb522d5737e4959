"""The log of one node: structured lines without secrets, for a person at a terminal or as JSON for a collector."""

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from notifyd.settings.values import WITHHELD

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

SECRET_FIELDS = frozenset(
    {"token", "authorization", "data", "payload", "secret", "password", "cookie", "api_key", "api_keys"}
)
"""Fields whose value never reaches the log, whatever it is."""

_SECRETS_IN_TEXT = (
    (re.compile(r"(?i)(token|secret|password|authorization|api_key)=[^\s&\"']+"), rf"\1={WITHHELD}"),
    (re.compile(r"(?i)\b(bearer)\s+[^\s\"']+"), rf"\1 {WITHHELD}"),
    (re.compile(r"//[^\s/@]+@"), f"//{WITHHELD}@"),
)


class Log:
    """Writes lines of at least `level` to `stream`; a stream that cannot be written to loses them."""

    def __init__(self, level: str, stream: TextIO, *, unix_s: Callable[[], float]) -> None:
        renderer: Processor = structlog.processors.JSONRenderer()
        if stream.isatty():  # `repr`: no text of a stranger's moves the cursor of whoever reads
            renderer = structlog.dev.ConsoleRenderer(colors=True, repr_native_str=True)
        self._target = structlog.WriteLogger(stream)  # a line in one write: several processes may share the stream
        self._processors = [_withhold, structlog.processors.add_log_level, _head(unix_s), renderer]
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Write lines of at least this level from now on."""
        self._logger = structlog.wrap_logger(
            self._target,
            processors=self._processors,
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        )

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line. Never raises."""
        with contextlib.suppress(OSError, ValueError):  # the stream is gone, or closed
            self._logger.log(LEVELS.get(level, logging.ERROR), event, **fields)


def without_secrets(value: Any) -> Any:
    """Return `value` with the secrets in it withheld: fields by their name, credentials in text by their form."""
    if isinstance(value, str):
        for form, replacement in _SECRETS_IN_TEXT:
            value = form.sub(replacement, value)
        return value
    if isinstance(value, Mapping):
        return {
            key: WITHHELD if str(key).lower() in SECRET_FIELDS else without_secrets(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def _withhold(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    withheld: EventDict = without_secrets(line)
    return withheld


def _head(unix_s: Callable[[], float]) -> Processor:
    def head(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        """Begin the line with when, how grave and what, for whoever reads it as text."""
        line["timestamp"] = datetime.fromtimestamp(unix_s(), UTC).isoformat(timespec="milliseconds")
        return {**{name: line[name] for name in ("timestamp", "level", "event")}, **line}

    return head
