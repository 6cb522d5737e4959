"""Asking the servers of a Cluster which slots they believe to be served by whom, and what to make of it."""

import contextlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import trio

from notifyd.broker.redis.link import LinkLost
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.asking import ask_once
from notifyd.broker.redis.topology.base import Command
from notifyd.broker.redis.topology.linking import Linking
from notifyd.broker.redis.topology.members import DOWN, ClusterMember
from notifyd.broker.redis.topology.slots import SlotView, read_slots
from notifyd.errors import BrokerUnavailable

MOST_ASKED = 5
"""How many servers are asked for the table at once: enough that one with an old view is outvoted."""

QUESTION = ("CLUSTER", "SLOTS")
STATE_QUESTION = ("CLUSTER", "INFO")


async def ask_members(servers: Iterable[ClusterMember]) -> list[SlotView]:
    """Ask these servers over their links what troubles them, and some for their views, which are returned."""
    asked = list(servers)
    views: list[SlotView] = []

    async def ask(server: ClusterMember, questions: Sequence[Command]) -> None:
        with contextlib.suppress(BrokerUnavailable, ValueError):  # then it has no say
            state, *slots = await server.link.execute_all(questions)
            server.trouble = DOWN if isinstance(state, bytes) and b"cluster_state:fail" in state else ""
            views.extend(read_slots(reply, server.endpoint) for reply in slots)

    async with trio.open_nursery() as nursery:
        for number, server in enumerate(random.sample(asked, len(asked))):
            questions = [STATE_QUESTION, QUESTION] if number < MOST_ASKED else [STATE_QUESTION]
            nursery.start_soon(ask, server, questions)
    return views


async def ask_strangers(linking: Linking, endpoints: Iterable[Endpoint]) -> SlotView:
    """Ask each in turn over a connection made for it; the first view there is. Raises LinkLost with all reasons."""
    failures = []
    for endpoint in endpoints:
        reason = f"no answer within {linking.deadline_s:g} s"
        with trio.move_on_after(linking.deadline_s):
            try:
                return read_slots(await ask_once(linking.link(endpoint, role=None), *QUESTION), endpoint)
            except (LinkLost, ValueError) as error:
                reason = str(error)
        if "cluster support disabled" in reason:
            reason = "it is no member of a Cluster: write redis:// for a single server"
        failures.append(f"{endpoint}: {reason}")
    raise LinkLost(f"no server of the Cluster tells its slots: {'; '.join(failures)}")


def elect(views: Iterable[SlotView]) -> SlotView:
    """Return the view that most have; of equally many, the one in which more slots are served."""
    votes = Counter(views)
    return max(votes, key=lambda view: (votes[view], view.served))
