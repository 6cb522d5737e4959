"""What can happen between nodes and their Redis: each fault lasts so many seconds, and then is over."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from tests.kit.redis_process import RedisServer
from tests.kit.tcp_proxy import TcpProxy
from tests.reliability.cluster_process import NodeCluster

AGAIN_S = 0.15
"""Between two blows of the same kind."""


@dataclass(frozen=True)
class Scene:
    """Nodes that reach one Redis through a proxy."""

    server: RedisServer
    proxy: TcpProxy
    nodes: NodeCluster


Fault = Callable[[Scene, float], Awaitable[None]]


async def redis_killed(scene: Scene, seconds: float) -> None:
    scene.server.kill()
    await trio.sleep(seconds)
    scene.server.restart()


async def redis_stopped(scene: Scene, seconds: float) -> None:
    """It keeps its connections and says nothing."""
    scene.server.stop_process()
    try:
        await trio.sleep(seconds)
    finally:
        scene.server.continue_process()


async def clients_killed(scene: Scene, seconds: float) -> None:
    """CLIENT KILL in a loop, of those that ask and those that listen."""
    with trio.move_on_after(seconds):
        while True:
            for kind in ("normal", "pubsub"):
                scene.server.kill_clients(kind)
                await trio.sleep(AGAIN_S)


async def partition(scene: Scene, seconds: float) -> None:
    """No byte passes, no connection ends; what was sent comes in the end, if anybody still wants it."""
    scene.proxy.stall()
    await trio.sleep(seconds)
    scene.proxy.resume()


async def connections_cut(scene: Scene, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while True:
            scene.proxy.cut()
            await trio.sleep(AGAIN_S)


async def connections_half_closed(scene: Scene, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while True:
            scene.proxy.half_close("client")
            await trio.sleep(AGAIN_S)
            scene.proxy.half_close("server")
            await trio.sleep(AGAIN_S)


async def bytes_delayed(scene: Scene, seconds: float) -> None:
    scene.proxy.delay_ms, scene.proxy.jitter_ms = 60, 60
    await trio.sleep(seconds)
    scene.proxy.delay_ms = scene.proxy.jitter_ms = 0


async def connections_dropped(scene: Scene, seconds: float) -> None:
    """Who connects gets in and out."""
    scene.proxy.drop()
    scene.proxy.cut()
    await trio.sleep(seconds)
    scene.proxy.allow()


async def connections_refused(scene: Scene, seconds: float) -> None:
    scene.proxy.refuse()
    scene.proxy.cut()
    await trio.sleep(seconds)
    scene.proxy.allow()


async def node_killed(scene: Scene, seconds: float) -> None:
    """One of ours, with all its clients."""
    await scene.nodes.kill(0)
    await trio.sleep(seconds)
    await scene.nodes.restart(0)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        redis_killed,
        redis_stopped,
        clients_killed,
        partition,
        connections_cut,
        connections_half_closed,
        bytes_delayed,
        connections_dropped,
        connections_refused,
        node_killed,
    )
}
