"""What nodes say to each other: to all, or to one, which may answer. By channels, so whoever is away does not hear it.

A message is a MessagePack map with at least `op` and `from`. A question has `ask` too, and its answer comes on the
asker's own channel: {"op": "answer", "from", "to", "answer"}.
"""

from collections.abc import Callable
from secrets import randbits
from typing import Any, TypeAlias

import msgspec
import trio

from notifyd.broker.base import Services
from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.subscriber import ChannelSubscriber
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events

MOST_QUESTIONS = 1000
"""Questions under way at once: a node that resumes so many sessions at a time has other worries."""

MOST_ANSWERS = 1000
"""Answers that wait for being sent. Above it they are left out, and the askers' patience ends."""

ANSWERS_AT_ONCE = 8
"""Answers on their way at the same time: one that waits for a slow server does not hold up those to others."""

ControlHandler: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Handles a message, synchronously; what it returns is the answer to a question. None: there is none to be had here."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Control:
    """The node's ear and voice. `handlers` has what is done with each `op`; a handler may raise for what is malformed.

    What a handler cannot be asked for is counted and logged, and not answered.
    """

    def __init__(
        self, subscriber: ChannelSubscriber, servers: Servers, names: Names, node: str, *, events: Events
    ) -> None:
        self.handlers: dict[str, ControlHandler] = {}
        self._subscriber = subscriber
        self._servers = servers
        self._names = names
        self._node = node
        self._events = events
        self._everybody = names.control()
        self._own = names.control_of(node)
        self._questions: dict[int, _Question] = {}
        self._numbers = randbits(48)  # an answer to who was called the same before shall not be taken for ours
        self._answers, self._unsent = trio.open_memory_channel[tuple[str, bytes]](MOST_ANSWERS)

    async def start(self, services: Services) -> None:
        """Begin to listen, as soon as the servers are there, and to answer."""
        self._subscriber.want(self._everybody)
        self._subscriber.want(self._own)
        await services.start("control", self._serve)

    async def tell(self, node: str | None, message: dict[str, Any]) -> None:
        """Send a message to a node, or with None to all others. Raises BrokerUnavailable."""
        await self._send(node, message)

    async def ask(self, node: str, message: dict[str, Any], deadline_s: float) -> dict[str, Any] | None:
        """Send a message to a node and return its answer; None when none came in time, or nobody listens there.

        Raises BrokerUnavailable. Cancelled, nothing stays registered.
        """
        if len(self._questions) >= MOST_QUESTIONS:
            raise BrokerUnavailable(f"{MOST_QUESTIONS} questions to other nodes are under way")
        self._numbers += 1
        number = self._numbers
        question = self._questions[number] = _Question(node)
        try:
            with trio.move_on_after(deadline_s):
                if await self._send(node, {**message, "ask": number}):
                    await question.answered.wait()
            return question.answer
        finally:
            del self._questions[number]

    def take(self, channel: str, payload: bytes) -> None:
        """Handle what arrived on a channel; never raises. What is on others than the two of control is ignored."""
        if channel not in {self._everybody, self._own}:
            return
        try:
            message = _decode(payload)
            self._handle(channel, message["op"], message["from"], message)
        except Exception as error:  # whatever it is: it came from outside, and must not end the feed
            self._events.count("malformed_arrivals")
            self._events.log("warning", "malformed_arrival", channel=channel, error=f"{type(error).__name__}: {error}")

    def _handle(self, channel: str, op: str, sender: str, message: dict[str, Any]) -> None:
        if channel == self._everybody and sender == self._node:
            return  # done already by whoever told all others
        if op == "answer":
            self._take_answer(sender, message["to"], message["answer"])
            return
        answer = self.handlers[op](message)
        if answer is not None and "ask" in message:
            self._answer(sender, message["ask"], answer)

    def _take_answer(self, sender: str, number: int, answer: dict[str, Any]) -> None:
        question = self._questions.get(number)
        if question is not None and question.node == sender:  # else it came too late
            question.answer = msgspec.convert(answer, dict[str, Any])
            question.answered.set()

    def _answer(self, node: str, number: int, answer: dict[str, Any]) -> None:
        message = {"op": "answer", "from": self._node, "to": number, "answer": answer}
        try:
            self._answers.send_nowait((self._names.control_of(node), _encode(message)))
        except trio.WouldBlock:
            self._events.log("warning", "answer_left_out", to=node)

    async def _serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(ANSWERS_AT_ONCE):
                nursery.start_soon(self._send_answers)
            task_status.started()

    async def _send_answers(self) -> None:
        while True:
            channel, payload = await self._unsent.receive()
            try:
                await self._publish(channel, payload)
            except BrokerUnavailable as failure:
                self._events.log("info", "answer_not_sent", error=str(failure))

    async def _send(self, node: str | None, message: dict[str, Any]) -> int:
        channel = self._everybody if node is None else self._names.control_of(node)
        return await self._publish(channel, _encode({**message, "from": self._node}))

    async def _publish(self, channel: str, payload: bytes) -> int:
        """Publish; return how many listen there, as far as the server knows."""
        client = client_at(self._servers, channel)
        publish = client.spublish if self._servers.sharded else client.publish
        return int(await publish(channel, payload))


class _Question:
    """A question under way, and its answer."""

    __slots__ = ("answer", "answered", "node")

    def __init__(self, node: str) -> None:
        self.node = node
        self.answered = trio.Event()
        self.answer: dict[str, Any] | None = None
