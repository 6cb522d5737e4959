"""Reads a PROXY header: what a TCP proxy says, before all else, about whom it connects. Versions 1 and 2. No I/O.

The reader says how many bytes it may be given next, and that is never more than the header still has: what follows,
a TLS hello or the first frames, stays in the socket.

Source: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from notifyd.settings import Address

PROXY_HEADER_BYTES = 4096
"""The longest header taken. The addresses need 52 bytes; the rest are extensions that nobody here reads."""

LINE_BYTES = 107
"""The longest header of version 1, its line end included."""

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_BYTES = 16
_SHORTEST_LINE_BYTES = len(b"PROXY UNKNOWN\r\n")
_FIRST = {SIGNATURE[:1]: (SIGNATURE, _FIXED_BYTES), b"P": (b"PROXY ", _SHORTEST_LINE_BYTES)}
_ADDRESSES = re.compile(r"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_IP: dict[str, type[IPv4Address | IPv6Address]] = {"4": IPv4Address, "6": IPv6Address}

_VERSION_2 = 2
_LOCAL, _PROXY = 0, 1
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyHeaderError(Exception):
    """What came is no PROXY header, or not one that a stream's may be. The text is for the log."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Whom the proxy connects. `source` is None where it says nothing, as of a client on a Unix socket.

    `is_local` says that the connection is the proxy's own, such as a check of this listener's health.
    """

    source: Address | None = None
    is_local: bool = False


class ProxyHeaderReader:
    """Collects one header. `wanted_bytes` is the most that may be given next."""

    __slots__ = ("_buffer", "wanted_bytes")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.wanted_bytes = _SHORTEST_LINE_BYTES

    def receive(self, data: bytes) -> ProxyHeader | None:
        """Take the next bytes; return the header once it is complete, None before.

        Raises ProxyHeaderError, and nothing else, at the first byte that no header can have there or, inside the
        addresses, at the header's end.
        """
        self._buffer += data
        start, least_bytes = _FIRST.get(bytes(self._buffer[:1]), (b"", 0))
        if self._buffer[: len(start)] != start[: len(self._buffer)] or not start:
            raise ProxyHeaderError("does not begin with a PROXY header")
        if len(self._buffer) < least_bytes:
            self.wanted_bytes = least_bytes - len(self._buffer)
            return None
        return self._read_binary() if start is SIGNATURE else self._read_line()

    def _read_line(self) -> ProxyHeader | None:
        buffer = self._buffer
        if not buffer.endswith(b"\r\n"):
            if len(buffer) >= LINE_BYTES:
                raise ProxyHeaderError(f"the line is longer than {LINE_BYTES} bytes")
            self.wanted_bytes = 1 if buffer.endswith(b"\r") or len(buffer) == LINE_BYTES - 1 else 2
            return None
        line = buffer[:-2].decode("latin-1")
        if line == "PROXY UNKNOWN" or line.startswith("PROXY UNKNOWN "):
            return ProxyHeader()
        found = _ADDRESSES.fullmatch(line)
        if found is None:
            raise ProxyHeaderError("the line is not of the form: PROXY TCP4 address address port port")
        kind, source, target, source_port, target_port = found.groups()
        try:
            _IP[kind](target)
            address = _address(_IP[kind](source), int(source_port))
        except ValueError:
            raise ProxyHeaderError("the line holds an address of another kind, or none") from None
        if max(address.port, int(target_port)) > 0xFFFF:
            raise ProxyHeaderError("the line holds a port above 65535")
        return ProxyHeader(address)

    def _read_binary(self) -> ProxyHeader | None:
        version_command, family, rest_bytes = struct.unpack_from("!BBH", self._buffer, len(SIGNATURE))
        version, command = version_command >> 4, version_command & 0xF
        if version != _VERSION_2 or command not in (_LOCAL, _PROXY):
            raise ProxyHeaderError(f"version {version} and command {command} are not known")
        if command == _PROXY and (family not in _ADDRESS_BYTES or rest_bytes < _ADDRESS_BYTES[family]):
            raise ProxyHeaderError(f"family {family:#04x} with {rest_bytes} bytes is no stream's address")
        if _FIXED_BYTES + rest_bytes > PROXY_HEADER_BYTES:
            raise ProxyHeaderError(f"the header is longer than {PROXY_HEADER_BYTES} bytes")
        self.wanted_bytes = _FIXED_BYTES + rest_bytes - len(self._buffer)
        if self.wanted_bytes > 0:
            return None
        if command == _LOCAL:
            return ProxyHeader(is_local=True)
        return ProxyHeader(self._source(family))

    def _source(self, family: int) -> Address | None:
        if family == _TCP4:
            source, port = struct.unpack_from("!4s4xH", self._buffer, _FIXED_BYTES)
            return _address(IPv4Address(source), port)
        if family == _TCP6:
            source, port = struct.unpack_from("!16s16xH", self._buffer, _FIXED_BYTES)
            return _address(IPv6Address(source), port)
        return None


def _address(source: IPv4Address | IPv6Address, port: int) -> Address:
    """Name an address as everywhere: one of IPv4 that came by an IPv6 socket is one of IPv4."""
    mapped = source.ipv4_mapped if isinstance(source, IPv6Address) else None
    return Address(str(mapped or source), port)
