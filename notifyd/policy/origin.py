"""Which web pages may connect: the check of a browser's `Origin` header.

A browser does not hold WebSocket connections to the same-origin policy: without this check, any page a user visits
could connect as that user. Source: RFC 6454 sections 6 and 7; RFC 6455 section 10.2.
"""

import re
from collections.abc import Collection, Sequence

ANY = "*"

_HOST = r"\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_.])?"
_SERIALIZED = re.compile(rf"([a-z][a-z0-9+.-]*)://({_HOST})(?::([1-9][0-9]{{0,4}}))?", re.ASCII)
_HOST_HEADER = re.compile(rf"({_HOST})(?::([0-9]{{1,5}}))?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_serialized_origin(text: str) -> bool:
    """Whether a browser could send this Origin: `scheme://host[:port]`, lower case, no default port; or `null`."""
    if text == "null":
        return True
    found = _SERIALIZED.fullmatch(text)
    return found is not None and (found[3] is None or _DEFAULT_PORTS.get(found[1]) != int(found[3]) < 65536)


class OriginPolicy:
    """The origins allowed: those listed, compared exactly; `"*"` any; where None are, those of the same host and port.

    In any case the pages of the same host at `own_ports`, those of the node's own HTTP listener.
    """

    __slots__ = ("_listed", "own_ports")

    def __init__(self, origins: tuple[str, ...] | None, own_ports: Collection[int] = ()) -> None:
        self._listed = None if origins is None else frozenset(origins)
        self.own_ports = own_ports

    def allows(self, origin: str | None, host: str, secure: bool) -> bool:
        """Judge a handshake with this Origin (None: there is none, so it is no browser) and this Host header.

        `secure` says that the handshake came by TLS. A handshake with two Origin headers is not to be asked about
        here: use `allows_headers`.
        """
        if origin is None:
            return True
        return self.lists(origin) or self._is_own(origin, host.lower(), secure)

    def lists(self, origin: str) -> bool:
        """Whether it is allowed by name."""
        return self._listed is not None and (origin in self._listed or ANY in self._listed)

    def allows_headers(self, origins: Sequence[str], host: str, secure: bool) -> bool:
        """Judge a handshake by all its Origin headers: more than one is never allowed (RFC 6454 section 7.3)."""
        if len(origins) > 1:
            return False
        return self.allows(origins[0] if origins else None, host, secure)

    def _is_own(self, origin: str, host: str, secure: bool) -> bool:
        page = _SERIALIZED.fullmatch(origin)
        here = _HOST_HEADER.fullmatch(host)
        if page is None or here is None or not is_serialized_origin(origin) or page[2] != here[1]:
            return False
        scheme = page[1]
        # A page that came without TLS may be anybody's on the way: it does not speak for the host's TLS listener. The
        # other way round is a proxy that ends TLS in front of this node.
        if scheme not in _DEFAULT_PORTS or (secure and scheme != "https"):
            return False
        page_port = int(page[3] or _DEFAULT_PORTS[scheme])
        is_same_port = page_port == int(here[2] or _DEFAULT_PORTS[scheme])
        return (self._listed is None and is_same_port) or page_port in self.own_ports
