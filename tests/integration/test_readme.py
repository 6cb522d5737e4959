"""The README is true: its commands and programs are run, and print what it says; its tables name what there is."""

import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from notifyd.cli import COMMANDS
from notifyd.settings import load
from notifyd.settings.checks import find_weaknesses
from notifyd.telemetry.catalogue import COUNTERS, GAUGES, HISTOGRAMS, PREFIX
from protocol.errors import CloseCode
from protocol.framing import Encoding
from protocol.messages import decode_request, decode_server_message
from tests.chromium import EXECUTABLE, open_browser
from tests.kit.markdown import Block, read_blocks
from tests.kit.page_server import open_page_server
from tests.kit.terminal import Running, Terminal, open_terminal
from tests.kit.transcript import INTERRUPT, Command, Expectation, read_commands

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = read_blocks(TEXT)
TOUR = "Five minutes"
OWN_NODE = "A node of your own"
TWO_NODES = "A cluster of two"

PORTS = (7500, 7501, 7502, 7510, 7511, 7512, 6380, 8000)
GO_ON_RUNNING = ("notifyd demo", "notifyd serve", "notifyd subscribe", "python -m websockets", "redis-server")
BESIDE = re.compile(r"(.+) &(?: (\w+)=\$!)?")
"""A command that runs beside the shell, and the variable that gets its process's id."""

SERVES = {
    "notifyd serve": "curl -s -o /dev/null http://127.0.0.1:{port}/health",
    "redis-server": "redis-cli -p {port} ping >/dev/null 2>&1",
}
"""What succeeds once such a program serves."""

OUTPUT_S = 15.0
"""How long an output that is promised may take."""

NOTIFYD = """#!/bin/sh
# The command as the README calls it, on other ports than the usual ones. What it says itself comes later and holds.
command=$1
shift
case $command in
demo) set -- --websocket {0} --device {1} --http {2} --origin http://localhost:{7} "$@" ;;
publish | subscribe | top) set -- --url ws://127.0.0.1:{0}/ws "$@" ;;
revoke | tree | config) set -- --url http://127.0.0.1:{2} "$@" ;;
esac
exec {python} -c 'from notifyd.cli import main; main()' "$command" "$@"
"""


class Reader:
    """Does what a reader of the README does: types its commands, and compares what is shown with what is printed."""

    def __init__(self, terminal: Terminal, ports: tuple[int, ...]) -> None:
        self.terminal = terminal
        self.ports = dict(zip(PORTS, ports, strict=True))
        self._names: dict[str, str] = {}
        self._running: list[tuple[str, Running, list[str]]] = []

    async def read(self, block: Block) -> None:
        for command in read_commands(block.lines, block.line):
            if command.text is None:
                await self._look(command, block.note)
            elif command.text.startswith(GO_ON_RUNNING):
                await self._start(command.text)
                await self._look(command, command.text)
                await self._wait_served(command.text)
            else:
                shown = await self.terminal.run(self.translate(command.text))
                self._compare(Expectation(command.output, complete=True), shown, command.line)

    async def _start(self, text: str) -> None:
        """Start a command that goes on running, in a terminal of its own or beside the shell."""
        beside = BESIDE.fullmatch(text)
        running = await self.terminal.start(self.translate(beside[1] if beside else text))
        if beside and beside[2]:
            await self.terminal.run(f"{beside[2]}={running.process.pid}")
        self._running.append((text, running, []))

    async def _look(self, command: Command, name: str) -> None:
        """Wait until the program of this name, the last one if there is none, has printed this too."""
        _, running, earlier = next(entry for entry in reversed(self._running) if name in entry[0])
        earlier += command.output
        ends = INTERRUPT in command.output
        expectation = Expectation(earlier, complete=False)
        with trio.move_on_after(OUTPUT_S):
            await running.until(lambda shown: expectation.match(self.mapped(shown)) is not None)
        self._compare(expectation, running.shown, command.line)
        if ends:
            await running.interrupt()
            self._running = [entry for entry in self._running if entry[1] is not running]
            self._compare(Expectation(earlier, complete=True), running.shown, command.line)

    async def _wait_served(self, text: str) -> None:
        """Give it the time that a person needs to change to another terminal."""
        asked = next((asked for program, asked in SERVES.items() if text.startswith(program)), None)
        if asked is not None:
            named = re.search(r"--(?:http 127\.0\.0\.1:|port )(\d+)", text)
            port = self.ports[int(named[1]) if named else 7502]
            with trio.fail_after(OUTPUT_S):
                await self.terminal.run(f"until {asked.format(port=port)}; do sleep 0.05; done")

    def _compare(self, expectation: Expectation, shown: str, line: int) -> None:
        __tracebackhide__ = True
        names = expectation.match(self.mapped(shown))
        if names is None:
            difference = expectation.difference(self.mapped(shown))
            pytest.fail(f"README.md, line {line}: something else is shown\n{difference}", pytrace=False)
        self._names |= names

    def translate(self, command: str) -> str:
        """Put in the real ports, and what epochs and sessions of the README really are here."""
        for printed, real in (self.ports | self._names).items():
            command = re.sub(rf"(?<!\w){printed}(?!\w)", str(real), command)
        return command

    def mapped(self, shown: str) -> str:
        """Put in the README's ports; a URL that is the usual one is not said."""
        for printed, real in self.ports.items():
            shown = shown.replace(f":{real}", f":{printed}")
        return shown.replace(" --url ws://127.0.0.1:7500/ws", "")


