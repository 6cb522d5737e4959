"""Builds a WebSocket client's frames, right and wrong ones, without any of the code under test."""

import struct

MASK = b"\x37\xfa\x21\x3d"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    """XOR the payload with the mask, RFC 6455 section 5.3."""
    repeated = mask * (len(payload) // 4 + 1)
    return (int.from_bytes(payload) ^ int.from_bytes(repeated[: len(payload)])).to_bytes(len(payload))


def length_field(length: int, form: int = 0) -> bytes:
    """The second byte, mask bit set, and the extended length: in the shortest form, or in `form` (1, 2 or 8) bytes."""
    if form in (0, 1) and length < 126:
        return bytes([0x80 | length])
    if form in (0, 2) and length < 0x10000:
        return b"\xfe" + struct.pack(">H", length)
    return b"\xff" + struct.pack(">Q", length)


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, form: int = 0) -> bytes:
    """A masked frame."""
    first = (0x80 if final else 0) | reserved << 4 | opcode
    return bytes([first]) + length_field(len(payload), form) + MASK + masked(payload)


def unmasked(opcode: int, payload: bytes = b"") -> bytes:
    """A frame as a server sends it, which a client may not."""
    data = frame(opcode, payload)
    head_bytes = len(data) - len(payload) - 4
    return data[:1] + bytes([data[1] & 0x7F]) + data[2:head_bytes] + payload
