"""What a client was opened with."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

import trio

from notifyd import __version__
from notifyd.client.address import ServerAddress
from notifyd.client.dialing import DialNode
from protocol.framing import Encoding
from protocol.liveness import DEFAULT_FLOOR_S, DEFAULT_INTERVAL_S
from protocol.messages import ClientInfo

CONNECT_TIMEOUT_S = 10.0
"""From the first packet to `connected`: as long as a server waits for `connect`."""


DEFAULT_CLIENT = ClientInfo(name="notifyd", version=__version__)


def ignore_beat(round_trip_s: float) -> None:
    """Do nothing with a heartbeat's round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The parameters of `open_client`, explained there."""

    address: ServerAddress
    encoding: Encoding
    heartbeat_s: float = DEFAULT_INTERVAL_S
    floor_s: float = DEFAULT_FLOOR_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    client: ClientInfo = DEFAULT_CLIENT
    ssl_context: ssl.SSLContext | None = None
    give_up: bool = False
    on_beat: Callable[[float], None] = ignore_beat
    dial: DialNode = trio.open_tcp_stream