@asynccontextmanager
async def reader_in(folder: Path) -> AsyncIterator[Reader]:
    """Give a reader a terminal in an empty folder, where `notifyd` is the one under test."""
    ports = free_ports()
    programs = folder / "programs"
    programs.mkdir()
    command = programs / "notifyd"
    command.write_text(NOTIFYD.format(*ports, python=sys.executable))
    command.chmod(0o755)
    here = folder / "here"
    here.mkdir()
    addresses = zip(("WEBSOCKET", "DEVICE", "HTTP"), ports[:3], strict=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NOTIFYD_")},
        **{f"NOTIFYD_LISTEN__{name}": f"127.0.0.1:{port}" for name, port in addresses},
        "NOTIFYD_NODE__DRAIN": "300ms",
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    async with open_terminal(here, environment) as terminal:
        yield Reader(terminal, ports)


def free_ports() -> tuple[int, ...]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)


def blocks_of(section: str) -> Iterator[Block]:
    return (block for block in BLOCKS if block.section == section)


# --- what is run -----------------------------------------------------------------------------------------------------


@pytest.mark.guard(120)
@pytest.mark.skipif(EXECUTABLE is None, reason="needs chromium")
async def test_the_five_minutes(tmp_path: Path) -> None:
    async with reader_in(tmp_path) as reader:
        blocks = [*blocks_of(""), *blocks_of(TOUR), *blocks_of("For web developers")]
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            if block.language == "console":
                await reader.read(block)
            elif block.language == "python":
                await save(reader, "tour.py", block.text)
            elif block.language == "html":
                await open_page(reader, block)
            elif block.language == "js":
                assert following is not None
                await run_in_a_browser(reader, block, following)


async def save(reader: Reader, name: str, text: str) -> None:
    shown = await reader.terminal.run(f"cat >{name} <<'THE END'\n{reader.translate(text)}THE END")
    assert shown == ""


async def run_in_a_browser(reader: Reader, program: Block, output: Block) -> None:
    """Run the program on the node's own page; then once more with a short heartbeat, which it has to answer."""
    http = reader.ports[7502]
    async with open_browser() as browser:
        await browser.open(f"http://127.0.0.1:{http}/")
        await browser.run("window.logged = []; console.log = (...parts) => logged.push(parts.join(' ')); 0")
        await browser.run(f"{{ {reader.translate(program.text)} }}")
        await browser.until(f"logged.length >= {len(output.lines)}")
        logged = await browser.run("logged.join('\\n')")
        reader._compare(Expectation(output.lines, complete=True), logged, output.line)
        impatient = reader.translate(program.text).replace("?topics=", "?heartbeat=1&topics=").replace("room1", "room2")
        await browser.run(f"{{ {impatient} }}")
        # A PING comes after a second of silence; the round trip is there when it was answered.
        await browser.run(f"({UNTIL_ANSWERED})()")


