"""The parent of a node's workers: it holds their ports, keeps them running, and passes on what its operator says."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import trio

from notifyd.cli.service_manager import ServiceManager
from notifyd.cli.workers.figures import NodeFigures
from notifyd.cli.workers.process import STOP_S, WorkerProcess
from notifyd.cli.workers.share import Share
from notifyd.clock import Clock
from notifyd.errors import ConfigurationError, NotifydError
from notifyd.events import Events
from notifyd.listeners.accept import address_of, reserve
from notifyd.settings import FIXED_SECTIONS, Address, Layers, ListenSettings
from notifyd.supervision import Branch, open_branch
from notifyd.telemetry.snapshot import NOTHING, Snapshot

MARGIN_S = 10.0
"""What a worker gets beyond the drain window before it is killed: its last clients may take 5 s of it."""

LISTENERS = ("websocket", "device", "http")

WorkerCommand = Callable[[int], Sequence[str]]
"""Returns the command that starts the worker of a number."""


class WorkersFailed(NotifydError):
    """The workers did not all end well."""


async def run_workers(
    layers: Layers,
    events: Events,
    manager: ServiceManager,
    *,
    command: WorkerCommand,
    read: Callable[[], Layers],
    figures: Callable[[], Snapshot] = lambda: NOTHING,
) -> None:
    """Run the workers of a node until it is told to stop and all have drained. `read` reads the layers again.

    `figures` returns what this process has counted itself.

    Raises ListenError before the first worker is started; WorkerFailed, in an ExceptionGroup, when one does not come to
    serve; and WorkersFailed when in the end one had to be killed, or ended by an error.
    """
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        reserved(layers.build().listen) as addresses,
    ):
        workers = Workers(layers, addresses, events, command=command, figures=figures)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, workers, events, manager, read)
            nursery.start_soon(_report, workers, manager)
            await workers.run()
            nursery.cancel_scope.cancel()
        if problems := workers.problems():
            raise WorkersFailed("; ".join(problems))
        events.log("info", "stopped")


async def _obey(
    signals: AsyncIterator[int],
    workers: "Workers",
    events: Events,
    manager: ServiceManager,
    read: Callable[[], Layers],
) -> None:
    """Do what the signals say."""
    async for number in signals:
        if number == signal.SIGHUP:
            async with manager.reloading():
                try:
                    workers.reload(read())
                except ConfigurationError as error:
                    events.log("error", "reload_refused", problem=str(error))
        elif workers.draining:
            events.log("warning", "stopping_at_once")
            workers.stop()
        else:
            await manager.tell_stopping(workers.drain_s)
            workers.drain()


async def _report(workers: "Workers", manager: ServiceManager) -> None:
    """Tell the service manager that the workers serve, and from then on that all of them live."""
    await workers.serving.wait()
    await manager.tell(READY=1, STATUS=workers.status())
    await manager.beat(workers.answer, workers.status)


@contextmanager
def reserved(listen: ListenSettings) -> Iterator[dict[str, Address]]:
    """Hold the address of every listener while the block runs, so that workers can come and go; yield the real ones.

    Held is not listened on: while no worker listens, clients are refused. Raises ListenError.
    """
    with ExitStack() as held:
        addresses = {}
        for name in LISTENERS:
            address: Address | None = getattr(listen, name)
            if address is not None:
                addresses[name] = address_of(held.enter_context(reserve(address, f"listen.{name}")))
        yield addresses


class Workers:
    """All workers of a node. `addresses` are those held for its listeners."""

    def __init__(
        self,
        layers: Layers,
        addresses: dict[str, Address],
        events: Events,
        *,
        command: WorkerCommand,
        figures: Callable[[], Snapshot] = lambda: NOTHING,
    ) -> None:
        self.draining = False
        self.serving = trio.Event()
        self._settings = settings = layers.build()
        self._addresses = addresses
        self._events = events
        self._workers = [
            WorkerProcess(number, command(number), self._share(layers, number), events, on_ask=self._ask)
            for number in range(1, settings.node.workers + 1)
        ]
        self._figures = NodeFigures(self._workers, figures)
        self._starting = trio.CancelScope()
        self._drained = trio.Event()
        self._patience = trio.CancelScope()

    async def run(self) -> None:
        """Run them until `drain` is through. Raises what keeps one of the first from serving."""
        async with open_branch("workers", events=self._events, clock=Clock()) as branch:
            await branch.start("figures", self._figures.run)
            with self._starting:
                await self._start(branch)
            await self._drained.wait()
            with self._patience:
                await self._wait_ended()
            for worker in self._workers:
                worker.kill()
            await self._wait_ended()

    @property
    def drain_s(self) -> float:
        """Over how many seconds their clients leave."""
        return self._settings.node.drain_s

    def drain(self) -> None:
        """Let all drain at the same time. Those that do not serve yet end at once."""
        self._events.log("info", "draining", window_s=self.drain_s)
        self.draining = True
        self._patience.deadline = trio.current_time() + self.drain_s + MARGIN_S
        for worker in self._workers:
            worker.drain()
        self._starting.cancel()
        self._drained.set()

    def stop(self) -> None:
        """Let those that drain end at once."""
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + STOP_S)
        for worker in self._workers:
            worker.stop()

    def reload(self, layers: Layers) -> None:
        """Let the workers take over what can change while they run, and log what cannot."""
        settings = layers.build()
        fixed = [name for name in FIXED_SECTIONS if getattr(self._settings, name) != getattr(settings, name)]
        for worker in self._workers:
            worker.reload(self._share(layers, worker.number))
        self._events.log("info", "reloaded", needs_restart=fixed)

    def _share(self, layers: Layers, number: int) -> Layers:
        return layers.adapted(Share(self._settings, number, self._addresses))

    async def answer(self) -> None:
        """Wait until every worker that serves has shown that it is alive: one that hangs keeps us waiting."""
        for answered in [worker.ask() for worker in self._workers]:
            await answered.wait()

    def status(self) -> str:
        """Tell, in words, what they do."""
        return f"{'draining' if self.draining else 'serving'}, workers: {len(self._workers)}"

    def problems(self) -> list[str]:
        """Tell, in words, what was wrong with the end of each."""
        return [worker.problem for worker in self._workers if worker.problem]

    def _ask(self, asker: WorkerProcess) -> None:
        self._figures.ask(asker)

    async def _start(self, branch: Branch) -> None:
        """Start the first alone: what keeps it from serving would keep all, and is to be told once."""
        first, *others = self._workers
        await branch.start(str(first.number), first.run)
        async with trio.open_nursery() as nursery:
            for worker in others:
                nursery.start_soon(branch.start, str(worker.number), worker.run)
        node = self._settings.node
        addresses = {name: str(address) for name, address in self._addresses.items()}
        self._events.log("info", "serving", node=node.name, workers=node.workers, **addresses)
        self.serving.set()

    async def _wait_ended(self) -> None:
        for worker in self._workers:
            await worker.ended.wait()
