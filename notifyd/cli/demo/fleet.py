"""The demo's clients, all the shipped one: devices that publish readings over TCP, a subscriber on WebSocket."""

from collections.abc import Mapping
from functools import partial

import trio

from notifyd.cli.demo.board import Board, DeviceRow
from notifyd.cli.demo.readings import Read, describe
from notifyd.client import Client, open_client

PERIOD_S = 1.0
HEARTBEATS_S = (1.0, 2.0, 3.0, 5.0)
"""Short, so that something is seen; the devices take turns with them."""


async def run_fleet(board: Board, host: str, readings: Mapping[str, Read]) -> None:
    """Run a device for each reading, and the subscriber, until cancelled."""
    topics = {name: f"metrics:{host}:{name}" for name in readings}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_subscribe, board, list(topics.values()))
        for place, (name, read) in enumerate(readings.items()):
            row = board.add_device(name, HEARTBEATS_S[place % len(HEARTBEATS_S)])
            nursery.start_soon(_run_device, board, row, topics[name], read)


async def _run_device(board: Board, row: DeviceRow, topic: str, read: Read) -> None:
    url, name, beat = f"device://{board.places.device}", f"demo {row.name}", partial(board.take_beat, row)
    async with (
        open_client(url, client_name=name, heartbeat_s=row.heartbeat_s, on_beat=beat) as device,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_watch, board, row, device)
        while True:
            began_s = trio.current_time()
            reading = read(began_s)
            await device.publish(topic, reading)
            row.last = describe(reading)
            await trio.sleep_until(began_s + PERIOD_S)


async def _watch(board: Board, row: DeviceRow, device: Client) -> None:
    async for state in device.states():
        board.take_state(row, state, device.problem)


async def _subscribe(board: Board, topics: list[str]) -> None:
    async with (
        open_client(board.places.websocket_url, client_name="demo subscriber") as client,
        trio.open_nursery() as nursery,
    ):
        for topic in topics:
            nursery.start_soon(_follow, board, client, topic)


async def _follow(board: Board, client: Client, topic: str) -> None:
    async with client.subscribe(topic, since="earliest") as messages:
        async for event in messages:
            board.take_event(event)
