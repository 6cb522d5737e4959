"""Reads back what a server wrote, in each of its four forms, without the server's code for it."""

import json
from typing import Any

import msgspec

from protocol.framing import Form
from tests.kit.clients import server_frame


class FrameReader:
    """Takes a server's bytes as they come. `frames` has every whole one, `rest` what is not whole yet.

    A message is its object, a heartbeat the pair of its type and timestamp, a WebSocket control frame the pair of its
    opcode and payload.
    """

    def __init__(self, form: Form) -> None:
        self.frames: list[Any] = []
        self.rest = bytearray()
        self._form = form

    def receive(self, data: bytes) -> None:
        self.rest += data
        take = self._take_frame if self._form.is_device else self._take_message
        while size_bytes := take():
            del self.rest[:size_bytes]

    def _take_frame(self) -> int:
        size_bytes = 16 + int.from_bytes(self.rest[13:16], "big")
        if len(self.rest) < max(size_bytes, 16):
            return 0
        self.frames.append(_read_frame(bytes(self.rest[:size_bytes])))
        return size_bytes

    def _take_message(self) -> int:
        taken = server_frame(self.rest)
        if taken is None:
            return 0
        opcode, payload, size_bytes = taken
        if opcode == 1:
            self.frames.append(json.loads(payload))
        else:
            self.frames.append(_read_frame(payload) if opcode == 2 else (opcode, payload))
        return size_bytes


def read_frames(form: Form, data: bytes) -> list[Any]:
    """Return everything in `data`; fails unless it ends with a whole frame."""
    reader = FrameReader(form)
    reader.receive(data)
    assert not reader.rest, "the stream ends inside a frame"
    return reader.frames


def _read_frame(data: bytes) -> Any:
    assert data[:4] == b"HEAR"
    kind, timestamp_ms, payload = data[4], int.from_bytes(data[5:13], "big"), data[16:]
    if kind < 2:
        return (kind, timestamp_ms)
    return json.loads(payload) if kind == 2 else msgspec.msgpack.decode(payload)
