"""Redis servers that carry channels, without Redis: a test says what they do, in virtual time.

    servers = ScriptedServers("a", "b", sharded=True)
    servers.nodes["a"].crash()          # its links end, new ones are refused ...
    servers.nodes["a"].restart()        # ... until now
    servers.move(channel, "b")          # tell nobody but who is subscribed (`sunsubscribe`), as a Cluster does
    servers.publish(channel, b"...")    # as another node does: reaches the links that are subscribed where it lives
    servers.nodes["a"].forget()         # subscriptions are gone, connections stay: only a probe tells
    servers.nodes["a"].stall()          # takes and gives nothing more, until `go_on`
    servers.nodes["a"].is_full = True       # its links take no more commands
    servers.nodes["a"].refusal = ResponseError("NOPERM ...")
    servers.lost_table = True           # nobody knows where anything lives

What a link sends and gets takes its time each way, `delay_s()`, and keeps its order. `ScriptedServers` stands in for
`Servers`, its links for `Link`. A channel lives where `homes` says, else on the first server; those called `...{N}` are
spread over all. What `feed_home` tells is what `execute` last found out. Plain channels are published on all servers.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import trio
from redis.exceptions import MovedError, ResponseError

from notifyd.broker.redis.link import LinkLost
from notifyd.errors import BrokerUnavailable

LINK_DEADLINE_S = 1.0
OnPushes = Callable[[list[list[Any]]], None]


class ScriptedNode:
    """One server."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.is_up = True
        self.is_full = False
        self.refusal: ResponseError | None = None
        self.links: list[ScriptedLink] = []
        self.flow = trio.Event()
        self.flow.set()

    def crash(self) -> None:
        self.is_up = False
        self.cut()

    def restart(self) -> None:
        self.is_up = True

    def cut(self) -> None:
        for link in [*self.links]:
            link.drop("the connection broke: reset")

    def stall(self) -> None:
        if self.flow.is_set():
            self.flow = trio.Event()

    def go_on(self) -> None:
        self.flow.set()

    def forget(self) -> None:
        for link in self.links:
            link.subscribed.clear()

    @property
    def subscribed(self) -> set[str]:
        return set().union(*(link.subscribed for link in self.links))

    def publish(self, channel: str, payload: bytes, kind: bytes) -> int:
        reached = [link for link in self.links if channel in link.subscribed]
        for link in reached:
            link.send([kind, channel.encode(), payload])
        return len(reached)


class Pipe:
    """One way of a connection: what is put in comes out later, in order, several at once where they waited together."""

    def __init__(self, node: ScriptedNode, delay_s: Callable[[], float], take: Callable[[list[Any]], None]) -> None:
        self._node = node
        self._delay_s = delay_s
        self._take = take
        self._items: deque[Any] = deque()
        self._arrived = trio.Event()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            await trio.sleep(self._delay_s())
            await self._node.flow.wait()
            self._arrived = trio.Event()
            items, self._items = [*self._items], deque()
            self._take(items)


class ScriptedLink:
    """Stands in for `Link`, as far as feeds use it."""

    def __init__(self, servers: "ScriptedServers", node: ScriptedNode, on_pushes: OnPushes) -> None:
        self.is_up = False
        self.subscribed: set[str] = set()
        self.commands: list[tuple[str, list[str]]] = []
        self.runs = 0
        self.reasons: list[str] = []
        self._servers = servers
        self._node = node
        self._on_pushes = on_pushes
        self._scope: trio.CancelScope | None = None
        self._waiting: list[_Waiting] = []

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        assert self._scope is None, "run twice at once"
        self.runs += 1
        self._scope = scope = trio.CancelScope()
        try:
            await trio.sleep(self._servers.delay_s())
            if not self._node.is_up:
                self.drop("connection refused")
            with scope:
                async with trio.open_nursery() as nursery:
                    self._there = Pipe(self._node, self._servers.delay_s, self._carry_out)
                    self._back = Pipe(self._node, self._servers.delay_s, self._receive)
                    nursery.start_soon(self._there.run)
                    nursery.start_soon(self._back.run)
                    await trio.lowlevel.checkpoint()
                    self.is_up = True
                    self._node.links.append(self)
                    task_status.started()
        finally:
            self.drop("this node ended the connection")
        raise LinkLost(self.reasons[-1])

    def drop(self, reason: str) -> None:
        if self._scope is not None:
            scope, self._scope = self._scope, None
            self.is_up = False
            self.reasons.append(reason)
            self.subscribed.clear()
            if self in self._node.links:
                self._node.links.remove(self)
            for waiting in self._waiting:
                waiting.outcome = BrokerUnavailable(reason)
                waiting.done.set()
            self._waiting.clear()
            scope.cancel()

    async def subscribe(self, verb: str, channels: Sequence[str]) -> None:
        if not self.is_up:
            raise BrokerUnavailable(self.reasons[-1] if self.reasons else "not connected yet")
        if self._node.is_full:
            raise BrokerUnavailable("too much in flight")
        self.commands.append((verb, [*channels]))
        waiting = _Waiting(verb, [*channels])
        self._waiting.append(waiting)
        self._there.put(waiting)
        with trio.move_on_after(LINK_DEADLINE_S) as scope:
            await waiting.done.wait()
        if scope.cancelled_caught and not waiting.done.is_set():
            self.drop(f"no answer within {LINK_DEADLINE_S} s")
        if waiting.outcome is not None:
            raise waiting.outcome

    def send(self, push: list[Any]) -> None:
        self._back.put(push)

    def _carry_out(self, commands: list[Any]) -> None:
        """What the server does with commands."""
        for waiting in commands:
            assert (waiting.verb in {"SSUBSCRIBE", "SUNSUBSCRIBE"}) is self._servers.sharded, waiting.verb
            away = [channel for channel in waiting.channels if self._servers.true_home(channel) != self._node.home]
            if self._servers.sharded and len({self._servers.slot(channel) for channel in waiting.channels}) > 1:
                waiting.outcome = ResponseError("CROSSSLOT Keys in request don't hash to the same slot")
            elif self._servers.sharded and away:
                waiting.outcome = MovedError("1234 127.0.0.1:7000")  # says nothing that is known here
            elif "UN" in waiting.verb:
                self.subscribed.difference_update(waiting.channels)
            elif self._node.refusal is not None:
                waiting.outcome = self._node.refusal
            else:
                self.subscribed.update(waiting.channels)
            self.send([waiting])

    def _receive(self, items: list[Any]) -> None:
        """What one read brings: first callers are told, then the pushes are handed over."""
        pushes: list[list[Any]] = []
        for item in items:
            if isinstance(item[0], _Waiting):
                waiting = item[0]
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
                waiting.done.set()
                if waiting.outcome is None:
                    kind = waiting.verb.lower().encode()
                    pushes += [[kind, channel.encode(), 1] for channel in waiting.channels]
            else:
                pushes.append(item)
        if pushes:
            self._on_pushes(pushes)