async def open_page(reader: Reader, page: Block) -> None:
    """Open the page as a web server of this machine's serves it, and click."""
    assert page.text.count("\n") <= 15
    async with open_page_server(reader.ports[8000]) as server, open_browser() as browser:
        server.pages["/"] = reader.translate(page.text)
        await browser.open(f"http://localhost:{server.port}/")
        await browser.until("document.title === 'connected' && document.querySelectorAll('li').length === 3")
        await browser.run("document.body.click()")
        await browser.until("document.querySelectorAll('li').length === 4")
        assert await browser.run("document.querySelector('li:last-child').textContent") == PUBLISHED_BY_CLICK


PUBLISHED_BY_CLICK = '{"text":"hello from a page"}'

UNTIL_ANSWERED = """async () => {
  const answered = (one) => one.transport === "websocket" && one.heartbeat === 1 && one.round_trip_ms !== null;
  while (!(await (await fetch("/v1/connections")).json()).connections.some(answered))
    await new Promise((done) => setTimeout(done, 50));
}"""


@pytest.mark.guard(120)
async def test_a_node_of_ones_own(tmp_path: Path) -> None:
    async with reader_in(tmp_path) as reader:
        for block in blocks_of(OWN_NODE):
            assert block.language == "console"
            await reader.read(block)


@pytest.mark.guard(120)
async def test_a_cluster_of_two(tmp_path: Path) -> None:
    async with reader_in(tmp_path) as reader:
        for block in blocks_of(TWO_NODES):
            assert block.language == "console"
            await reader.read(block)


def test_every_console_block_is_run() -> None:
    run = {"", TOUR, OWN_NODE, TWO_NODES, "For web developers"}
    assert {block.section for block in BLOCKS if block.language == "console"} <= run
    assert {block.language for block in BLOCKS} == {"console", "html", "js", "json", "python", "sh", "text", "toml"}


def test_the_two_commands() -> None:
    run, test = (block.text.strip() for block in BLOCKS if block.language == "sh")
    assert run == "python3 -m venv .venv && . .venv/bin/activate && pip install . && notifyd demo"
    assert test == "sh tests/run"
    assert "exec sh tests/run" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# --- what is said ----------------------------------------------------------------------------------------------------


def test_the_messages_are_messages() -> None:
    lines = [line for block in BLOCKS if block.language == "json" for line in block.lines]
    assert len(lines) > 5
    for line in lines:
        decode = decode_request if '"id"' in line else decode_server_message
        message = decode(line.encode(), Encoding.JSON)
        assert set(json.loads(line)) - {"op"} <= set(message.__struct_encode_fields__), line


def test_the_configuration_it_shows_can_be_used(tmp_path: Path) -> None:
    (text,) = (block.text for block in BLOCKS if block.language == "toml")
    (tmp_path / "token-secret.txt").write_text("s" * 64)
    (tmp_path / "api-key.txt").write_text("k" * 32)
    path = tmp_path / "notifyd.toml"
    path.write_text(text)
    settings = load(path, {}, {})
    assert len(settings.topics) == 2
    assert list(find_weaknesses(settings)) == []


def rows(first_cell: str, text: str = TEXT) -> list[list[str]]:
    """Return the cells of the table rows whose first cell matches."""
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in table if re.fullmatch(first_cell, row[0])]


def test_the_metrics_that_it_names_are_there() -> None:
    told = set(re.findall(r"`(notifyd_\w+)", TEXT))
    assert told
    known = {f"{PREFIX}{name}_total" for name in COUNTERS} | {f"{PREFIX}{name}" for name in (*GAUGES, *HISTOGRAMS)}
    assert told <= known


def test_the_close_codes_are_right() -> None:
    for code, _, advice in rows(r"\d{4}"):
        comes_back = advice == "yes"
        assert CloseCode(int(code)).may_reconnect is comes_back, code


def test_every_command_is_told() -> None:
    told = set(re.findall(r"(?:`|^\$ |\$\(|\| )notifyd ([a-z]+)", TEXT, re.MULTILINE))
    assert told == set(COMMANDS)


def test_the_files_it_names_are_there() -> None:
    named = set(re.findall(r"`([\w/]+(?:\.(?:py|md|json)|/))`", TEXT))
    assert len(named) > 20
    named.remove("tour.py")  # the reader writes it
    assert [name for name in named if not ((ROOT / name).exists() or (ROOT / "notifyd" / name).exists())] == []
