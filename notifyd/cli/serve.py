"""`notifyd serve`: one process that is a node, or with `node.workers` several, each a node."""

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer

from notifyd.cli.configuration import ConfigOption
from notifyd.cli.service_manager import ServiceManager
from notifyd.settings.types import LogLevel

if TYPE_CHECKING:
    from pathlib import Path

    from notifyd.node import Node
    from notifyd.settings import Layers
    from notifyd.telemetry import Telemetry

GARBAGE_THRESHOLDS = (10_000, 1, 50)
"""When Python looks for cycles of garbage (gc.set_threshold), in place of (700, 10, 10): a connection is some hundred
objects that stay, which were looked at again and again while many came. What ends is freed by its references, without
this; one pass takes ten milliseconds at most, but for those over everything, one in a million objects more."""

AddressOption = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Listen here instead; '' is off.")]


def serve(
    config: ConfigOption = None,
    websocket: AddressOption = None,
    device: AddressOption = None,
    http: AddressOption = None,
    log: Annotated[LogLevel | None, typer.Option(help="The least level to log, instead of [log] level.")] = None,
    *,
    worker: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a node. SIGTERM and SIGINT drain it (a second one stops it at once), SIGHUP reloads the configuration."""
    from notifyd.cli.configuration import read_layers
    from notifyd.telemetry import Telemetry

    gc.set_threshold(*GARBAGE_THRESHOLDS)
    if worker is not None:
        from notifyd.cli.workers.worker import run_worker

        raise typer.Exit(trio.run(run_worker))
    overrides = {"listen.websocket": websocket, "listen.device": device, "listen.http": http, "log.level": log}
    layers = read_layers(config, overrides)
    settings = layers.build()
    telemetry = Telemetry(settings.log.level, form=settings.log.format)
    raise_descriptor_limit(telemetry)
    manager = ServiceManager(os.environ)
    if settings.node.workers > 1:
        from notifyd.cli.workers.parent import run_workers

        read = partial(_read_again, telemetry, config, overrides)
        trio.run(
            partial(
                run_workers,
                layers,
                telemetry,
                manager,
                command=worker_command,
                read=read,
                figures=telemetry.snapshot,
            )
        )
    else:
        trio.run(run_until_signal, layers, telemetry, manager, config, overrides)


def _read_again(telemetry: "Telemetry", config: "Path | None", overrides: dict[str, Any]) -> "Layers":
    """Read the configuration for the workers, and let what it says of the log hold for their parent as well."""
    from notifyd.cli.configuration import read_layers

    layers = read_layers(config, overrides)
    log = layers.build().log
    telemetry.set_level(log.level)
    telemetry.set_format(log.format)
    return layers


def worker_command(number: int) -> list[str]:
    """Return the command that starts a worker: Python and notifyd as they were started for this process.

    The number is there for whoever looks at the processes; all else a worker is told by its parent.
    """
    own_arguments = len(sys.argv) - 1
    python = sys.orig_argv[1 : len(sys.orig_argv) - own_arguments]
    return [sys.executable, *python, "serve", "--worker", str(number)]


async def run_until_signal(
    layers: "Layers",
    telemetry: "Telemetry",
    manager: ServiceManager,
    config: "Path | None",
    overrides: dict[str, Any],
) -> None:
    """Run a node until it is told to stop and has drained. Raises what keeps it from starting."""
    from notifyd.node import open_node

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with open_node(layers, telemetry=telemetry) as node, trio.open_nursery() as nursery:
            telemetry.log("info", "serving", node=node.settings.node.name, **_addresses(node))
            await manager.tell(READY=1, STATUS="serving")
            nursery.start_soon(_obey, signals, node, manager, config, overrides)
            nursery.start_soon(manager.beat, trio.lowlevel.checkpoint, partial(_status, node))
            await node.wait_drained()
            nursery.cancel_scope.cancel()
        telemetry.log("info", "stopped")


async def _obey(
    signals: AsyncIterator[int],
    node: "Node",
    manager: ServiceManager,
    config: "Path | None",
    overrides: dict[str, Any],
) -> None:
    """Do what the signals say. Returns when a second one asks to stop at once."""
    async with trio.open_nursery() as draining:
        async for number in signals:
            if number == signal.SIGHUP:
                async with manager.reloading():
                    reload(node, config, overrides)
            elif node.draining:
                node.telemetry.log("warning", "stopping_at_once")
                node.stop()
            else:
                drain_s = node.settings.node.drain_s
                node.telemetry.log("info", "draining", window_s=drain_s)
                await manager.tell_stopping(drain_s)
                draining.start_soon(node.drain)


def reload(node: "Node", config: "Path | None", overrides: dict[str, Any]) -> None:
    """Read the configuration again and let the node take over what can change while it runs. Errors change nothing."""
    from notifyd.cli.configuration import read_layers
    from notifyd.errors import ConfigurationError

    try:
        fixed = node.reload(read_layers(config, overrides))
    except ConfigurationError as error:
        node.telemetry.log("error", "reload_refused", problem=str(error))
        return
    node.telemetry.log("info", "reloaded", needs_restart=fixed)


def raise_descriptor_limit(telemetry: "Telemetry") -> None:
    """Allow as many descriptors as the system lets us have: every client is one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    telemetry.log("info", "descriptor_limit", limit=hard, before=soft)


def _status(node: "Node") -> str:
    return f"{'draining' if node.draining else 'serving'}, connections: {len(node.context.connections)}"


def _addresses(node: "Node") -> dict[str, str]:
    addresses = {"websocket": node.websocket_address, "device": node.device_address, "http": node.http_address}
    return {name: str(address) for name, address in addresses.items() if address is not None}
