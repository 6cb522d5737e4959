"""Traffic over a fault: publishers and witnesses of some durable topics, and the verdict on what they were told."""

import itertools
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from protocol.position import Position
from tests.reliability.judge import Acknowledged, Verdict, judge
from tests.reliability.line import Line, Transport
from tests.reliability.witness import MOST_WAIT_S, Nodes, Publisher, Refusal, Witness

PAGE = 1000
TRANSPORTS: tuple[Transport, ...] = ("device", "websocket")


@dataclass(frozen=True)
class Plan:
    """How much of it. Each topic gets so many publishers and witnesses; half of the witnesses come back with their
    session, on either transport, and all are spread over the nodes."""

    topics: int = 4
    publishers: int = 2
    witnesses: int = 6
    pause_s: float = 0.01
    padding: int = 50
    settle_s: float = 20.0
    most_wait_s: float = MOST_WAIT_S


class Traffic:
    """What goes on meanwhile."""

    def __init__(self, nodes: Nodes, plan: Plan) -> None:
        self.plan = plan
        self._nodes = nodes
        self.topics = [f"durable:{number}" for number in range(plan.topics)]
        numbers = itertools.count()
        self.publishers = [
            Publisher(f"p{number}", nodes, topic, **self._spread(number), pause_s=plan.pause_s, padding=plan.padding)
            for topic in self.topics
            for number in itertools.islice(numbers, plan.publishers)
        ]
        self.witnesses = [
            Witness(f"w{number}", nodes, topic, **self._spread(number), resumes=number // 4 % 2 == 0)
            for topic in self.topics
            for number in itertools.islice(numbers, plan.witnesses)
        ]

    def _spread(self, number: int) -> dict[str, Any]:
        """By which node and transport a client of this number comes, so that there is every combination."""
        transport = TRANSPORTS[number // 2 % 2]
        return {"home": number, "transport": transport, "most_wait_s": self.plan.most_wait_s}

    # --- what was seen ------------------------------------------------------------------------------------------------

    @property
    def acknowledged(self) -> list[Acknowledged]:
        """Every acknowledgement so far, in the order they came."""
        return sorted(self._acknowledged(self.publishers), key=lambda ack: ack.when_s)

    @property
    def refusals(self) -> list[Refusal]:
        return [refusal for publisher in self.publishers for refusal in publisher.refusals]

    def first_acknowledged_s(self, after_s: float) -> float:
        """When each topic had its first acknowledgement after a moment; the latest of them."""
        return max(
            min(ack.when_s for ack in self._acknowledged(self._publishers_of(topic)) if ack.when_s > after_s)
            for topic in self.topics
        )

    def acknowledged_between(self, first_s: float, last_s: float) -> list[Acknowledged]:
        return [ack for ack in self.acknowledged if first_s < ack.when_s <= last_s]

    async def wait_flowing(self, seconds: float, count: int = 1) -> float:
        """Wait until every publisher got so many acknowledgements from now on, and every witness something that was
        published since; how long it took."""
        began_s = trio.current_time()
        wanted = {publisher: len(publisher.acknowledged) + count for publisher in self.publishers}
        await self._wait(
            lambda: all(len(publisher.acknowledged) >= goal for publisher, goal in wanted.items()),
            f"no publisher got {count} acknowledgements",
            seconds,
        )
        await self._wait_all_have_what_is_acknowledged(seconds)
        return trio.current_time() - began_s

    async def _wait_all_have_what_is_acknowledged(self, seconds: float) -> None:
        for topic in self.topics:
            goal = self._newest_acknowledged(topic)
            if goal is None:
                continue
            for witness in self._witnesses_of(topic):
                reached = partial(self._is_whole, witness, goal)
                await self._wait(reached, f"{witness.name}, closed with {witness.codes}, is not at {goal}", seconds)

    def _newest_acknowledged(self, topic: str) -> Position | None:
        acknowledged = self._acknowledged(self._publishers_of(topic))
        newest = max(acknowledged, key=lambda ack: ack.when_s, default=None)
        return None if newest is None else newest.position

    def _is_whole(self, witness: Witness, goal: Position) -> bool:
        """Whether it has come to its goal; to the newest one, where the epoch of its goal has ended meanwhile."""
        newest = self._newest_acknowledged(witness.topic)
        if newest is not None and newest.epoch != goal.epoch:
            goal = newest
        return _has_reached(witness, goal)

    # --- the history --------------------------------------------------------------------------------------------------

    async def missing_in_history(self) -> list[Acknowledged]:
        """What was acknowledged and is not in the history that a node reads out now."""
        kept = {data for topic in self.topics for data in await self._history(topic)}
        return [ack for ack in self.acknowledged if ack.data not in kept]

    async def _history(self, topic: str) -> list[Hashable]:
        line = await Line.connected(self._nodes.port(0, "device"), "device")
        try:
            kept: list[Hashable] = []
            since: Any = "earliest"
            while True:
                request = {"op": "history", "id": 2, "topic": topic, "since": since, "limit": PAGE}
                page = await line.ask(request)
                assert page["op"] == "history", page
                kept += [message["data"] for message in page["messages"]]
                if not page["more"]:
                    return kept
                last = page["messages"][-1]
                since = {"epoch": last["epoch"], "offset": last["offset"]}
        finally:
            line.close()

    # --- the end ------------------------------------------------------------------------------------------------------

    async def finish(self) -> Verdict:
        """Let the publishers end, wait until every witness has all, and judge."""
        for publisher in self.publishers:
            publisher.stop()
        await self._wait(
            lambda: all(publisher.done.is_set() for publisher in self.publishers),
            "a publisher was never acknowledged",
            self.plan.settle_s,
        )
        with trio.move_on_after(self.plan.settle_s):  # what does not come is the verdict's to tell
            await self._wait_all_have_what_is_acknowledged(self.plan.settle_s + 1)
        await trio.sleep(0.2)  # for what should not come
        verdict = Verdict()
        for topic in self.topics:
            publishers = self._publishers_of(topic)
            verdict.add(
                judge(
                    sorted(self._acknowledged(publishers), key=lambda ack: ack.when_s),
                    [data for publisher in publishers for data in publisher.sent],
                    {witness.name: witness.account for witness in self._witnesses_of(topic)},
                )
            )
        return verdict

    async def _wait(self, condition: Callable[[], bool], complaint: str, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while not condition():  # noqa: ASYNC110 - it comes from another process
                await trio.sleep(0.01)
            return
        raise AssertionError(f"{complaint} within {seconds:g} s")

    def _publishers_of(self, topic: str) -> list[Publisher]:
        return [publisher for publisher in self.publishers if publisher.topic == topic]

    def _witnesses_of(self, topic: str) -> list[Witness]:
        return [witness for witness in self.witnesses if witness.topic == topic]

    @staticmethod
    def _acknowledged(publishers: Sequence[Publisher]) -> list[Acknowledged]:
        return [ack for publisher in publishers for ack in publisher.acknowledged]


def _has_reached(witness: Witness, goal: Position) -> bool:
    position = witness.position
    return position is not None and position.epoch == goal.epoch and position.offset >= goal.offset


@asynccontextmanager
async def flowing_traffic(nodes: Nodes, plan: Plan | None = None) -> AsyncIterator[Traffic]:
    """Let it flow for the length of the block: all witnesses subscribed, every publisher acknowledged once."""
    traffic = Traffic(nodes, plan or Plan())
    async with trio.open_nursery() as nursery:
        for witness in traffic.witnesses:
            nursery.start_soon(witness.run)
        for witness in traffic.witnesses:
            await witness.has_begun.wait()
        for publisher in traffic.publishers:
            nursery.start_soon(publisher.run)
        await traffic.wait_flowing(10)
        yield traffic
        nursery.cancel_scope.cancel()
