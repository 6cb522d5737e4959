"""One worker as the parent sees it: a service that is run again when its process dies."""

import pickle
import signal
from collections.abc import Callable, Sequence

import trio

from notifyd.cli.workers.channel import (
    Alive,
    AllFigures,
    AskFigures,
    Channel,
    Drain,
    Failed,
    Figures,
    Order,
    Probe,
    Reload,
    Report,
    Serving,
    Start,
    Stop,
    TellFigures,
)
from notifyd.cli.workers.figures import WorkerFigures
from notifyd.errors import NotifydError
from notifyd.events import Events
from notifyd.settings import Layers
from notifyd.telemetry.snapshot import Snapshot

STOP_S = 10.0
"""What a worker that was told to end at once gets before it is killed: its clients' last bytes may take 5 s of it."""

LATE_SIGNAL_S = 0.5
"""Who stops a service may signal all of its processes (systemd does): a worker may end before its parent is told."""

ORDERS = 64
"""Orders that wait for a worker. One that does not take them hangs, and is killed when the node ends."""


class WorkerFailed(NotifydError):
    """A worker's process ended, or did not come to serve."""


class WorkerProcess:
    """The process of one worker, and the next one where it died. `command` starts it with the channel as its stdin.

    `problem` tells, once the worker `ended`, what did not go well with its end. `on_ask` is called when it was asked
    for the figures of the node; `tell_all` answers it.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        layers: Layers,
        events: Events,
        *,
        on_ask: Callable[["WorkerProcess"], None],
    ) -> None:
        self.number = number
        self.figures = WorkerFigures()
        self._on_ask = on_ask
        self.ended = trio.Event()
        self.problem: str | None = None
        self._command = command
        self._layers = layers
        self._node = layers.build().node.name
        self._events = events
        self._draining = trio.Event()
        self._orders, self._next_orders = trio.open_memory_channel[Order](ORDERS)
        self._process: trio.Process | None = None
        self._runs = False
        self._served = False
        self._answered = trio.Event()
        self._converses = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the process and watch it. Raises WorkerFailed when it ends before it is told to.

        Cancelled, the process is told to end at once, and killed where it does not.
        """
        if self._draining.is_set():
            await trio.sleep_forever()
        self._runs = True
        try:
            await self._run_process(task_status)
        finally:
            self._runs = False
            if self._draining.is_set():
                self.ended.set()
        await trio.sleep_forever()

    def reload(self, layers: Layers) -> None:
        """Let these layers hold, for this process and for any that replaces it."""
        self._layers = layers
        self._tell(Reload(pickle.dumps(layers)))

    def ask(self) -> trio.Event:
        """Probe the process if it is alive; return the event of its answer, or of its end; past where none serves."""
        self._answered = trio.Event()
        if self._runs and self._served:
            self._tell(Probe())
        else:
            self._answered.set()
        return self._answered

    def drain(self) -> None:
        """Let the process drain and end; none replaces it."""
        self._draining.set()
        self._tell(Drain())
        if not self._runs:
            self.ended.set()

    def stop(self) -> None:
        """Let the process end at once."""
        self._tell(Stop())

    async def ask_figures(self) -> bool:
        """Have the worker tell its `figures`; False where it does not, or does not serve."""
        if self._converses and self.figures.ask():
            self._tell(TellFigures())
        return await self.figures.wait() and self._converses

    def tell_all(self, figures: Snapshot) -> None:
        """Tell the worker what it was asked: the figures of all."""
        self._tell(AllFigures(figures))

    def kill(self) -> None:
        """End the process, which would not end by itself."""
        if self._process is not None and self._process.returncode is None:
            self.problem = f"{self._title} did not end in time and was killed"
            self._process.kill()

    @property
    def _title(self) -> str:
        return f"worker {self.number}" + (f" (process {self._process.pid})" if self._process else "")

    def _tell(self, order: Order) -> None:
        if self._runs:
            try:
                self._orders.send_nowait(order)
            except trio.WouldBlock:
                self._events.log("warning", "worker_takes_no_orders", worker=self.number)

    async def _run_process(self, task_status: trio.TaskStatus[None]) -> None:
        self._process, self._served = None, False
        self._orders, self._next_orders = trio.open_memory_channel[Order](ORDERS)
        ours, theirs = trio.socket.socketpair()
        async with trio.SocketStream(ours) as stream:
            with theirs:
                try:
                    self._process = process = await trio.lowlevel.open_process(self._command, stdin=theirs)
                except OSError as error:
                    raise WorkerFailed(f"{self._title} cannot be started: {error.strerror}") from None
            channel = Channel[Report](stream, Report)
            try:
                problem = await self._converse(channel, task_status)
            finally:
                self._converses = False
                self.figures.forget_process()
                await _end(process, channel)
                self._answered.set()
        await self._judge(process.returncode or 0, problem)

    async def _converse(self, channel: Channel[Report], task_status: trio.TaskStatus[None]) -> str | None:
        """Give the worker its orders, hear its reports until it is gone; return the problem it told of."""
        problem = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_orders, channel)
            async for report in channel:
                match report:
                    case Failed():
                        problem = report.problem
                    case Serving():
                        self._note_serving()
                        task_status.started()
                    case Alive():
                        self._answered.set()
                    case Figures():
                        self.figures.tell(report.figures)
                    case AskFigures():
                        self._on_ask(self)
            nursery.cancel_scope.cancel()
        return problem

    async def _give_orders(self, channel: Channel[Report]) -> None:
        await channel.send(Start(self.number, pickle.dumps(self._layers)))
        async for order in self._next_orders:
            await channel.send(order)

    def _note_serving(self) -> None:
        self._served = self._converses = True
        process = self._process.pid if self._process else None
        self._events.log("info", "worker_serving", worker=self.number, node=self._node, process=process)

    async def _judge(self, code: int, problem: str | None) -> None:
        """Return when the process was to end; keep what was wrong with that. Raises WorkerFailed when it was not."""
        if code in (0, -signal.SIGTERM, -signal.SIGINT):
            with trio.move_on_after(LATE_SIGNAL_S):
                await self._draining.wait()
        problem = problem or f"{self._title} {_ending(code)}{'' if self._served else ' before it served'}"
        if not self._draining.is_set():
            raise WorkerFailed(problem)
        if code and self._served and self.problem is None:
            self.problem = problem


def _ending(code: int) -> str:
    """Tell how a process ended, by its exit code or, below zero, by a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


async def _end(process: trio.Process, channel: Channel[Report]) -> None:
    """Let a process end that may run, and kill it when it takes too long. Not cancelled in between."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(STOP_S):
            await channel.send(Stop())
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
