"""A whole cluster in virtual time: plays a plan, and returns what was broken and a trace of all that happened.

    outcome = simulate(plan)
    assert not outcome.broken, outcome

The same plan gives the same trace, to the last line.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha1
from random import Random
from typing import Any

import trio
from trio.testing import MockClock

from notifyd.broker.redis.envelope import read_message
from notifyd.broker.redis.keys import Names
from tests.kit.memory_node import UNIX_S
from tests.simulation.acts import Acts
from tests.simulation.client import SimClient
from tests.simulation.engine import Engine
from tests.simulation.keyspace import Hash
from tests.simulation.network import Network
from tests.simulation.node import REDIS, SHORT_HISTORY, SimNode, simulated
from tests.simulation.oracle import Broken, Oracle, Place
from tests.simulation.plan import DURABLE, LAST, PLAIN, SHORT, TOPICS, Plan
from tests.simulation.sim_redis import SimRedis

BACK_S = 12.0
"""From the last fault until everybody has to be back, and be given everything."""

PRESENCE_S = 21.0
"""The same for presence: a node that died is believed to live for 15 s."""

PROBE_S = 4.0


@dataclass
class Outcome:
    """What came of a plan. `trace` has a line for all that happened; `digest` names it."""

    plan: Plan
    broken: list[Broken]
    trace: list[str] = field(repr=False)

    @property
    def digest(self) -> str:
        return sha1("\n".join(self.trace).encode(), usedforsecurity=False).hexdigest()

    def __str__(self) -> str:
        told = "\n".join(f"  {one.at_s:8.3f} {one.promise}: {one.story}" for one in self.broken)
        return f"{self.plan}\nbroken:\n{told}"


class Cluster:
    """Nodes, clients, their Redis and the network between."""

    def __init__(self, plan: Plan, trace: list[str]) -> None:
        self.plan = plan
        self.trace = trace
        self.oracle = Oracle(trio.current_time)
        self.oracle.may_lose = plan.may_lose
        self.oracle.keeps = dict.fromkeys(SHORT, SHORT_HISTORY)
        self.network = Network(plan.seed)
        self.redis = SimRedis(now_us=lambda: int((UNIX_S + trio.current_time()) * 1e6), random=Random(plan.seed))
        self.redis.engine.keeps_all = plan.durable
        self.redis.witness = self._witness
        self.nodes = [
            SimNode(f"n{number}", self.network, self.oracle, self.log, skew_s)
            for number, skew_s in enumerate(plan.skews_s)
        ]
        self.clients = [
            SimClient(number, plan, nodes=len(self.nodes), network=self.network, oracle=self.oracle, log=self.log)
            for number in range(len(plan.clients))
        ]
        self._names = Names("notifyd")
        self._kept: dict[str, dict[Place, Any]] = {}

    def log(self, who: str, what: str, about: Any) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{trio.current_time():9.4f} {who:6} {what} {about}")

    # --- what Redis did -----------------------------------------------------------------------------------------------

    def _witness(self, engine: Engine, channel: bytes, payload: bytes) -> None:
        if payload[:1] != b"m" or b":channel:" not in channel:
            return
        arrived = read_message(self._names.topic_of_channel(channel), payload).notification
        position = arrived.position
        self.log(REDIS, "accepts", (arrived.topic, position, arrived.data))
        if position is not None:
            was_replaced = engine is not self.redis.engine  # and does not know it
            place = (position.epoch, position.offset)
            self.oracle.append(arrived.topic, place, arrived.data, in_vain=was_replaced)

    def note_kept(self) -> None:
        """Remember what the replica has."""
        self._kept = {topic: dict(places) for topic, places in self.oracle.accepted.items()}

    def forget_unkept(self) -> None:
        """The replica has taken over: what it had not heard is lost."""
        for topic in list(self.oracle.accepted):
            self.oracle.lose(topic, self._kept.get(topic, {}))

    def newest(self, topic: str) -> Place | None:
        """Look up the newest place of a topic."""
        known = self.redis.engine.data.find(self._names.topic(topic).encode(), Hash)
        return None if known is None else (known[b"e"].decode(), int(known[b"o"]))

    # --- the minute ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play the plan, then ask whether all is well."""
        async with trio.open_nursery() as nursery:
            acts = Acts(self, nursery)
            await nursery.start(self.network.run)
            await nursery.start(self.redis.run)
            self.network.listen(REDIS, self.redis.accept)
            for part in (*self.nodes, *self.clients):
                nursery.start_soon(part.run)
            for step in self.plan.steps:
                await trio.sleep_until(step.at / 1000)
                self.log("plan", "step", step)
                nursery.start_soon(acts.play, step)
            await trio.sleep_until(LAST / 1000)
            await acts.heal()
            await self._judge(nursery)
            for client in self.clients:
                client.retired = True
            async with trio.open_nursery() as stopping:
                for node in self.nodes:
                    stopping.start_soon(node.stop)
            nursery.cancel_scope.cancel()

    async def _judge(self, nursery: trio.Nursery) -> None:
        healed_s = trio.current_time()
        self.log("plan", "healed", "")
        await trio.sleep_until(healed_s + BACK_S)
        for client in self.clients:
            if not client.is_settled:
                self.oracle.break_("after the faults everybody is back", f"{client.name}: {client.standing}")
        self._judge_whole()
        await self._probe(nursery, self.clients)
        await trio.sleep_until(healed_s + PRESENCE_S)
        await self._judge_presence()
        sessions = {client.name: client.session for client in self.clients}
        for client in self.clients:
            client.move(client.home + 1)
        await trio.sleep(PROBE_S)
        for client in self.clients:
            if client.wanted and (not client.resumed or client.session != sessions[client.name]):
                self.oracle.break_("a session is resumed on any node", f"{client.name}: {client.standing}")
        await self._probe(nursery, self.clients[:1])
        await self._judge_presence()

    async def _probe(self, nursery: trio.Nursery, publishers: list[SimClient]) -> None:
        """Publish once more to every topic, and see that everybody gets it."""
        answered: list[tuple[str, str]] = []

        async def publish(client: SimClient, topic: str) -> None:
            answered.append((topic, await client.publish(topic)))

        for client in publishers:
            for topic in TOPICS:
                nursery.start_soon(publish, client, topic)
        await trio.sleep(PROBE_S)
        sent = len(publishers) * len(TOPICS)
        if len(answered) < sent:
            self.oracle.break_("after the faults everything works", f"{len(answered)} of {sent} probes were answered")
        self._judge_whole()
        for topic, data in answered:
            if topic in PLAIN:
                for client in self.clients:
                    if topic in client.wanted:
                        self.oracle.judge_heard(client.name, topic, data)

    def _judge_whole(self) -> None:
        for client in self.clients:
            for topic in client.wanted:
                newest = self.newest(topic)
                if newest is not None and topic in DURABLE:
                    self.oracle.judge_whole(client.name, topic, newest)

    async def _judge_presence(self) -> None:
        for topic in ("room:a", "room:b"):
            present = {client.session for client in self.clients if client.is_settled and topic in client.wanted}
            for client in self.clients:
                told = await client.presence(topic)
                if told is None:
                    self.oracle.break_("after the faults everything works", f"{client.name}: nobody tells who is there")
                else:
                    self.oracle.judge_presence(client.name, topic, told, present)


def simulate(plan: Plan, patch: Callable[[], Any] | None = None) -> Outcome:
    """Play a plan. `patch` may return a context manager that spoils the product meanwhile."""
    trace: list[str] = []

    async def main() -> list[Broken]:
        cluster = Cluster(plan, trace)
        with simulated(cluster.network, plan.seed):
            await cluster.run()
        return cluster.oracle.broken

    if patch is None:
        return Outcome(plan, _run(main), trace)
    with patch():
        return Outcome(plan, _run(main), trace)


def _run(main: Any) -> list[Broken]:
    """Run in virtual time, the scheduler's choices being those of the seed."""
    core = trio._core._run
    before, core._ALLOW_DETERMINISTIC_SCHEDULING = core._ALLOW_DETERMINISTIC_SCHEDULING, True
    try:
        return trio.run(main, clock=MockClock(autojump_threshold=0))  # type: ignore[no-any-return]
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING = before
