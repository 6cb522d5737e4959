"""Publishers that do not give up, and subscribers that write down what they see, for the oracle of judge.py.

Both find their node through `Nodes` and go to the next one when theirs is away, with the wait of A7 between attempts.
"""

from collections.abc import Hashable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import trio

from protocol.backoff import Backoff
from protocol.position import Position
from tests.reliability.judge import Acknowledged, Arrived, Begun, Event, Gapped, Resumed
from tests.reliability.line import Line, LineLost, Transport

MOST_WAIT_S = 2.0
"""A7's cap is 30 s: too long for a test that waits for all to come back."""

ANSWER_S = 10.0
"""A request without an answer for so long was met with silence."""


UNAVAILABLE = 503


class Nodes(Protocol):
    """Where clients go: ports change when a node is started anew."""

    def port(self, number: int, transport: Transport) -> int: ...


class Silence(Exception):
    """A request was not answered in time: what the promise forbids."""


@dataclass(eq=False)
class Traveller:
    """What publisher and subscriber share: a line to some node, opened again and again."""

    name: str
    nodes: Nodes
    topic: str
    _: KW_ONLY
    home: int = 0
    transport: Transport = "device"
    most_wait_s: float = MOST_WAIT_S

    def __post_init__(self) -> None:
        self.line: Line | None = None
        self.connected_s: list[float] = []
        self.codes: list[int | None] = []
        self._backoff = Backoff(cap_s=self.most_wait_s)

    def cut(self) -> None:
        """Break its connection, as a network does."""
        if self.line is not None:
            self.line.cut()

    async def _open(self) -> Line:
        with trio.move_on_after(ANSWER_S):
            return await Line.open(self.nodes.port(self.home, self.transport), self.transport)
        raise LineLost

    async def _ask(self, line: Line, message: dict[str, Any]) -> dict[str, Any]:
        with trio.move_on_after(ANSWER_S):
            return await line.ask(message)
        raise Silence(f"{self.name} asked {message} and got no answer within {ANSWER_S:g} s")

    async def _move_on(self, lost: LineLost) -> None:
        """Wait, and try the next node."""
        self.codes.append(lost.code)
        if self.line is not None:
            self.line.close()
            self.line = None
        self.home += 1
        await trio.sleep(max(self._backoff.next_delay_s(), lost.retry_after_s))

    def _arrive(self, line: Line) -> None:
        self.line = line
        self.connected_s.append(trio.current_time())
        self._backoff.reset()


@dataclass(eq=False, kw_only=True)
class Witness(Traveller):
    """A subscriber of one durable topic; `account` is what it saw.

    With `resumes` it comes back with its session, else it subscribes anew with its position.
    """

    resumes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.account: list[Event] = []
        self.position: Position | None = None
        self.has_begun = trio.Event()
        self.session: str | None = None
        self.resumed = 0

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._live()
            except LineLost as lost:
                await self._move_on(lost)

    async def _live(self) -> None:
        line = await self._open()
        try:
            await self._connect(line)
            self._arrive(line)
            self.has_begun.set()
            while True:
                self._hear(await line.next())
        finally:
            line.close()

    async def _connect(self, line: Line) -> None:
        request: dict[str, Any] = {"op": "connect", "id": 1}
        if self.resumes and self.session and self.position:
            request |= {"session": self.session, "positions": {self.topic: _plain(self.position)}}
        reply = await self._ask(line, request)
        if reply["op"] == "error":
            raise LineLost(reply["code"])
        self.session = reply["session"]
        standing = reply.get("topics", {}).get(self.topic) if reply["resumed"] else None
        if standing is None:
            await self._subscribe(line)
        else:
            self.resumed += 1
            if standing["recovered"] or not standing["offset"]:
                self._note_resumed(standing)
            # else a gap follows that names what is missing

    async def _subscribe(self, line: Line) -> None:
        request: dict[str, Any] = {"op": "subscribe", "id": 2, "topic": self.topic}
        if self.position is not None:
            request["since"] = _plain(self.position)
        while (reply := await self._ask(line, request))["op"] == "error":
            assert reply["code"] == UNAVAILABLE, f"{self.name} was refused: {reply}"
            await trio.sleep(reply["retry_after"])
        if self.position is None:
            self.position = Position(reply["epoch"], reply["offset"])
            self.account.append(Begun(self.position))
        else:
            self._note_resumed(reply)

    def _note_resumed(self, standing: dict[str, Any]) -> None:
        assert self.position is not None
        top = Position(standing["epoch"], standing["offset"])
        self.account.append(Resumed(self.position, top, standing["recovered"]))
        if not standing["recovered"]:
            self.position = top

    def _hear(self, push: dict[str, Any]) -> None:
        if push["op"] == "message":
            self.position = Position(push["epoch"], push["offset"])
            self.account.append(Arrived(self.position, push["data"]))
        elif push["op"] == "gap":
            epoch = push.get("epoch") or (self.position.epoch if self.position else "")
            self.position = Position(epoch, push["to"])
            self.account.append(Gapped(epoch, push["from"], push["to"], push["reason"]))
        else:
            assert push["op"] == "goaway", f"{self.name} got {push}"


@dataclass(frozen=True)
class Refusal:
    """A publish that was answered with an error: when, with which code, how long after it was asked."""

    when_s: float
    code: int
    took_s: float


@dataclass(eq=False, kw_only=True)
class Publisher(Traveller):
    """Publishes numbered messages with keys, each until it is acknowledged, then the next."""

    pause_s: float = 0.0
    padding: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.acknowledged: list[Acknowledged] = []
        self.refusals: list[Refusal] = []
        self.sent: list[Hashable] = []
        self.done = trio.Event()
        self._stopping = False

    async def run(self, count: int = 2**31) -> None:
        """Publish `count` messages, or until `stop`: the one under way is acknowledged first."""
        number = 0
        try:
            while number < count and not self._stopping:
                number += 1
                await self._publish(f"{self.name}-{number}")
                await trio.sleep(self.pause_s)
            self.done.set()
        finally:
            if self.line is not None:
                self.line.close()

    def stop(self) -> None:
        self._stopping = True

    async def _publish(self, key: str) -> None:
        data = key + "." * self.padding
        self.sent.append(data)
        request = {"op": "publish", "id": 7, "topic": self.topic, "data": data, "key": key}
        while True:
            began_s = trio.current_time()
            try:
                reply = await self._ask(await self._ready_line(), request)
            except LineLost as lost:
                await self._move_on(lost)
                continue
            now_s = trio.current_time()
            if reply["op"] == "published":
                assert "scope" not in reply, f"a durable publish reached one node only: {reply}"
                self.acknowledged.append(Acknowledged(Position(reply["epoch"], reply["offset"]), data, now_s))
                return
            assert reply["code"] == UNAVAILABLE, f"{self.name} was refused: {reply}"
            self.refusals.append(Refusal(now_s, reply["code"], now_s - began_s))
            await trio.sleep(reply["retry_after"])

    async def _ready_line(self) -> Line:
        if self.line is None:
            self.line = await self._open()
            reply = await self._ask(self.line, {"op": "connect", "id": 1})
            if reply["op"] == "error":
                raise LineLost(reply["code"])
            self._arrive(self.line)
        return self.line


def _plain(position: Position) -> dict[str, Any]:
    return {"epoch": position.epoch, "offset": position.offset}
