"""What the demo has seen so far: its devices, their heartbeats, the latest messages."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import trio

from protocol.connecting import ConnectionState
from protocol.messages import Gap, Joined, Left, Message

RECENT_MESSAGES = 10
WAITING_LINES = 1000
"""Lines that may wait for a slow reader; later ones are left out."""


@dataclass(slots=True)
class DeviceRow:
    """One device as it is shown. Times in seconds."""

    name: str
    heartbeat_s: float
    state: ConnectionState = ConnectionState.DISCONNECTED
    round_trip_s: float | None = None
    beats: int = 0
    last: str = ""


class Places(NamedTuple):
    """Where the demo can be looked at."""

    websocket_url: str
    device: str
    console_url: str
    command: str


@dataclass(slots=True)
class Board:
    """Everything that is shown. With `lines`, each event is also told there as a line."""

    places: Places
    devices: dict[str, DeviceRow] = field(default_factory=dict)
    recent: deque[Message] = field(default_factory=lambda: deque(maxlen=RECENT_MESSAGES))
    messages: int = 0
    beats: int = 0
    note: str = ""
    lines: trio.MemorySendChannel[str] | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    def add_device(self, name: str, heartbeat_s: float) -> DeviceRow:
        """Show another device."""
        row = self.devices[name] = DeviceRow(name, heartbeat_s)
        return row

    def take_state(self, row: DeviceRow, state: ConnectionState, problem: str | None) -> None:
        """Note that a device's connection changed its state."""
        if state is row.state:
            return
        row.state = state
        reason = f" ({problem})" if state in (ConnectionState.BACKING_OFF, ConnectionState.UNAVAILABLE) else ""
        self.tell(f"device     {row.name}: {state.value}{reason}")

    def take_beat(self, row: DeviceRow, round_trip_s: float) -> None:
        """Note a heartbeat's round trip."""
        row.round_trip_s = round_trip_s
        row.beats += 1
        self.beats += 1
        self.tell(f"heartbeat  {row.name}: round trip {round_trip_s * 1000:.2f} ms, every {row.heartbeat_s:g} s")

    def take_event(self, event: Message | Gap | Joined | Left) -> None:
        """Note what the subscriber got."""
        if isinstance(event, Message):
            self.messages += 1
            self.recent.append(event)
            self.tell(f"message    {event.topic} #{event.offset} {to_json(event.data)}")
        elif isinstance(event, Gap):
            self.tell(f"gap        {event.topic} #{event.first} to #{event.last}: {event.reason}")

    def say(self, note: str) -> None:
        """Show a remark."""
        self.note = note
        self.tell(note)

    def tell(self, line: str) -> None:
        """Queue a line where lines are wanted."""
        if self.lines is not None:
            try:
                self.lines.send_nowait(line)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def end(self) -> None:
        """Let whoever shows the board show the rest and return."""
        self.ended.set()
        if self.lines is not None:
            self.lines.close()

    def welcome(self) -> list[str]:
        """Return the lines that say where to look."""
        return [
            f"WebSocket  {self.places.websocket_url}",
            f"Devices    {self.places.device}",
            f"Console    {self.places.console_url}",
            f"Try        {self.places.command}",
        ]


def to_json(data: object) -> str:
    """Write data as one line of JSON."""
    return msgspec.json.encode(data).decode()
