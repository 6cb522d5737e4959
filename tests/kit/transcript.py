"""What a document says a terminal shows, held against what it really shows.

A console block is a list of commands, each after `$ `, with what it prints. `…` stands for text left out, and on a line
of its own for lines left out; `^C` for Ctrl-C. Values that differ from run to run (epochs, sessions, times, figures)
need only have the right shape. A name such as an epoch that is read there is bound to the real one, so that later
commands may use it.
"""

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

LEFT_OUT = "…"
INTERRUPT = "^C"
MOST_LINES = 60
"""Of a difference, for whoever has to read it."""


class Volatile(NamedTuple):
    """A kind of value that differs from run to run: how the document's is found, and what the real one may be.

    One that `names` something is bound: later commands may use it.
    """

    kind: str
    found: str
    shape: str
    names: bool = False


_LOST = "Connection refused|the server closed the connection"
"""How it shows that a peer is gone, one way or another."""

VOLATILES = (
    Volatile("epoch", r'(?<="epoch":")[0-9a-f]+', r"[0-9a-f]+", names=True),
    Volatile("session", r'(?:(?<="session":")|(?<=, session ))[\w-]{24}', r"[\w-]{24}", names=True),
    Volatile("node", r'(?:(?<="node":")|(?<="node": "))[\w.-]+', r"[\w.-]+"),
    Volatile("kid", r"\b20\d\d-\d\d-[0-9a-f]{4}\b", r"20\d\d-\d\d-[0-9a-f]{4}"),
    Volatile("host", r"(?<=\bmetrics:)[\w.-]+(?=:)", r"[\w.-]+"),
    Volatile("moment", r"\d{4}-\d\d-\d\d[T ][\d:.+]+", r"\d{4}-\d\d-\d\d[T ][\d:.+]+"),
    Volatile("day", r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT"),
    Volatile("address", r"127\.0\.0\.1:(?!75[01][012]|6380)\d{4,5}", r"127\.0\.0\.1:\d{4,5}"),
    Volatile("away", r"(?:backing off|unavailable)(?= for )", r"(?:backing off|unavailable|connecting)"),
    Volatile("trying", r"(?<= is )backing off(?=: )", r"(?:backing off|connecting)"),
    Volatile("problem", rf"(?<=: )(?:{_LOST})(?=[\",]|$)", r"[^\",;\n]+"),
    Volatile("restarts", r"\d+ restarts?\b", r"\d+ restarts?"),
    Volatile("duration", r"(?<= for )\d+[dhms](?: \d+[hms])?", r"\d+[dhms](?: \d+[hms])?"),
    Volatile("clock", r"(?<=timestamp  )(?!0{12})[0-9a-f]{16}", r"[0-9a-f]{16}"),
    Volatile("span", r"(?<=: bytes )(?!0 to 15$)\d+ to \d+", r"\d+ to \d+"),
    Volatile("length", r"(?<=length     )[0-9a-f]{6} +\d+(?= bytes)", r"[0-9a-f]{6} +\d+"),
    Volatile("count", r'(?<="cpus":)\d+|(?<=after )\d+(?= messages)|(?<= and )\d+(?= heartbeats)', r"\d+"),
    Volatile("figure", r"(?<![\d.])\d+\.\d+(?![\d.])|(?<!\d)\d{6,}(?!\d)", r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"),
)

_ANY = re.compile("|".join(f"(?P<{volatile.kind}>{volatile.found})" for volatile in VOLATILES))
_SHAPES = {volatile.kind: volatile.shape for volatile in VOLATILES}
_NAMES = frozenset(volatile.kind for volatile in VOLATILES if volatile.names)
_CONTROLS = re.compile(r"[^\n]*\r(?=\x1b\[K)|\x1b(?:[78]|\[[0-9;?]*[A-Za-z])|\r")
_PROMPT = re.compile(r"^(?:> )+(?=<|$)", re.MULTILINE)


class Command(NamedTuple):
    """A command of a console block with the lines it prints; without a command, what a running one prints next."""

    text: str | None
    output: list[str]
    line: int


def read_commands(lines: Iterable[str], first_line: int) -> list[Command]:
    """Read a console block. A line that ends with a backslash is continued."""
    commands: list[Command] = []
    continued = False
    for number, line in enumerate(lines, start=first_line):
        if continued:
            commands[-1] = commands[-1]._replace(text=f"{commands[-1].text}\n{line.removeprefix('> ')}")
        elif line.startswith("$ "):
            commands.append(Command(line.removeprefix("$ "), [], number))
        else:
            if not commands:
                commands.append(Command(None, [], number))
            commands[-1].output.append(line)
            continue
        continued = line.endswith("\\")
    return commands


def plain(shown: str) -> str:
    """Return what a terminal shows without its colours, cursor movements and empty prompts."""
    text = _PROMPT.sub("", _CONTROLS.sub("", shown))
    return "".join(f"{line}\n" for line in text.splitlines() if line.strip(" >"))


class Expectation:
    """What has to be shown. `complete`: and nothing else after it."""

    def __init__(self, output: Iterable[str], *, complete: bool) -> None:
        self.lines = [line for line in output if line.strip() and line != INTERRUPT]
        self._named: list[str] = []
        self._pattern = re.compile("".join(map(self._pattern_of, self.lines)) + (r"\Z" if complete else ""))

    def _pattern_of(self, line: str) -> str:
        if line == LEFT_OUT:
            return r"(?:.*\n)*?"
        pattern, place = "", 0
        for found in _ANY.finditer(line):
            kind = found.lastgroup or ""
            pattern += _escape(line[place : found.start()])
            place = found.end()
            if kind in _NAMES:
                self._named.append(found[0])
                pattern += f"({_SHAPES[kind]})"
            else:
                pattern += _SHAPES[kind]
        return pattern + _escape(line[place:]) + r"\n"

    def match(self, shown: str) -> dict[str, str] | None:
        """Return what names in the document really are; None where something else is shown."""
        found = self._pattern.match(plain(shown))
        return None if found is None else dict(zip(self._named, found.groups(), strict=True))

    def difference(self, shown: str) -> str:
        """Write the difference down for a person, without what may differ."""
        wanted, got = map(_mask, self.lines), map(_mask, plain(shown).splitlines())
        lines = [*difflib.unified_diff(list(wanted), list(got), "the document", "this run", n=9, lineterm="")]
        return "\n".join([*lines[:MOST_LINES], *([LEFT_OUT] if len(lines) > MOST_LINES else [])])


def _escape(text: str) -> str:
    return ".*".join(map(re.escape, text.split(LEFT_OUT)))


def _mask(line: str) -> str:
    return _ANY.sub(lambda found: f"<{found.lastgroup}>", line)
