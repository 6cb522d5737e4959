"""Asking the servers of a Cluster which slots they believe to be served by whom, and what to make of it."""

import random
from collections import Counter
from collections.abc import Iterable

import trio
from redis.exceptions import RedisError

from notifyd.broker.redis.link import LinkLost
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.asking import ask_once
from notifyd.broker.redis.topology.linking import Linking
from notifyd.broker.redis.topology.members import Member
from notifyd.broker.redis.topology.slots import SlotView, read_slots
from notifyd.errors import BrokerUnavailable

MOST_ASKED = 5
"""How many servers are asked at once: enough that one with an old view is outvoted."""

QUESTION = ("CLUSTER", "SLOTS")


async def ask_members(servers: Iterable[Member]) -> list[SlotView]:
    """Ask some of these servers over their links; the views of those that answered."""
    asked = list(servers)
    views: list[SlotView] = []

    async def ask(server: Member) -> None:
        try:
            views.append(read_slots(await server.execute(QUESTION), server.endpoint))
        except (BrokerUnavailable, RedisError, ValueError):
            return  # it has no say

    async with trio.open_nursery() as nursery:
        for server in random.sample(asked, min(MOST_ASKED, len(asked))):
            nursery.start_soon(ask, server)
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
