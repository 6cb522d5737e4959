"""A Cluster: every slot has a master, and both the slots and the masters move about."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import trio
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError
from redis.typing import EncodableT

from notifyd.broker.base import Services
from notifyd.broker.redis.link import Link, LinkLost
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.asking import scan_server, server_refused
from notifyd.broker.redis.topology.base import Command, OnPushes
from notifyd.broker.redis.topology.linking import Linking
from notifyd.broker.redis.topology.members import ClusterMember, Members
from notifyd.broker.redis.topology.redirecting import REDIRECTIONS, Ask, Redirected
from notifyd.broker.redis.topology.slots import SlotTable, SlotView
from notifyd.broker.redis.topology.views import ask_members, ask_strangers, elect
from notifyd.errors import BrokerUnavailable
from protocol.backoff import Backoff

REFRESH = "slots"
"""What the service that keeps the table of slots is called in the supervision tree."""

TABLE_REFRESH_S = 15.0
"""How often the slots are asked for although nothing is known to be amiss."""

HURRIED_REFRESH_S = 0.05
HURRIED_REFRESH_CAP_S = 1.0
"""The shortest and the longest pause before they are asked for again while something is, in seconds."""


class ClusterServers:
    """The `Servers` of redis+cluster:// and rediss+cluster://.

    A slot that has moved is followed by what its old server says (MOVED, ASK); a master that is lost makes the table
    be read again and again, until every slot has a master that is linked to.
    """

    def __init__(self, linking: Linking) -> None:
        self._linking = linking
        self._table = SlotTable()
        self._members = Members(linking, self._turn)
        self._replicas: frozenset[Endpoint] = frozenset()
        self._callbacks: list[Callable[[], None]] = []
        self._doubted = trio.Event()
        self._turned = trio.Event()
        self._had_sharded_channels: bool | None = None
        self._unknown = "the slots of the Cluster are not known yet"

    @property
    def sharded(self) -> bool:
        """Whether channels are those of shards; see Servers."""
        return bool(self._members.has_sharded_channels)

    async def start(self, services: Services) -> None:
        """Launch what reads the table of slots; links follow from that. See Servers."""
        self._members.start(services)
        services.launch(REFRESH, self.follow)

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call it whenever commands reach a server again; see Servers."""
        self._linking.on_up.append(callback)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call it whenever slots have moved, or masters; see Servers."""
        self._callbacks.append(callback)

    def problems(self) -> list[str]:
        """Tell which masters are away, and which slots have none; see Servers."""
        masters = sorted(self._table.masters, key=str)
        problems = (self._members.at(endpoint).problem() for endpoint in masters)
        return [problem for problem in (*problems, self._unserved()) if problem]

    def _unserved(self) -> str:
        """Tell which slots nobody serves; "" when there are none."""
        if self._unknown:
            return self._unknown
        ranges = ", ".join(f"{first}-{last}" for first, last in self._table.unserved())
        return f"no server of the Cluster serves the slots {ranges}" if ranges else ""

    # --- asking -------------------------------------------------------------------------------------------------------

    async def execute(self, key: str, *command: EncodableT) -> Any:
        """Run one command; see Servers."""
        return await self._ask(key_slot(key.encode()), _command(command))

    async def evaluate(
        self, script: Script, keys: Sequence[str], arguments: Sequence[EncodableT], *, replicas: int = 0
    ) -> Any:
        """Run a script; see Servers."""

        async def ask(server: ClusterMember, asking: bool) -> Any:
            return await server.evaluate(script, keys, arguments, replicas=replicas, asking=asking)

        return await self._ask(key_slot(keys[0].encode()), ask)

    async def scan(self, pattern: str) -> list[str]:
        """Return all keys that match; see Servers."""
        if unserved := self._unserved():
            raise BrokerUnavailable(unserved)
        found: set[str] = set()
        for endpoint in self._table.masters:
            link = self._members.at(endpoint).link
            try:
                found |= await scan_server(link, pattern)
            except RedisError as error:
                raise server_refused(link, error) from None
        return list(found)

    async def _ask(self, slot: int, ask: Ask) -> Any:
        end_s = trio.current_time() + self._linking.deadline_s
        server = self.owner(slot)
        refusal: ResponseError | None = None
        if server.link.is_up or not server.is_new:
            try:
                return await ask(server, False)
            except REDIRECTIONS as error:
                refusal = error
            except RedisError as error:
                raise server_refused(server.link, error) from None
        return await self._follow_up(slot, ask, server, refusal, end_s)

    async def _follow_up(
        self, slot: int, ask: Ask, server: ClusterMember, refusal: ResponseError | None, end_s: float
    ) -> Any:
        redirected = Redirected(slot, ask, self, server, refusal)
        with trio.move_on_at(end_s):
            try:
                return await redirected.answer()
            except RedisError as error:
                raise server_refused(redirected.server.link, error) from None
        raise BrokerUnavailable(
            f"no server of the Cluster answered for slot {slot} within {self._linking.deadline_s:g} s: "
            f"{redirected.refusal or redirected.server.problem()}"
        )

    # --- pub/sub ------------------------------------------------------------------------------------------------------

    def feed_home(self, channel: str) -> str:
        """Name the master of the channel's slot; see Servers. Where channels have no slots, it spreads them."""
        slot = key_slot(channel.encode())
        owner = self._table.owner(slot)
        if owner is None:
            raise self._no_owner(slot)
        if self._members.has_sharded_channels is None:
            raise BrokerUnavailable("no master of the Cluster has been reached yet")
        return str(owner)

    def open_feed(self, home: str, on_pushes: OnPushes) -> Link:
        """Make a link for pub/sub; see Servers."""
        for endpoint in self._table.masters:
            if str(endpoint) == home:
                return self._members.new_link(endpoint, on_pushes)
        raise BrokerUnavailable(f"{home} is not a master of the Cluster any more")

    # --- knowing the way (redirecting.Directory) ----------------------------------------------------------------------

    def owner(self, slot: int) -> ClusterMember:
        """Return the server of a slot. Raises BrokerUnavailable while it is unknown."""
        owner = self._table.owner(slot)
        if owner is None:
            raise self._no_owner(slot)
        return self._members.at(owner)

    def _no_owner(self, slot: int) -> BrokerUnavailable:
        return BrokerUnavailable(self._unknown or f"no server of the Cluster serves slot {slot}")

    def at(self, endpoint: Endpoint) -> ClusterMember:
        """Return the server there."""
        return self._members.at(endpoint)

    def move(self, slot: int, owner: Endpoint) -> None:
        """Take note that a slot has moved, as its old server says."""
        self.doubt()
        if self._table.move(slot, owner):
            self._members.at(owner)
            self._tell_change()

    def doubt(self) -> None:
        """Let the table be read again soon."""
        self._doubted.set()

    def _turn(self) -> None:
        """Take note that a link came up or ended: another master may have its slots now."""
        self.doubt()
        self._turned.set()
        self._look_at_channels()

    def _look_at_channels(self) -> None:
        """See whether channels are other ones than before: of shards, or of the whole Cluster."""
        if self._members.has_sharded_channels != self._had_sharded_channels:
            self._had_sharded_channels = self._members.has_sharded_channels
            self._tell_change()

    def _tell_change(self) -> None:
        for callback in self._callbacks:
            callback()

    # --- the table of slots -------------------------------------------------------------------------------------------

    async def follow(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the table of slots: a service. Raises LinkLost when no server at all could be asked."""
        pauses = Backoff(base_s=HURRIED_REFRESH_S, cap_s=HURRIED_REFRESH_CAP_S)
        while True:
            self._doubted, self._turned = trio.Event(), trio.Event()
            self._take(await self._view())
            await self._members.stop_those_gone()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await self._rest(pauses)

    async def _rest(self, pauses: Backoff) -> None:
        """Wait until the table should be read again: while something is amiss soon, and as soon as a link turns."""
        if self.problems():
            with trio.move_on_after(pauses.next_delay_s()):
                await self._turned.wait()
        else:
            pauses.reset()
            with trio.move_on_after(self._linking.deadline_s if self._members.are_leaving else TABLE_REFRESH_S):
                await self._doubted.wait()
        await trio.sleep(HURRIED_REFRESH_S * random.random())

    async def _view(self) -> SlotView:
        """Ask the masters that are linked to; where there are none, anybody who was ever heard of."""
        views = await ask_members(self._members.up())
        if views:
            return elect(views)
        known = dict.fromkeys([*self._linking.target.endpoints, *self._table.masters, *self._replicas])
        try:
            return await ask_strangers(self._linking, random.sample([*known], len(known)))
        except LinkLost as error:
            if self._unknown:
                self._unknown = str(error)
            raise

    def _take(self, view: SlotView) -> None:
        self._replicas = view.replicas
        self._unknown = ""
        is_news = self._table.replace(view.ranges)
        self._members.keep(self._table.masters)
        self._look_at_channels()
        if is_news:
            self._linking.events.log("info", "broker_slots", masters=len(self._table.masters), served=view.served)
            self._tell_change()


def _command(command: Command) -> Ask:
    async def ask(server: ClusterMember, asking: bool) -> Any:
        return await server.execute(command, asking=asking)

    return ask
