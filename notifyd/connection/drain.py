"""Letting all clients go in order: each is told when to move, none is cut off in a crowd.

Source: spec/wire.md, "goaway".
"""

import trio

from notifyd.connection.connection import Connection
from notifyd.connection.connections import Connections
from protocol.errors import CloseCode
from protocol.messages import GoAway


async def drain(connections: Connections, window_s: float) -> None:
    """Tell every client to reconnect elsewhere within `window_s` seconds, and close those that stay, evenly spread.

    Returns when all are closed or closing, at once when none is left. Cancelled, the rest stays open.
    """
    waiting = list(connections)
    for connection in waiting:
        _say_goodbye(connection, window_s)
    began_s, total = trio.current_time(), len(waiting)
    for closed, connection in enumerate(waiting):
        with trio.move_on_at(began_s + window_s * (closed + 1) / total):
            await connections.wait_empty()
            break
        connection.end(CloseCode.RESTART, "the node shuts down")


def _say_goodbye(connection: Connection, window_s: float) -> None:
    if connection.subscriber is None:
        connection.end(CloseCode.RESTART, "the node shuts down")
        return
    connection.send(GoAway(reason="shutdown", after=0.0, within=window_s))
    connection.outbox.flush()
