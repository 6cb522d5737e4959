"""What a task is called: the service that it belongs to, the client it serves, and where it stands."""

from collections.abc import Iterable, Iterator

import trio

from notifyd.connection.connection import Connection
from notifyd.telemetry.catalogue import OTHER


def service_of(task: trio.lowlevel.Task) -> str:
    """Return the path of the service that a task runs in, such as `node/hub/fanout`; `other` where it is in none.

    Services are what the tree of supervision starts; it calls their tasks by their paths, and only those have a slash.
    """
    tasks = (task, *(nursery.parent_task for nursery in _nurseries_around(task)))
    return next((each.name for each in tasks if "/" in each.name), OTHER)


def connection_of(task: trio.lowlevel.Task, connections: Iterable[Connection]) -> str | None:
    """Return the id of the connection that a task serves; None where it serves none. Looks through all of them."""
    nurseries = {*task.child_nurseries, *_nurseries_around(task)}
    return next((each.id for each in connections if getattr(each, "nursery", None) in nurseries), None)


def place_of(task: trio.lowlevel.Task) -> str | None:
    """Return where a task waits, as the innermost function that is not Trio's, with its line; None when it is over."""
    places = [
        (str(frame.f_globals.get("__name__")), frame.f_code.co_qualname, line)
        for frame, line in task.iter_await_frames()
    ]
    return next(
        (f"{module}.{name}:{line}" for module, name, line in reversed(places) if not f"{module}.".startswith("trio.")),
        None,
    )


def _nurseries_around(task: trio.lowlevel.Task) -> Iterator[trio.Nursery]:
    nursery = task.parent_nursery
    while nursery is not None:
        yield nursery
        nursery = nursery.parent_task.parent_nursery