class ScriptedServers:
    """Stands in for `Servers`."""

    def __init__(self, *homes: str, sharded: bool = False, delay_s: Callable[[], float] = lambda: 0.001) -> None:
        self.sharded = sharded
        self.delay_s = delay_s
        self.nodes = {home: ScriptedNode(home) for home in homes or ("a",)}
        self.homes: dict[str, str] = {}
        self.table: dict[str, str] = {}
        self.lost_table = False
        self.links: list[ScriptedLink] = []
        self.executed: list[tuple[Any, ...]] = []
        self._callbacks: list[Callable[[], None]] = []

    # --- the script ---------------------------------------------------------------------------------------------------

    def slot(self, channel: str) -> str:
        """Channels of one slot share a hash tag; others have a slot each."""
        return channel.partition("{")[2].partition("}")[0] or channel

    def true_home(self, channel: str) -> str:
        slot = self.slot(channel)
        return self.homes.get(slot) or self._first_home(slot)

    def _first_home(self, slot: str) -> str:
        homes = [*self.nodes]
        return homes[int(slot) % len(homes) if slot.isdigit() else 0]

    def move(self, channel: str, home: str, *, told: bool = False) -> None:
        """Give a channel's slot to another server; `told`: those who ask `feed_home` know at once."""
        old = self.nodes[self.true_home(channel)]
        slot = self.slot(channel)
        self.homes[slot] = home
        if old.home != home and self.sharded:
            for link in old.links:
                for gone in [each for each in link.subscribed if self.slot(each) == slot]:
                    link.subscribed.discard(gone)
                    link.send([b"sunsubscribe", gone.encode(), 0])
        if told:
            self.learn(channel)

    def learn(self, channel: str) -> None:
        slot = self.slot(channel)
        if self.table.get(slot, self._first_home(slot)) != self.true_home(channel):
            self.table[slot] = self.true_home(channel)
            self.change()

    def change(self) -> None:
        for callback in self._callbacks:
            callback()

    def publish(self, channel: str, payload: bytes) -> int:
        if self.sharded:
            return self.nodes[self.true_home(channel)].publish(channel, payload, b"smessage")
        return sum(node.publish(channel, payload, b"message") for node in self.nodes.values())

    # --- Servers ------------------------------------------------------------------------------------------------------

    def feed_home(self, channel: str) -> str:
        if self.lost_table:
            raise BrokerUnavailable("no server of the Cluster answers")
        slot = self.slot(channel)
        return self.table.get(slot) or self._first_home(slot)

    def open_feed(self, home: str, on_pushes: OnPushes) -> ScriptedLink:
        link = ScriptedLink(self, self.nodes[home], on_pushes)
        self.links.append(link)
        return link

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def execute(self, key: str, *command: Any) -> Any:
        self.executed.append(command)
        await trio.sleep(self.delay_s())
        if self.lost_table or not self.nodes[self.feed_home(key)].is_up:
            raise BrokerUnavailable("away")
        self.learn(key)
        node = self.nodes[self.true_home(key)]
        if not node.is_up:
            raise BrokerUnavailable("away")
        with trio.move_on_after(LINK_DEADLINE_S) as scope:
            await node.flow.wait()
        if scope.cancelled_caught:
            raise BrokerUnavailable(f"no answer within {LINK_DEADLINE_S} s")
        verb = command[0] if isinstance(command[0], str) else command[0].decode()
        if verb in {"PUBLISH", "SPUBLISH"}:
            assert (verb == "SPUBLISH") is self.sharded
            reached = self.publish(command[1], command[2])
        else:
            reached = 0
        await trio.sleep(self.delay_s())
        return reached


class _Waiting:
    """A command under way."""

    def __init__(self, verb: str, channels: list[str]) -> None:
        self.verb = verb
        self.channels = channels
        self.done = trio.Event()
        self.outcome: Exception | None = None
