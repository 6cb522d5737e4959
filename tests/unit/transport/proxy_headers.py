"""Builds PROXY headers as the specification writes them down, apart from the code that reads them."""

import socket
import struct

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def binary(command: int, family: int, rest: bytes, *, version: int = 2, announced: int | None = None) -> bytes:
    """A header of version 2; `announced` lies about its length."""
    size = len(rest) if announced is None else announced
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, size) + rest


def addresses(source: str, port: int, target: str = "", target_port: int = 7500) -> bytes:
    """The address block of version 2 for TCP over IPv4 or IPv6."""
    kind = socket.AF_INET6 if ":" in source else socket.AF_INET
    target = target or ("::1" if ":" in source else "127.0.0.1")
    ends = socket.inet_pton(kind, source) + socket.inet_pton(kind, target)
    return ends + struct.pack("!HH", port, target_port)


def proxied(source: str, port: int, extensions: bytes = b"") -> bytes:
    """What a proxy sends for a TCP client, in version 2."""
    return binary(1, 0x21 if ":" in source else 0x11, addresses(source, port) + extensions)


def line(source: str, port: int | str, target: str = "", target_port: int | str = 7500) -> bytes:
    """The same in version 1."""
    kind = "TCP6" if ":" in source else "TCP4"
    target = target or ("::1" if ":" in source else "127.0.0.1")
    return f"PROXY {kind} {source} {target} {port} {target_port}\r\n".encode()


def extension(kind: int, value: bytes) -> bytes:
    """A type, a length, a value."""
    return struct.pack("!BH", kind, len(value)) + value
