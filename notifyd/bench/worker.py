"""A load process: one epoll loop over all its links. `python -m notifyd.bench.worker`, told what to do on stdin.

It knows nothing of Trio: a task for each of some thousand clients would make the load its own bottleneck. It ends when
its stdin does, so that it never outlives its parent.
"""

import gc
import os
import resource
import select
import signal
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec

from notifyd.bench.counting import Arrivals
from notifyd.bench.dialect import Dialect
from notifyd.bench.histogram import LatencyHistogram
from notifyd.bench.inbox import LinkEnded
from notifyd.bench.links import LoadLink
from notifyd.bench.orders import TICK_S, Cue, LoadPlan, LoadSnapshot, LoadStep
from notifyd.bench.payload import PublishRequest
from notifyd.bench.roles import CountingLink
from notifyd.bench.scenarios import work_of
from notifyd.bench.work import Work

TICK_NS = int(TICK_S * 1e9)
OPEN_NS = 30_000_000_000
"""How long a link may take until it is open, or has what it missed."""

_MOST_EVENTS = 64
"""Sockets served before it looks at the time: each may have a buffer full, and epoll has the others wait in turn."""

_PIPE_BYTES = 65536


class LoadWorker:
    """The loop, and what its links share: the buffer, the requests, the counts."""

    def __init__(self, plan: LoadPlan, commands: int, snapshots: int) -> None:
        load = plan.load
        self.plan = plan
        self.is_device = plan.target.transport == "device"
        self.dialect = Dialect(plan.target.transport, load.encoding)
        self.upgrade = self.dialect.upgrade(plan.target.authority, plan.target.path)
        self.tls = ssl.create_default_context() if plan.target.is_secure else None
        self.arrivals = Arrivals(seed=plan.number)
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.exhausted: str | None = None
        self.connections = 0
        self.errors: Counter[str] = Counter()
        self.step: LoadStep | None = None
        self.work: Work = work_of(self)
        self._links: dict[int, LoadLink] = {}
        self._requests: dict[int, PublishRequest] = {}
        self._epoll = select.epoll()
        self._commands, self._snapshots = commands, snapshots
        self._unread = b""
        self._cues: deque[Cue] = deque()
        self._to_open: deque[LoadLink] = deque()
        self._opening = 0
        self._owed = 0
        self._deadlines: deque[tuple[int, LoadLink, int]] = deque()
        self._next_tick_ns = 0
        self._was_done = False
        self._is_over = False
        os.set_blocking(commands, False)
        self._epoll.register(commands, select.EPOLLIN)
        self.handlers[commands] = self._read_commands

    # --- for links ----------------------------------------------------------------------------------------------------

    def watch(self, link: LoadLink, handler: Callable[[int], None], mask: int) -> None:
        """Call `handler` when the link's socket is ready for what `mask` says."""
        assert link.socket is not None
        descriptor = link.socket.fileno()
        if descriptor in self.handlers:
            self._epoll.modify(descriptor, mask)
        else:
            self._epoll.register(descriptor, mask)
        self.handlers[descriptor] = handler
        self._links[descriptor] = link

    def forget(self, descriptor: int) -> None:
        """Watch a socket no longer that is about to be closed."""
        if self.handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
            del self._links[descriptor]

    def publish_request(self, topic: int) -> PublishRequest:
        """Return the request that publishes on a topic; it is made once."""
        request = self._requests.get(topic)
        if request is None:
            request = PublishRequest(self.dialect, self.plan.topic(topic), self.plan.load.payload_bytes)
            self._requests[topic] = request
        return request

    def opened(self, link: LoadLink) -> None:
        """Note that a link is open."""
        self.connections += 1
        self._opening -= 1
        if self.step is LoadStep.CONNECT:
            self._owed -= 1
        self.work.opened(link)

    def made_whole(self, link: LoadLink) -> None:
        """Note that a link has everything that it missed."""
        self._owed -= 1
        self.work.made_whole(link)

    def failed(self, link: LoadLink, kind: str, *, was_open: bool) -> None:
        """Note that a link came to its end."""
        self.errors[kind] += 1
        self.connections -= was_open
        self._opening -= not was_open
        is_owed = not was_open or (isinstance(link, CountingLink) and link.missing > 0)
        self._owed -= is_owed and self.step in (LoadStep.CONNECT, LoadStep.RECOVER)

    # --- steps --------------------------------------------------------------------------------------------------------

    def open_all(self, links: Sequence[LoadLink]) -> None:
        """Open these links: so many at a time, or at the rate."""
        self._to_open.extend(links)
        self._owed += len(links)

    def cut(self, links: Sequence[LoadLink]) -> None:
        """Reset these links."""
        for link in links:
            self.connections -= link.is_open
            link.reset()

    @property
    def is_opening(self) -> bool:
        """Whether links wait for their turn to open."""
        return bool(self._to_open)

    @property
    def is_done(self) -> bool:
        """Whether the last step's goal is reached."""
        return not self._owed and self.work.is_settled

    def _read_commands(self, _mask: int) -> None:
        data = os.read(self._commands, _PIPE_BYTES)
        self._is_over = not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        self._cues.extend(msgspec.json.decode(line, type=Cue) for line in lines)

    def _begin(self, command: Cue, now_ns: int) -> None:
        self.step = command.step if command.step is not LoadStep.MEASURE else self.step
        self._was_done = False
        self.work.begin(command.step, now_ns)
        self._report(now_ns)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until stdin ends."""
        self._next_tick_ns = (time.monotonic_ns() // TICK_NS + 1) * TICK_NS
        while not self._is_over:
            self._step()

    def _step(self) -> None:
        handlers = self.handlers
        for descriptor, mask in self._wait():
            handler = handlers.get(descriptor)
            if handler is None:
                continue
            try:
                handler(mask)
                if self.tls is not None:
                    self._drain(descriptor)
            except (LinkEnded, OSError) as failure:
                self._links[descriptor].fail(failure)
        now_ns = time.monotonic_ns()
        if self._cues and self._cues[0].at_ns <= now_ns:
            self._begin(self._cues.popleft(), now_ns)
        self._open_some(now_ns)
        self.work.advance(now_ns)
        self._end_late(now_ns)
        if now_ns >= self._next_tick_ns or self.is_done is not self._was_done:
            self._report(now_ns)

    def _wait(self) -> list[tuple[int, int]]:
        """Wait until something is to be done. Schedules need better than the milliseconds of epoll_wait(2)."""
        due_ns = self.work.next_ns
        known_ns = min(self._next_tick_ns, self._cues[0].at_ns) if self._cues else self._next_tick_ns
        wait_s = ((known_ns if due_ns is None else min(due_ns, known_ns)) - time.monotonic_ns()) / 1e9
        if due_ns is None:
            return self._epoll.poll(max(0.0, wait_s), _MOST_EVENTS)
        if wait_s > 0:
            select.select([self._epoll.fileno()], [], [], wait_s)
        return self._epoll.poll(0, _MOST_EVENTS)

    def _drain(self, descriptor: int) -> None:
        """Have a link read what TLS has decrypted already: epoll does not know of it."""
        link = self._links.get(descriptor)
        while link is not None and isinstance(link.socket, ssl.SSLSocket) and link.socket.pending():
            self.handlers[descriptor](select.EPOLLIN)

    def attempt(self, link: LoadLink, act: Callable[[int], None], time_ns: int) -> None:
        """Let a link do something outside of its turn; what goes wrong ends it."""
        try:
            act(time_ns)
        except (LinkEnded, OSError) as failure:
            link.fail(failure)

    def _open_some(self, now_ns: int) -> None:
        while self._to_open and (began_ns := self.work.may_open(self._opening, now_ns)) is not None:
            link = self._to_open.popleft()
            self._opening += 1
            self._deadlines.append((now_ns + OPEN_NS, link, began_ns))
            self.attempt(link, link.start, began_ns)

    def _end_late(self, now_ns: int) -> None:
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            _, link, began_ns = self._deadlines.popleft()
            is_whole = link.is_open and not (isinstance(link, CountingLink) and link.missing)
            if link.socket is not None and link.began_ns == began_ns and not is_whole:
                link.fail(LinkEnded("timeout"))

    # --- telling ------------------------------------------------------------------------------------------------------

    def _report(self, now_ns: int) -> None:
        self._was_done = self.is_done
        if now_ns >= self._next_tick_ns:
            self._next_tick_ns = (now_ns // TICK_NS + 1) * TICK_NS
            self.arrivals.adapt(TICK_S)
        work = self.work
        snapshot = LoadSnapshot(
            at_ns=now_ns,
            step=self.step,
            is_done=self._was_done,
            is_measuring=work.is_measuring,
            connections=self.connections,
            operations=work.operations,
            arrived=self.arrivals.count,
            expected=work.expected,
            last_ns=work.last_ns,
            sent=work.sent,
            late=0 if work.schedule is None else work.schedule.late,
            histogram=self.arrivals.histogram,
            errors=dict(self.errors),
            cpu_s=time.process_time(),
            exhausted=self.exhausted,
        )
        data = memoryview(msgspec.json.encode(snapshot) + b"\n")
        while data:
            data = data[os.write(self._snapshots, data) :]

    def forget_latencies(self) -> None:
        """Count latencies from here on."""
        self.arrivals.histogram = LatencyHistogram()


def run_worker_process() -> None:
    """Read the plan, do as told until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # nothing here makes circles, and a collection over all links is a pause
    commands = sys.stdin.fileno()
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(commands, 1)
        if not data:
            return
        line += data
    LoadWorker(msgspec.json.decode(line, type=LoadPlan), commands, sys.stdout.fileno()).run()


if __name__ == "__main__":
    run_worker_process()
