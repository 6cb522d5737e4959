"""A worker: a node that gets its settings and its orders from the parent, and ends when the parent is gone."""

import pickle
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

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
    Serving,
    Start,
    Stop,
    TellFigures,
    parents_stream,
)
from notifyd.errors import ConfigurationError, NotifydError, first_of
from notifyd.node import Node, open_node
from notifyd.settings import Layers, LogFormat
from notifyd.telemetry import Telemetry
from notifyd.telemetry.exposition import write_exposition
from notifyd.telemetry.snapshot import NOTHING, Snapshot
from protocol.errors import ErrorCode, RequestError

FIGURES_S = 2.0
"""What the parent gets to ask all workers: four times what it gives to each of them."""

_ENDED_WELL = 0
_FAILED = 1


async def run_worker() -> int:
    """Be a worker until told to end; return the exit code. Raises NotifydError where no parent started this process.

    What keeps it from serving, or ends it, is told to the parent, which tells it to people, once.
    """
    async with parents_stream() as stream:
        channel = Channel[Order](stream, Order)
        start = await channel.receive()
        if not isinstance(start, Start):
            return _FAILED  # the parent has gone already
        problem: str | None = None
        try:
            await Worker(channel, start).run()
        except* NotifydError as group:
            problem = str(first_of(group))
        if problem is None:
            return _ENDED_WELL
        await channel.send(Failed(problem))
        return _FAILED


class Worker:
    """The node in this process, and whoever tells it what to do.

    It may be told twice, by its parent and by who signals every process of a service or of a terminal: a signal begins
    a drain and does nothing more; it is the parent that knows of a second one.
    """

    def __init__(self, channel: Channel[Order], start: Start) -> None:
        self._channel = channel
        self._layers: Layers = pickle.loads(start.layers)
        settings = self._layers.build()
        self._drain_s = settings.node.drain_s
        log = settings.log
        self._telemetry = WorkerTelemetry(log.level, log.format, settings.node.name, self._ask_figures)
        self._node: Node | None = None
        self._figures = NOTHING
        self._told = trio.Event()

    async def run(self) -> None:
        """Serve until told to end. Raises what keeps the node from serving."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._obey_parent)
                self._nursery.start_soon(self._obey_signals, signals)
                await self._serve()
                self._nursery.cancel_scope.cancel()

    async def _serve(self) -> None:
        layers = self._layers
        async with open_node(layers, telemetry=self._telemetry) as node:
            self._node = node
            if self._layers is not layers:  # there were newer ones while it started
                self._reload(node)
            await self._channel.send(Serving())
            await node.wait_drained()
        self._telemetry.log("info", "stopped")

    async def _obey_parent(self) -> None:
        async for order in self._channel:
            match order:
                case Reload():
                    self._layers = pickle.loads(order.layers)
                    if self._node is not None:
                        self._reload(self._node)
                case Probe():
                    await self._channel.send(Alive())
                case Drain():
                    self._drain()
                case Stop():
                    self._stop()
                case TellFigures():
                    await self._channel.send(Figures(self._telemetry.snapshot()))
                case AllFigures():
                    self._figures = order.figures
                    self._told.set()
                    self._told = trio.Event()
        self._telemetry.log("warning", "parent_gone")
        self._stop()

    async def _obey_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number != signal.SIGHUP:  # settings come from the parent
                self._drain()

    async def _ask_figures(self) -> Snapshot:
        """Have the parent ask all workers. Raises RequestError 503 where it does not answer.

        A part of the figures would be worse than none: counters that run backwards look like a restart.
        """
        told = self._told
        self._nursery.start_soon(self._channel.send, AskFigures())  # not cut short where whoever asks goes away
        with trio.move_on_after(FIGURES_S) as patience:
            await told.wait()
        if patience.cancelled_caught:
            raise RequestError(ErrorCode.UNAVAILABLE, "the other workers of this node could not be asked")
        return self._figures

    def _reload(self, node: Node) -> None:
        try:
            node.reload(self._layers)
        except ConfigurationError as error:
            self._telemetry.log("error", "reload_refused", problem=str(error))
        else:
            self._telemetry.log("info", "reloaded")

    def _drain(self) -> None:
        if self._node is None:
            self._stop()
        elif not self._node.draining:
            self._telemetry.log("info", "draining", window_s=self._drain_s)
            self._nursery.start_soon(self._node.drain)

    def _stop(self) -> None:
        if self._node is None:
            self._nursery.cancel_scope.cancel()
        else:
            self._node.stop()


class WorkerTelemetry(Telemetry):
    """Telemetry whose log lines say which worker wrote them, and whose metrics are those of all workers.

    `ask_figures` returns these, or raises RequestError.
    """

    def __init__(self, level: str, form: LogFormat, node: str, ask_figures: Callable[[], Awaitable[Snapshot]]) -> None:
        super().__init__(level, form=form)
        self._node = node
        self._ask_figures = ask_figures

    async def scrape(self) -> bytes:
        """Write the metrics of the node: of all of its workers."""
        return write_exposition(await self._ask_figures())

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write one structured line; `level` is debug, info, warning or error."""
        super().log(level, event, **{"node": self._node, **fields})
