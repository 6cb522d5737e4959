"""The tree of everything that runs: branches own services, services are restarted when they fail.

A branch is a nursery with a name, opened by `open_branch`. A service is a function that runs until it is cancelled; it
is started into a branch and belongs to it. Nothing runs that is not below the one root, and `Branch.snapshot` shows
the whole tree at any time. The tree of a node stands in spec/supervision.md.
"""

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Protocol

import msgspec
import trio

from notifyd.broker.base import Run
from notifyd.clock import Clock
from notifyd.errors import NotifydError
from notifyd.events import Events
from protocol.backoff import CAP_S, Backoff
from protocol.connecting import Connecting, ConnectionState, Trigger

STEADY_S = 30.0
"""A service that served for so long (the longest backoff) has put its earlier failures behind it."""

PATIENT_SPREAD = 0.5
"""A launched service waits for a machine that others wait for, too: at the longest wait they are not to try in step."""

ERROR_CHARACTERS = 300
"""How much of an error's text the tree and the log show."""

_WORST_FIRST = (
    ConnectionState.UNAVAILABLE,
    ConnectionState.BACKING_OFF,
    ConnectionState.CONNECTING,
)


class TreeNode(msgspec.Struct, frozen=True):
    """A branch, a service or a live count, as `GET /v1/tree` shows it.

    `since_ms` (on the wire: `since`) is the Unix time at which `state` began; for a branch, at which it was opened.
    `error` is the last failure in one line and stays after a recovery. `count` is set only for live counts.
    """

    name: str
    state: ConnectionState
    restarts: int
    since_ms: int = msgspec.field(name="since")
    error: str | None = None
    children: tuple["TreeNode", ...] = ()
    count: int | None = None


class Service(Protocol):
    """What a branch can run."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; call `task_status.started()` once it truly serves.

        It is called again after it failed: what it opens, it opens here and closes here.
        """


class ServiceEnded(NotifydError):
    """A service returned, or was stopped before it served, though a service runs until it is cancelled."""


