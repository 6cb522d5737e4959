"""A client in a simulation: wants topics, publishes until it is answered, comes back whatever happens.

It speaks over the simulated network with a node's device listener. What it hears goes to the oracle in the very order
in which it came: replies are judged by the reader, not by the task that asked.
"""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import trio

from notifyd.errors import StreamBroken
from tests.kit.clients import DeviceClient, Ended
from tests.simulation.network import ClientStream, End, Network
from tests.simulation.oracle import Oracle, Place
from tests.simulation.plan import DURABLE, Plan

HANG_S = 5.0
CONNECT_HANG_S = 15.0
"""A request not answered for so long, though the network works, hangs: the broker's deadline is below a second.

A `connect` asks for the session, its owner, and each of its topics.
"""

CONNECT_S = 3.0
PING_S = 2.0
SURE_S = 1.0
"""An acknowledgement of that age is saved, whatever became of its node, if Redis could be reached meanwhile."""

Message = dict[str, Any]
Then = Callable[[Message], None]


class Wire(DeviceClient):
    """A device link that may be cut in the middle of a frame; the node itself ends it between two."""

    stream: ClientStream

    def _judge_end(self) -> Ended:
        if self.stream.end.incoming.receiver_knows:
            return Ended(None, None)
        return super()._judge_end()


