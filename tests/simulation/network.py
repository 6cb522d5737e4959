"""A network in virtual time, with everything a network does to a program: delay, stalls, cuts, partitions, silence.

    network = Network(seed=7)
    network.listen("redis", accept)                  # accept(end) is called when somebody dials
    end = await network.dial("n1", "redis")          # raises ConnectionRefusedError where nobody listens
    network.route("n1", "redis").clogged = True      # nothing arrives any more, and nothing is lost
    network.cut("n1", "redis", seen_by={"redis"})    # connections are gone, n1 does not know it yet

Bytes arrive in order, in pieces of any size, after the route's delay. What was under way when a connection was cut is
lost. An `End` is raw; `RedisStream` and `ClientStream` are what the two sides of notifyd take.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from random import Random

import trio

from notifyd.errors import StreamBroken
from notifyd.transport.stream import RECEIVE_BYTES

CAPACITY_BYTES = 64 * 1024
"""What one direction holds before its sender has to wait, as the kernels' buffers do."""

UNBOUNDED_BYTES = 2**40


class Gone(Exception):
    """The connection does not exist any more."""


class Route:
    """What lies between two hosts. Changing `clogged` or `delay_s` takes effect at once.

    `clear_since_s` is when it was last clogged.
    """

    def __init__(self, delay_s: float = 0.001, jitter_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.changed = trio.lowlevel.ParkingLot()
        self.clear_since_s = 0.0
        self._clogged = False

    @property
    def clogged(self) -> bool:
        """Whether nothing gets through, in either direction; new connections wait too."""
        return self._clogged

    @clogged.setter
    def clogged(self, value: bool) -> None:
        if self._clogged and not value:
            self.clear_since_s = trio.current_time()
        self._clogged = value
        self.changed.unpark_all()


class _Direction:
    """The bytes from one end to the other. Each of the two may know that the connection is gone, or not yet."""

    def __init__(self, route: Route, random: Random, capacity_bytes: int) -> None:
        self.sender_knows = False
        self.receiver_knows = False
        self.void = False
        self._route = route
        self._random = random
        self._capacity_bytes = capacity_bytes
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._last_due_s = -inf
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def has_room(self) -> bool:
        return self._held_bytes < self._capacity_bytes

    def due_s(self) -> float:
        """Return when something that leaves now arrives."""
        jitter_s = self._random.random() * self._route.jitter_s
        self._last_due_s = max(self._last_due_s, trio.current_time() + self._route.delay_s + jitter_s)
        return self._last_due_s

    def push(self, data: bytes) -> int:
        """Take what there is room for; b"" is the end. Raises Gone."""
        if self.sender_knows:
            raise Gone
        taken = data[: max(0, self._capacity_bytes - self._held_bytes)]
        if not self.void and (taken or not data):
            self._held_bytes += len(taken)
            self._chunks.append((self.due_s(), taken))
            self._changed.unpark_all()
        return len(taken)

    async def take(self, max_bytes: int) -> bytes:
        """Wait for bytes, b"" at the end. Raises Gone."""
        await trio.lowlevel.checkpoint()
        while not self.receiver_knows:
            due_s = self._chunks[0][0] if self._chunks else inf
            if self._route.clogged:
                await self._route.changed.park()
            elif due_s <= trio.current_time():
                return self._pop(max_bytes)
            else:
                with trio.move_on_at(due_s):
                    await self._changed.park()
        raise Gone

    def _pop(self, max_bytes: int) -> bytes:
        due_s, chunk = self._chunks[0]
        if not chunk:
            return b""
        size = min(max_bytes, len(chunk))
        if size > 1 and self._random.random() < 0.1:
            size = self._random.randrange(1, size)
        if size == len(chunk):
            self._chunks.popleft()
        else:
            self._chunks[0] = (due_s, chunk[size:])
        self._held_bytes -= size
        self._changed.unpark_all()
        return chunk[:size]

    async def wait_room(self) -> None:
        """Wait until `push` takes something. Raises Gone."""
        await trio.lowlevel.checkpoint()
        while not self.sender_knows and not self.has_room:
            await self._changed.park()
        if self.sender_knows:
            raise Gone

    def lose(self) -> None:
        """Lose everything under way, and all that is sent from now on."""
        self.void = True
        self._chunks.clear()
        self._held_bytes = 0
        self.wake()

    def wake(self) -> None:
        """Let who waits look again."""
        self._changed.unpark_all()
        self._route.changed.unpark_all()


@dataclass(eq=False)
class End:
    """One side of a connection."""

    host: str
    peer: str
    network: "Network"
    incoming: _Direction
    outgoing: _Direction
    other: "End | None" = None
    closed: bool = False
    unseen_cut: bool = False

    def send_now(self, data: bytes) -> int:
        """Send as much as there is room for. Raises Gone."""
        if self.closed:
            raise Gone
        if self.unseen_cut and data:  # the peer's kernel knows no such connection, and says so
            self.network.later(self.outgoing.due_s(), self.break_)
        return self.outgoing.push(data)

    def break_(self) -> None:
        """Let this side know that the connection is gone."""
        self.incoming.receiver_knows = self.outgoing.sender_knows = True
        self.incoming.wake()
        self.outgoing.wake()

    def close(self) -> None:
        """Close this side: the other one reads the end behind what was sent."""
        if self.closed:
            return
        self.closed = True
        with suppress(Gone):
            self.outgoing.push(b"")
        self.break_()
        self.incoming.lose()
        if self.other is not None:
            self.other.unseen_cut = True
        self.network.forget(self)


@dataclass
class Network:
    """All hosts and what is between them."""

    seed: int
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self._routes: dict[tuple[str, str], Route] = {}
        self._listeners: dict[str, Callable[[End], None]] = {}
        self._ends: dict[End, None] = {}
        self._buried: set[str] = set()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let things happen later, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def later(self, due_s: float, act: Callable[[], None]) -> None:
        """Do something at this time."""

        async def wait() -> None:
            await trio.sleep_until(due_s)
            act()

        assert self._nursery is not None
        self._nursery.start_soon(wait)

    def route(self, one: str, other: str) -> Route:
        """Return what is between two hosts."""
        names = (min(one, other), max(one, other))
        if names not in self._routes:
            self._routes[names] = Route()
        return self._routes[names]

    def direction(self, source: str, target: str, capacity_bytes: int = CAPACITY_BYTES) -> _Direction:
        """Make one direction of a connection."""
        return _Direction(self.route(source, target), self.random, capacity_bytes)

    def listen(self, host: str, accept: Callable[[End], None]) -> None:
        """Let a host accept connections: `accept` gets its end of each and returns at once."""
        self._listeners[host] = accept

    def refuse(self, host: str) -> None:
        """Let a host refuse connections."""
        self._listeners.pop(host, None)

    def bury(self, host: str) -> None:
        """Let nothing come from a host any more: whoever runs there is dead and does not know it."""
        self._buried.add(host)

    async def dial(self, source: str, target: str, *, target_capacity_bytes: int = UNBOUNDED_BYTES) -> End:
        """Connect two hosts. Raises ConnectionRefusedError; waits for as long as the route is clogged.

        `target_capacity_bytes` is what the target may send ahead of the source's reading.
        """
        route = self.route(source, target)
        await trio.sleep(2 * route.delay_s)
        while route.clogged:
            await route.changed.park()
        accept = self._listeners.get(target)
        if accept is None or source in self._buried:
            raise ConnectionRefusedError(f"{target} refuses connections")
        there = self.direction(source, target)
        back = self.direction(target, source, target_capacity_bytes)
        near, far = End(source, target, self, back, there), End(target, source, self, there, back)
        near.other, far.other = far, near
        self._ends[near] = self._ends[far] = None
        accept(far)
        return near

    def forget(self, end: End) -> None:
        """Drop an end that was closed."""
        self._ends.pop(end, None)

    def connections_of(self, host: str, peer: str | None = None) -> list[End]:
        """Return a host's own ends, the oldest first; those to one peer only, where it is named."""
        return [end for end in self._ends if end.host == host and peer in (None, end.peer)]

    def cut(self, host: str, peer: str | None = None, *, seen_by: set[str] | None = None) -> int:
        """Destroy a host's connections (to one peer); return how many.

        `seen_by`: the hosts that know it at once (None: all); another one learns it when it sends something.
        """
        ends = self.connections_of(host, peer)
        for end in ends:
            self.cut_connection(end, seen_by=seen_by)
        return len(ends)

    def cut_connection(self, end: End, *, seen_by: set[str] | None = None) -> None:
        """Destroy one connection."""
        for side in (end, end.other):
            assert side is not None
            self.forget(side)
            side.outgoing.lose()
            if seen_by is None or side.host in seen_by:
                side.break_()
            else:
                side.unseen_cut = True


class RedisStream(trio.abc.Stream):
    """An `End` as the Redis link takes it."""

    def __init__(self, end: End) -> None:
        self.end = end

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = bytes(data)
        await trio.lowlevel.checkpoint()
        try:
            while rest := rest[self.end.send_now(rest) :]:
                await self.end.outgoing.wait_room()
        except Gone:
            raise self._failure() from None

    async def wait_send_all_might_not_block(self) -> None:
        try:
            await self.end.outgoing.wait_room()
        except Gone:
            raise self._failure() from None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return await self.end.incoming.take(max_bytes or RECEIVE_BYTES)
        except Gone:
            raise self._failure() from None

    async def aclose(self) -> None:
        self.end.close()
        await trio.lowlevel.checkpoint()

    def _failure(self) -> Exception:
        closed = self.end.closed
        return trio.ClosedResourceError("closed here") if closed else trio.BrokenResourceError("the network cut it")


class ClientStream:
    """An `End` as a node's client connections take it: a `notifyd.transport.stream.ByteStream`."""

    has_unsent = False

    def __init__(self, end: End) -> None:
        self.end = end
        self.peer = end.peer
        self.local = end.host

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        try:
            return await self.end.incoming.take(max_bytes)
        except Gone:
            raise StreamBroken("the connection is gone") from None

    def send_now(self, data: bytes | memoryview) -> int:
        try:
            return self.end.send_now(bytes(data))
        except Gone:
            raise StreamBroken("the connection is gone") from None

    async def wait_writable(self) -> None:
        try:
            await self.end.outgoing.wait_room()
        except Gone:
            raise StreamBroken("the connection is gone") from None

    async def finish(self, deadline_s: float) -> None:
        try:
            with trio.move_on_after(deadline_s), suppress(Gone):
                self.end.outgoing.push(b"")
                while await self.end.incoming.take(RECEIVE_BYTES):
                    pass
        finally:
            self.close()

    def close(self) -> None:
        self.end.close()