class Branch:
    """A nursery with a name, and the supervisor of the services started into it. Opened by `open_branch`."""

    patient = False
    _nursery: trio.Nursery

    def __init__(self, path: str, events: Events, clock: Clock, longest_wait_s: float) -> None:
        self.path = path
        self.name = _name(path)
        self._events = events
        self._clock = clock
        self._longest_wait_s = longest_wait_s
        self._since_ms = clock.unix_ms()
        self._children: dict[str, _Child] = {}

    async def start(self, name: str, run: Run, *, core: bool = False) -> None:
        """Start a service and wait until it serves.

        What it raises before that is raised here, and nothing stays behind. After that it is restarted with backoff
        each time it fails, for as long as the branch is open. A `core` service is not: its failure ends the branch.

        Cancelled before the service serves, the service is cancelled too; later, it goes on.
        """
        service = self._add_service(name, run, core=core)
        failure: BaseException
        try:
            await self._nursery.start(self._supervise, name, service, name=service.path)
        except BaseException as error:
            self._remove(name, service)
            failure = unwrapped(error)
            if failure is error:
                raise
        else:
            return
        raise failure

    def launch(self, name: str, run: Run) -> None:
        """Start a service without waiting for it: it is run again with backoff from its very first failure on.

        For what depends on a machine that may not be there yet, and without which the node can begin.
        """
        service = self._add_service(name, run, patient=True)
        self._nursery.start_soon(self._supervise_patiently, name, service, name=service.path)

    async def stop(self, name: str) -> None:
        """Cancel a service and wait until it has cleaned up and left the tree.

        Raises LookupError where no such service runs. Cancelled itself, it has cancelled the service all the same.
        """
        service = self._children.get(name)
        if not isinstance(service, _Supervised):
            raise LookupError(f"{self.path} runs no service named {name!r}")
        service.scope.cancel()
        await service.ended.wait()

    def add_count(self, name: str, count: Callable[[], int]) -> None:
        """Show a live number, such as how many connections there are, for as long as this branch is open."""
        self._add(name, _LiveCount(name, count, self._since_ms))

    def snapshot(self) -> TreeNode:
        """Return the branch and all below it as they are now. A branch is in the worst state of those below it.

        What was launched stands last: nobody waits for its beginning, and the order is to be the same each time.
        """
        in_order = sorted(self._children.values(), key=lambda child: child.patient)
        children = tuple(child.snapshot() for child in in_order)
        states = {child.state for child in children}
        state = next((state for state in _WORST_FIRST if state in states), ConnectionState.CONNECTED)
        return TreeNode(self.name, state, 0, self._since_ms, children=children)

    @contextmanager
    def showing(self, child: "Branch") -> Iterator[None]:
        """Show another branch below this one while the block runs. Raises ValueError when the name is taken."""
        self._add(child.name, child)
        try:
            yield
        finally:
            self._remove(child.name, child)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Let services run while the block runs, and end them with it. `open_branch` does this and the rest."""
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            finally:
                self._nursery.cancel_scope.cancel()

    def _add_service(self, name: str, run: Run, *, core: bool = False, patient: bool = False) -> "_Supervised":
        backoff = Backoff(cap_s=self._longest_wait_s, spread=PATIENT_SPREAD if patient else 0.0)
        service = _Supervised(
            f"{self.path}/{name}", run, backoff, self._events, self._clock, core=core, patient=patient
        )
        self._add(name, service)
        return service

    async def _supervise_patiently(self, name: str, service: "_Supervised") -> None:
        await self._supervise(name, service, task_status=trio.TASK_STATUS_IGNORED)

    async def _supervise(self, name: str, service: "_Supervised", *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await service.supervise(task_status)
        finally:
            self._remove(name, service)
            service.ended.set()

    def _add(self, name: str, child: "_Child") -> None:
        if name in self._children:
            raise ValueError(f"{self.path} already has a {name!r}")
        self._children[name] = child

    def _remove(self, name: str, child: "_Child") -> None:
        if self._children.get(name) is child:
            del self._children[name]


@asynccontextmanager
async def open_branch(
    name: str, *, events: Events, clock: Clock, parent: Branch | None = None, longest_wait_s: float = CAP_S
) -> AsyncIterator[Branch]:
    """Open the root of a tree, or a branch below `parent`; its services wait `longest_wait_s` at most to run again.

    Leaving the block cancels the branch's services and waits for them. What ended the branch, be it the failure of a
    core service or an error of the block, is raised as it is when it came alone, else in an ExceptionGroup.
    """
    branch = Branch(f"{parent.path}/{name}" if parent else name, events, clock, longest_wait_s)
    failure: BaseException
    with parent.showing(branch) if parent else nullcontext():
        try:
            async with branch.opened():
                yield branch
        except BaseExceptionGroup as group:
            failure = unwrapped(group)
            if failure is group:
                raise
        else:
            return
        raise failure


class _Supervised:
    """A service and what became of it."""

    def __init__(
        self, path: str, run: Run, backoff: Backoff, events: Events, clock: Clock, *, core: bool, patient: bool
    ) -> None:
        self.path = path
        self._run = run
        self._core = core
        self.patient = patient
        self._events = events
        self._clock = clock
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self._backoff = backoff
        self._steps = Connecting()
        self._has_served = False
        self._serves_since_s = clock.monotonic_s()
        self._restarts = 0
        self._error: str | None = None
        self._take(Trigger.OPEN)

    @property
    def state(self) -> ConnectionState:
        """Where the service stands."""
        return self._steps.state

    async def supervise(self, task_status: trio.TaskStatus[None]) -> None:
        """Run it until `scope` is cancelled, again whenever it fails after it served once; a patient one always."""
        with self.scope:
            await self._run_once(task_status)
            while True:
                await self._back_off()
                await self._run_once(trio.TASK_STATUS_IGNORED)
        if not (self._has_served or self.patient):
            raise ServiceEnded(f"{self.path} was stopped before it served")

    def snapshot(self) -> TreeNode:
        """Return how the service is now."""
        return TreeNode(_name(self.path), self.state, self._restarts, self._since_ms, self._error)

    def serves(self) -> None:
        """Take note that it truly serves from now on."""
        self._has_served = True
        self._serves_since_s = self._clock.monotonic_s()
        self._take(Trigger.ACCEPTED)

    async def _run_once(self, task_status: trio.TaskStatus[None]) -> None:
        """Run it until it fails. `except*`, so that a failure in the middle of a cancellation cannot hide that."""
        try:
            await self._run(task_status=_Started(self, task_status))
            await trio.lowlevel.checkpoint_if_cancelled()
            raise ServiceEnded(f"{self.path} returned, though nothing cancelled it")
        except* Exception as group:
            if self._core or not (self._has_served or self.patient):
                raise
            self._note(unwrapped(group))

    def _note(self, error: BaseException) -> None:
        """Keep and log a failure: one line, and for what notifyd did not foresee, where it came from."""
        self._error = one_line(error)
        foreseen = isinstance(error, NotifydError)
        origin = {} if foreseen else {"traceback": "".join(traceback.format_exception(error))}
        level = "warning" if foreseen and self.patient else "error"
        self._events.log(level, "service_failed", service=self.path, error=self._error, **origin)

    async def _back_off(self) -> None:
        """Wait before the next run: the longer, the more failures in a row."""
        served = self.state is ConnectionState.CONNECTED
        if served and self._clock.monotonic_s() - self._serves_since_s >= STEADY_S:
            self._backoff.reset()
        delay_s = self._backoff.next_delay_s()
        failed = Trigger.FAILED_REPEATEDLY if self._backoff.unavailable else Trigger.FAILED
        self._take(Trigger.LOST if served else failed)
        await trio.sleep(delay_s)
        self._restarts += 1
        self._events.count("service_restarts", service=kind_of(self.path))
        self._take(Trigger.RETRY)

    def _take(self, trigger: Trigger) -> None:
        self._steps.on(trigger)
        self._since_ms = self._clock.unix_ms()


class _Started:
    """The `task_status` a service is given: tells the supervisor, and the first time whoever waits in `start`."""

    def __init__(self, service: _Supervised, waiting: trio.TaskStatus[None]) -> None:
        self._service = service
        self._waiting = waiting

    def started(self, value: None = None) -> None:
        """Say that the service truly serves."""
        self._service.serves()
        self._waiting.started(value)


class _LiveCount:
    """A leaf of the tree that shows a number."""

    state = ConnectionState.CONNECTED
    patient = False

    def __init__(self, name: str, count: Callable[[], int], since_ms: int) -> None:
        self._name = name
        self._count = count
        self._since_ms = since_ms

    def snapshot(self) -> TreeNode:
        """Return the number as it is now."""
        return TreeNode(self._name, self.state, 0, self._since_ms, count=self._count())


_Child = Branch | _Supervised | _LiveCount


def unwrapped(error: BaseException) -> BaseException:
    """Take an error out of the groups it is alone in; a group of several stays a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def one_line(error: BaseException) -> str:
    """Return an error's type and text as one line of bounded length, for the tree and the log."""
    text = " ".join(str(error).split())
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= ERROR_CHARACTERS else line[: ERROR_CHARACTERS - 1] + "…"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def kind_of(path: str) -> str:
    """Tell what kind of service this is, for counting: "redis" of "redis at HOST:PORT", "worker" of "workers/1"."""
    name = _name(path)
    return "worker" if name.isdigit() else name.partition(" ")[0]