class Conversation:
    """One connection of a client."""

    def __init__(self, client: "SimClient", end: End, node: str) -> None:
        self.client = client
        self.node = node
        self.is_up = False
        self.over = trio.Event()
        self.subscribed: set[str] = set()
        self._end = end
        self._wire = Wire(ClientStream(end), client.plan.encoding)
        self._pending: dict[int, tuple[trio.Event, Then]] = {}
        self._replies: dict[int, Message] = {}
        self._to_acknowledge: dict[str, Place] = {}
        self._work = trio.Event()

    async def run(self) -> None:
        """Connect, subscribe, and go on until the connection ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, nursery.cancel_scope)
            if await self._connect():
                nursery.start_soon(self._keep_alive)
                nursery.start_soon(self._acknowledge)
                await self.client.serve(self)
            else:
                self.end()

    def end(self) -> None:
        """End it from this side, without a word."""
        self._end.close()

    async def ask(self, op: str, then: Then = lambda _: None, **fields: Any) -> Message | None:
        """Send a request and return its reply; `then` gets it the moment it arrives. None: the connection ended."""
        began_s = trio.current_time()
        request_id = self._wire.next_id()
        answered = trio.Event()
        self._pending[request_id] = (answered, then)
        try:
            if not self.over.is_set():
                await self._wire.send({"op": op, "id": request_id, **fields})
                with trio.move_on_after(CONNECT_HANG_S if op == "connect" else HANG_S) as waiting:
                    await answered.wait()
                if waiting.cancelled_caught:
                    self._judge_silence(op, fields, began_s)
                    self.end()
        except StreamBroken:
            self.end()
        finally:
            self._pending.pop(request_id, None)
        return self._replies.pop(request_id, None)

    def _judge_silence(self, op: str, fields: Message, began_s: float) -> None:
        route = self._end.network.route(self.client.name, self.node)
        is_heard = self._end.other is not None and not self._end.unseen_cut and not self._end.other.unseen_cut
        if is_heard and not route.clogged and route.clear_since_s <= began_s:
            story = f"{self.client.name} asked {self.node} {began_s:g}: {op} {fields}"
            self.client.oracle.break_("every request is answered, or its connection ends", story)

    async def _connect(self) -> bool:
        client, fields = self.client, {}
        if client.session:
            fields["session"] = client.session
            if not client.plan.acknowledges:
                fields["positions"] = {topic: to_wire(place) for topic, place in client.positions().items()}
        reply = await self.ask("connect", client.take_connected(self, fields.get("positions")), heartbeat=5, **fields)
        return reply is not None and reply["op"] == "connected"

    def acknowledge_soon(self, topic: str, place: Place) -> None:
        """Let a task acknowledge a message."""
        self._to_acknowledge[topic] = place
        self._work.set()

    async def _acknowledge(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._to_acknowledge:
                topic, place = self._to_acknowledge.popitem()
                reply = await self.ask("ack", topic=topic, offset=place[1])
                if reply is not None and reply["op"] == "acked":
                    self.client.note_acknowledged(topic, place)

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep(PING_S)
            await self.ask("ping")

    async def _read(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                message = await self._wire.receive()
                self.client.log("hears", message)
                asked = self._pending.get(message.get("id", 0))
                if asked is None:
                    self.client.take_push(self, message)
                else:
                    self._replies[message["id"]] = message
                    asked[1](message)
                    asked[0].set()
        except EOFError as error:
            self._judge_end(error.args[0])
        finally:
            self.over.set()
            for answered, _ in self._pending.values():
                answered.set()
            scope.cancel()

    def _judge_end(self, ended: Any) -> None:
        self.client.log("ended", {"code": ended.code})
        if ended.code in (4000, 4001, 4003, 1011):
            self.client.oracle.break_("a client that keeps the rules is kept", f"{self.client.name}: {ended}")


def to_wire(place: Place) -> Message:
    """Write a place as requests have it."""
    return {"epoch": place[0], "offset": place[1]}


def place_of(message: Message) -> Place | None:
    """Read the place of a message or reply; None without history."""
    return (message["epoch"], message["offset"]) if "epoch" in message else None


class SimClient:
    """A client across its connections. `home` is the number of the node it tries next."""

    def __init__(self, number: int, plan: Plan, *, nodes: int, network: Network, oracle: Oracle, log: Any) -> None:
        self.name = f"c{number}"
        self.plan = plan.clients[number]
        self._is_calm = plan.is_calm
        self.network = network
        self.oracle = oracle
        self.home = number % nodes
        self.session = ""
        self.resumed = False
        self.retired = False
        self.wanted: dict[str, str] = dict.fromkeys(self.plan.topics, "latest")
        self.conversation: Conversation | None = None
        self._nodes = nodes
        self._log = log
        self._random = Random(number)
        self._published = 0
        self._acked: dict[str, list[tuple[float, Place]]] = {}
        self._changed = trio.Event()

    def log(self, what: str, about: Any) -> None:
        self._log(self.name, what, about)

    # --- connecting ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be connected, again and again, until it is retired."""
        while not self.retired:
            await self._live_once()
            await trio.sleep(self._random.uniform(0.05, 0.4))

    async def _live_once(self) -> None:
        node = f"n{self.home}"
        end: End | None = None
        with trio.move_on_after(CONNECT_S), suppress(ConnectionRefusedError):
            end = await self.network.dial(self.name, node)
        if end is None:
            self.home = (self.home + 1) % self._nodes
            return
        self.conversation = conversation = Conversation(self, end, node)
        try:
            await conversation.run()
        finally:
            end.close()
            self.conversation = None

    def move(self, to: int, *, fresh: bool = False, silent: bool = False) -> None:
        """Leave, and come back elsewhere; `silent`: the node left is not told."""
        self.home = to % self._nodes
        if fresh:
            self.session = ""
        if self.conversation is not None and silent:
            self.network.cut(self.name, seen_by={self.name})
        elif self.conversation is not None:
            self.conversation.end()

    def positions(self) -> dict[str, Place]:
        """Return where the client stands on durable topics."""
        heard = [self.oracle.listening(self.name, topic) for topic in DURABLE]
        return {one.topic: one.last for one in heard if one.is_open and one.last is not None}

    def take_connected(self, conversation: Conversation, positions: Any) -> Then:
        """Return what to do with the answer to `connect`."""
        now_s = trio.current_time()

        def take(message: Message) -> None:
            if message["op"] != "connected":
                return
            self.session, self.resumed = message["session"], message["resumed"]
            conversation.is_up = True
            for topic, told in message.get("topics", {}).items():
                given = (positions or {}).get(topic)
                acked = [place for at_s, place in self._acked.get(topic, []) if self._is_saved(at_s, now_s)]
                conversation.subscribed.add(topic)
                self.oracle.resume(
                    self.oracle.listening(self.name, topic),
                    place_of(told),
                    told.get("recovered"),
                    None if given is None else (given["epoch"], given["offset"]),
                    acked[-1] if acked else None,
                )
            if not self.resumed:
                self._acked.clear()

        return take

    def _is_saved(self, acked_s: float, now_s: float) -> bool:
        return acked_s + SURE_S <= now_s and self._is_calm(acked_s, acked_s + SURE_S)

    def note_acknowledged(self, topic: str, place: Place) -> None:
        """The node has taken an acknowledgement."""
        self._acked.setdefault(topic, []).append((trio.current_time(), place))

    # --- subscribing --------------------------------------------------------------------------------------------------

    async def serve(self, conversation: Conversation) -> None:
        """Keep what is subscribed equal to what is wanted, until cancelled."""
        while True:
            self._changed = trio.Event()
            settled = True
            for topic in [*sorted(conversation.subscribed - set(self.wanted))]:
                settled &= await self._unsubscribe(conversation, topic)
            for topic in [topic for topic in self.wanted if topic not in conversation.subscribed]:
                settled &= await self._subscribe(conversation, topic)
            with trio.move_on_after(1e9 if settled else 0.7):
                await self._changed.wait()

    def want(self, topic: str, since: str) -> None:
        """Want a topic from now on."""
        self.wanted.setdefault(topic, since)
        self._changed.set()

    def unwant(self, topic: str) -> None:
        """Want it no longer."""
        self.wanted.pop(topic, None)
        self._changed.set()

    @property
    def standing(self) -> str:
        """Tell where it stands, for people."""
        one = self.conversation
        where = "not connected" if one is None else f"on {one.node}, {sorted(one.subscribed)} subscribed"
        return f"{where}, wants {sorted(self.wanted)}, resumed: {self.resumed}"

    @property
    def is_settled(self) -> bool:
        """Whether it is connected and has all it wants."""
        return self.conversation is not None and self.conversation.subscribed == set(self.wanted)

    async def _subscribe(self, conversation: Conversation, topic: str) -> bool:
        known = self.oracle.listening(self.name, topic).last if topic in DURABLE else None
        since: Any = self.wanted.get(topic, "latest") if known is None else to_wire(known)

        def take(message: Message) -> None:
            if message["op"] == "subscribed":
                asked = known if known is not None else since
                self.oracle.subscribe(self.name, topic, asked, place_of(message), message.get("recovered"))
                conversation.subscribed.add(topic)

        return self._accepts(await conversation.ask("subscribe", take, topic=topic, since=since))

    async def _unsubscribe(self, conversation: Conversation, topic: str) -> bool:
        def take(message: Message) -> None:
            if message["op"] == "unsubscribed":
                self.oracle.close(self.name, topic)
                self._acked.pop(topic, None)
                conversation.subscribed.discard(topic)

        return self._accepts(await conversation.ask("unsubscribe", take, topic=topic))

    def _accepts(self, reply: Message | None) -> bool:
        """Judge a reply: True for a good one, False where it is to be tried again."""
        if reply is not None and reply["op"] == "error" and reply["code"] not in (503, 504):
            self.oracle.break_("a right request is not refused", f"{self.name}: {reply}")
        return reply is not None and reply["op"] != "error"

    # --- what comes ---------------------------------------------------------------------------------------------------

    def take_push(self, conversation: Conversation, message: Message) -> None:
        """Take what nobody asked for."""
        op, topic = message["op"], message.get("topic", "")
        if op == "message":
            place = place_of(message)
            self.oracle.deliver(self.name, topic, place, message["data"])
            if place is not None and self.plan.acknowledges and self._random.random() < 0.6:
                conversation.acknowledge_soon(topic, place)
        elif op == "gap":
            one = self.oracle.listening(self.name, topic)
            self.oracle.gap(one, message.get("epoch", ""), message["from"], message["to"], message["reason"])
        elif op == "unsubscribed":
            self.oracle.break_("nobody is unsubscribed unasked", f"{self.name}: {message}")

    # --- publishing and reading ---------------------------------------------------------------------------------------

    async def publish(self, topic: str, *, keyed: bool = True, echo: bool = True) -> str:
        """Publish a message: with a key until it is acknowledged, without one once. Returns its data."""
        self._published += 1
        data = f"{self.name}-{self._published}"
        fields: Message = {"topic": topic, "data": data} | ({"key": data} if keyed else {})
        if not echo:
            fields["echo"] = False
            self.oracle.listening(self.name, topic).unechoed.add(data)

        def take(message: Message) -> None:
            if message["op"] == "published":
                self.oracle.acknowledge(self.name, topic, place_of(message), data)

        while True:
            conversation = self.conversation
            if conversation is not None and conversation.is_up:
                self.oracle.attempt(data)
                reply = await conversation.ask("publish", take, **fields)
                if self._accepts(reply) or not keyed:
                    return data
            await trio.sleep(0.3)

    async def read(self, topic: str) -> None:
        """Ask for a history once."""

        def take(message: Message) -> None:
            if message["op"] == "history":
                entries = [(place_of(entry), entry["data"]) for entry in message["messages"]]
                self.oracle.read(self.name, topic, [(place, data) for place, data in entries if place is not None])

        if self.conversation is not None and self.conversation.is_up:
            self._accepts(await self.conversation.ask("history", take, topic=topic))

    async def presence(self, topic: str) -> set[str] | None:
        """Ask who is there; None where that cannot be told now."""
        reply = None if self.conversation is None else await self.conversation.ask("presence", topic=topic)
        if reply is None or reply["op"] == "error":
            return None
        return {member["session"] for member in reply["members"]}
