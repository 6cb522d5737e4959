"""Whose address a connection has when a proxy made it: believed from proxies that are trusted, from nobody else.

Every proxy appends to `X-Forwarded-For` the address that it was connected from, behind what its own client claims. So
the list is read from its end, for as long as whoever wrote an entry is trusted.

Source: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For; spec/operating.md, "Addresses".
"""

import ipaddress
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from notifyd.settings import Address, Network

UNKNOWN = "unknown"
"""In place of an address, where a trusted proxy does not tell one: trusted nowhere, and of no machine."""

FORWARDING_HEADERS = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)
"""Headers (lower case) that programs send only for somebody else: one of them shows that a proxy is in between."""

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def ip_of(text: str) -> IpAddress | None:
    """Read the address of `1.2.3.4`, `1.2.3.4:80`, `::1` or `[::1]:80`; None where there is none.

    An IPv4 address that came by an IPv6 socket (`::ffff:1.2.3.4`) is read as what it is.
    """
    host = _without_port(text)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _without_port(text: str) -> str:
    bracketed = text.startswith("[")
    if not bracketed and text.count(":") != 1:
        return text
    try:
        return Address.parse(text if ":" in text.rpartition("]")[2] else f"{text}:0").host
    except ValueError:
        return ""


def is_among(peer: str, networks: Collection[Network]) -> bool:
    """Whether a peer, an address with or without a port, lies in one of these networks."""
    if not networks:
        return False
    address = ip_of(peer)
    return address is not None and any(address in network for network in networks)


def client_of(peer: str, forwarded_for: Sequence[str], trusted: Collection[Network]) -> str:
    """Return the last address that nobody trusted has written: the client's, as near as it can be known.

    `forwarded_for` are the values of all `X-Forwarded-For` headers in their order. Where they come from a stranger, or
    there are none, the client is the peer. UNKNOWN is the answer where a trusted proxy wrote what is no address.
    """
    return _way(peer, forwarded_for, trusted)[-1]


def _way(peer: str, forwarded_for: Sequence[str], trusted: Collection[Network]) -> list[str]:
    """List the peer, then whom each on the way was connected from, as far as they are trusted."""
    hops = [hop for value in forwarded_for for part in value.split(",") if (hop := part.strip(" \t"))]
    way = [peer]
    while hops and is_among(way[-1], trusted):
        way.append(_canonical(hops.pop()))
    return way


def _canonical(hop: str) -> str:
    address = ip_of(hop)
    return UNKNOWN if address is None or "%" in hop else str(address)  # a zone is of the proxy's machine, and free text


def is_local(peer: str, names: Iterable[str], forwarded_for: Sequence[str], trusted: Collection[Network]) -> bool:
    """Whether a request was made on this machine, so far as can be told. `names` are its headers', in lower case.

    A request that shows signs of a proxy is local only where a trusted one says so: behind any other, the client may
    be anywhere. So it may behind a proxy on another machine, and behind what is trusted for being in a network of such:
    all on the way have to be here.
    """
    way = _way(peer, forwarded_for, trusted)
    if len(way) == 1 and not FORWARDING_HEADERS.isdisjoint(names):
        return False
    addresses = map(ip_of, way)
    return all(address is not None and address.is_loopback for address in addresses)
