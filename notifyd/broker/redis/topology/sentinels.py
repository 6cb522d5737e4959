"""The Sentinels of one service: who they say is its master, and being told when that changes.

A Sentinel may be away, or have a view of its own while the network is cut; so none is trusted for longer than its word
proves true. `distrust` lets the next one be asked first.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import trio
from redis.exceptions import RedisError

from notifyd.broker.redis.link import Link, LinkLost
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.asking import ask_once
from notifyd.broker.redis.topology.linking import Linking
from notifyd.errors import BrokerUnavailable, first_of

CHANNEL = "+switch-master"

ASK_AGAIN_S = 5.0
"""How often the Sentinel that is listened to is asked all the same: a message may be missed, a word may not."""


class Sentinels:
    """Asks and watches. `known` is the master that is used now; `on_master` is told when it is another."""

    def __init__(self, linking: Linking, on_master: Callable[[Endpoint], None]) -> None:
        self._linking = linking
        self._service = linking.target.service
        self._on_master = on_master
        self.known: Endpoint | None = None
        self._endpoints = deque(linking.target.endpoints)

    def distrust(self) -> None:
        """Ask another one first from now on."""
        self._endpoints.rotate(-1)

    async def master(self) -> Endpoint:
        """Ask each in turn for the service's master. Raises LinkLost that says what each of them answered."""
        failures = []
        for _ in range(len(self._endpoints)):
            asked = self._endpoints[0]
            try:
                return await self._ask(asked)
            except LinkLost as error:
                failures.append(f"{asked}: {error}")
                self.distrust()
        raise LinkLost(f"no Sentinel names the master of {self._service!r}: {'; '.join(failures)}")

    async def _ask(self, sentinel: Endpoint) -> Endpoint:
        with trio.move_on_after(self._linking.deadline_s):
            link = self._linking.link(sentinel, role="sentinel")
            return self._read(await ask_once(link, *self._question))
        raise LinkLost(f"no answer within {self._linking.deadline_s:g} s")

    @property
    def _question(self) -> tuple[str, ...]:
        return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)

    def _read(self, reply: Any) -> Endpoint:
        if reply is None:
            raise LinkLost(f"it knows no service {self._service!r}")
        host, port = reply
        return Endpoint(host.decode(), int(port))

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen to one Sentinel for as long as it can be heard: a service, which takes the next one when run again.

        Raises LinkLost.
        """
        watched = self._endpoints[0]
        link = self._linking.link(watched, self._hear, role="sentinel")
        why = "it was heard no more"
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(link.run)
                await self._follow(watched, link, task_status)
        except* (LinkLost, BrokerUnavailable, RedisError) as group:
            why = str(first_of(group))
        self.distrust()
        raise LinkLost(why)

    async def _follow(self, watched: Endpoint, link: Link, task_status: trio.TaskStatus[None]) -> None:
        await link.subscribe("SUBSCRIBE", [CHANNEL])
        while True:
            named = self._read(await link.execute(*self._question))
            if named != self.known:
                await self._settle(watched, named)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(ASK_AGAIN_S)

    async def _settle(self, watched: Endpoint, named: Endpoint) -> None:
        """Take the master that most Sentinels name: this one alone may not have heard of the last failover.

        Raises LinkLost when it is that one which has not.
        """
        votes: Counter[Endpoint] = Counter([named])

        async def ask(sentinel: Endpoint) -> None:
            with contextlib.suppress(LinkLost):
                votes[await self._ask(sentinel)] += 1

        async with trio.open_nursery() as nursery:
            for sentinel in {*self._endpoints} - {watched}:
                nursery.start_soon(ask, sentinel)
        [(elected, _)] = votes.most_common(1)
        if elected != named:
            raise LinkLost(f"it names {named} the master of {self._service!r}, and most others {elected}")
        self._on_master(elected)

    def _hear(self, pushes: list[list[Any]]) -> None:
        """Take messages as `service old-host old-port new-host new-port`."""
        for kind, _, *rest in pushes:
            words = rest[0].decode().split(" ") if kind == b"message" else []
            if len(words) == 5 and words[0] == self._service and words[4].isdecimal():
                self._on_master(Endpoint(words[3], int(words[4])))
