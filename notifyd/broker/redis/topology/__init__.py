"""Where the keys are, and how they are reached there: one server, one behind Sentinels, or a Cluster."""

from notifyd.broker.redis.target import Target
from notifyd.broker.redis.topology.base import Servers
from notifyd.broker.redis.topology.cluster import ClusterServers
from notifyd.broker.redis.topology.linking import Linking
from notifyd.broker.redis.topology.sentinel import SentinelServers
from notifyd.broker.redis.topology.standalone import StandaloneServers
from notifyd.events import Events


def servers_for(target: Target, *, deadline_s: float, name: str, events: Events) -> Servers:
    """Make the servers of a target; `start` begins to connect.

    `deadline_s` holds for every command in total, and for each connecting; `name` is the node's, as CLIENT LIST shows
    it. Raises ValueError when the files of TLS cannot be used. Reads them, so it blocks: for start-up.
    """
    linking = Linking(target, deadline_s=deadline_s, name=name, events=events)
    if target.kind == "cluster":
        return ClusterServers(linking)
    if target.kind == "sentinel":
        return SentinelServers(linking)
    return StandaloneServers(linking)
