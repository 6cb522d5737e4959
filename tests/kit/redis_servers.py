"""Redis as operators run it: one server with AOF, a primary with a replica and three Sentinels, a Cluster.

    with standalone() as server: ...        # redis://
    with sentinel_set() as sentinels: ...   # redis+sentinel://
    with cluster() as three: ...            # redis+cluster://

Each has `url` as `broker.url` takes it, and `servers`: all its processes that hold data. What a block started is ended
with it, also when the test fails.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from tests.certificates import Certificates
from tests.kit.redis_process import READY_S, RedisServer, Setting, Version, running_server, versions

__all__ = ["Cluster", "RedisServer", "SentinelSet", "Version", "cluster", "sentinel_set", "standalone", "versions"]

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000
DOWN_AFTER_MS = (500, 650, 1_000)
"""Of each Sentinel: where all notice at the same moment, each votes for itself, and again, for up to 20 s."""

FAILOVER_TIMEOUT_MS = 2_000
"""A promotion is seen in an INFO, which is asked for once a second meanwhile."""

SERVICE = "notifyd-primary"


@contextmanager
def standalone(
    *,
    version: Version | None = None,
    password: str = "",
    users: Mapping[str, str] | None = None,
    certificates: Certificates | None = None,
    unix_socket: bool = False,
    **settings: Setting,
) -> Iterator[RedisServer]:
    """Run one server with an append-only file: what it acknowledged it has after `kill` and `restart`.

    `users` are ACL users with their rules, as in `{"node": ">secret ~* &* +@all"}`; with `certificates` it speaks TLS
    only; its unix socket is at `unix_path`.
    """
    options: dict[str, Setting] = {"appendonly": "yes"}
    if users:
        options["user"] = [f"{name} on {rules}" for name, rules in users.items()]
    if unix_socket:
        options["unixsocket"] = "redis.sock"  # in its directory
    options |= settings
    with running_server(version=version, password=password, certificates=certificates, **options) as server:
        yield server


# --- Sentinel ---------------------------------------------------------------------------------------------------------


class SentinelSet:
    """A primary, a replica, three Sentinels that watch them. Who is primary changes with a failover."""

    def __init__(self, servers: list[RedisServer], sentinels: list[RedisServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(sentinel.address for sentinel in self.sentinels)}/{SERVICE}/0"

    @property
    def primary(self) -> RedisServer:
        """Who the Sentinels that answer say is primary; the majority where they differ."""
        told = [_told_port(sentinel) for sentinel in self.sentinels if sentinel.is_running]
        port = max(set(told), key=told.count)
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def wait_ready(self, seconds: float = READY_S) -> None:
        """Wait until the replica is in step and every Sentinel knows all others."""
        _wait(self._is_ready, "the Sentinels do not agree", seconds)

    def wait_in_step(self, seconds: float = READY_S) -> None:
        """Wait until the replica has all that the primary has now. (WAIT is about one connection's own writes.)"""
        offset = int(self.primary.info("replication")["master_repl_offset"])
        _wait(lambda: self._has(offset), "the replica lags", seconds)

    def _is_ready(self) -> bool:
        return all(map(_sees_all, self.sentinels)) and self._has(1)

    def _has(self, offset: int) -> bool:
        link = self.replica.info("replication")
        return link.get("master_link_status") == "up" and int(link["slave_repl_offset"]) >= offset

    def wait_failed_over(self, old: RedisServer, seconds: float = READY_S) -> RedisServer:
        """Wait until another server than `old` is primary and says so itself; that one."""
        _wait(lambda: self._has_left(old), "no failover", seconds)
        return self.primary

    def _has_left(self, old: RedisServer) -> bool:
        primary = self.primary
        return primary is not old and primary.info("replication")["role"] == "master"

    def fail_over(self) -> None:
        """Ask a Sentinel for a failover, the primary alive."""
        self.sentinels[0].cli("SENTINEL", "FAILOVER", SERVICE)


def _told_port(sentinel: RedisServer) -> int:
    return int(sentinel.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


def _sees_all(sentinel: RedisServer) -> bool:
    flat = sentinel.cli("SENTINEL", "MASTER", SERVICE)
    told = dict(zip(flat[::2], flat[1::2], strict=True))
    return (told["num-other-sentinels"], told["num-slaves"], told["flags"]) == ("2", "1", "master")


def _watch(primary: RedisServer, replica: RedisServer, down_after_ms: int) -> list[str]:
    return [
        f"monitor {SERVICE} 127.0.0.1 {primary.port} 2",
        f"down-after-milliseconds {SERVICE} {down_after_ms}",
        f"failover-timeout {SERVICE} {FAILOVER_TIMEOUT_MS}",
        # Told here, it need not be found out in 10 s: who its replica is.
        f"known-replica {SERVICE} 127.0.0.1 {replica.port}",
    ]


def _hurry(sentinel: RedisServer) -> None:
    """Let it look and tell often, where it can be told to.

    A replica is fit to be promoted while its last INFO is younger than five PING periods, and while the primary is down
    that is asked for once a second.
    """
    if sentinel.version.numbers < (7, 0):
        return
    for period, milliseconds in (("PING", 300), ("INFO", 500), ("PUBLISH", 300)):
        sentinel.cli("SENTINEL", "DEBUG", f"{period}-PERIOD", milliseconds)


@contextmanager
def sentinel_set(*, version: Version | None = None, **settings: Setting) -> Iterator[SentinelSet]:
    """Run a primary and its replica, both with AOF, and three Sentinels that fail over after half a second."""
    options: dict[str, Setting] = {"appendonly": "yes", "repl-diskless-sync-delay": 0, **settings}
    with ExitStack() as stack:
        primary = stack.enter_context(running_server(version=version, **options))
        replica = stack.enter_context(running_server(version=version, **options, replicaof=f"127.0.0.1 {primary.port}"))
        sentinels = [
            stack.enter_context(
                running_server(
                    version=version, arguments=["--sentinel"], sentinel=_watch(primary, replica, down_after_ms)
                )
            )
            for down_after_ms in DOWN_AFTER_MS
        ]
        for sentinel in sentinels:
            _hurry(sentinel)
        running = SentinelSet([primary, replica], sentinels)
        running.wait_ready()
        yield running


# --- Cluster ----------------------------------------------------------------------------------------------------------


class Cluster:
    """Masters with the slots shared evenly among them, and their replicas. `servers` has the masters first."""

    def __init__(self, servers: list[RedisServer], masters: int) -> None:
        self.servers = servers
        self.masters = servers[:masters]
        self.replicas = servers[masters:]
        self.ids = {server.port: str(server.cli("CLUSTER", "MYID")) for server in servers}

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(server.address for server in self.masters)}"

    def slot_of(self, key: str) -> int:
        """Which slot a key is in."""
        return int(key_slot(key.encode()))

    def owner(self, slot: int) -> RedisServer:
        """Who serves a slot now, as the first server that runs sees it."""
        asked = next(server for server in self.servers if server.is_running)
        for first, last, master, *_ in asked.cli("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == master[1])
        raise AssertionError(f"nobody serves slot {slot}")

    def wait_ready(self, seconds: float = READY_S) -> None:
        """Wait until all that run see all slots served, and one another."""
        _wait(self._is_ready, "the cluster does not come about", seconds)

    def _is_ready(self) -> bool:
        running = [server for server in self.servers if server.is_running]
        views = [server.cli("CLUSTER", "INFO") for server in running]
        known = f"cluster_known_nodes:{len(self.servers)}\r\n"
        return all(
            "cluster_state:ok" in view and f"cluster_slots_ok:{SLOTS}\r\n" in view and known in view for view in views
        )

    # --- a slot moves -------------------------------------------------------------------------------------------------

    def migrate_slot(self, slot: int, target: RedisServer) -> int:
        """Move a slot with its keys, as `redis-cli --cluster reshard` does; how many keys."""
        self.begin_migration(slot, target)
        moved = 0
        while count := self.move_keys(slot, target):
            moved += count
        self.finish_migration(slot, target)
        return moved

    def begin_migration(self, slot: int, target: RedisServer) -> None:
        """From now on keys that the owner has not (any more) are asked for at the target: ASK."""
        source = self.owner(slot)
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source.port])
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target.port])

    def move_keys(self, slot: int, target: RedisServer, count: int = 100) -> int:
        """Move so many keys of a slot at most; how many, 0 when it is empty."""
        source = self.owner(slot)
        keys = source.cli("CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            source.cli("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def finish_migration(self, slot: int, target: RedisServer) -> None:
        """Give the slot to the target: from now on the former owner answers MOVED."""
        source = self.owner(slot)
        others = [server for server in self.masters if server not in (source, target) and server.is_running]
        for server in (target, source, *others):
            server.cli("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target.port])


@contextmanager
def cluster(
    masters: int = 3, replicas: int = 0, *, version: Version | None = None, **settings: Setting
) -> Iterator[Cluster]:
    """Run a Cluster with `replicas` for each master.

    It takes a little above 2 s, whatever is done: a master waits that long before it first says `cluster_state:ok`
    (CLUSTER_WRITABLE_DELAY in Redis's cluster.c).
    """
    options: dict[str, Setting] = {"appendonly": "yes", "cluster-enabled": "yes", "repl-diskless-sync-delay": 0}
    options |= {"cluster-node-timeout": NODE_TIMEOUT_MS, **settings}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running_server(version=version, **options)) for _ in range(masters * (1 + replicas))
        ]
        running = Cluster(servers, masters)
        for number, server in enumerate(running.masters):
            _give_slots(server, SLOTS * number // masters, SLOTS * (number + 1) // masters - 1)
        for number, server in enumerate(servers):
            server.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers:
            for other in servers:
                if other is not server:
                    server.cli("CLUSTER", "MEET", "127.0.0.1", other.port)
        for number, replica in enumerate(running.replicas):
            _replicate(replica, running.ids[running.masters[number % masters].port])
        running.wait_ready()
        yield running


def _give_slots(server: RedisServer, first: int, last: int) -> None:
    if server.version.numbers >= (7, 0):
        server.cli("CLUSTER", "ADDSLOTSRANGE", first, last)
    else:
        server.cli("CLUSTER", "ADDSLOTS", *range(first, last + 1))


def _replicate(replica: RedisServer, master_id: str) -> None:
    def is_told() -> bool:
        with suppress(ResponseError):  # it does not know the master yet
            return bool(replica.cli("CLUSTER", "REPLICATE", master_id) == "OK")
        return False

    _wait(is_told, "the replica never heard of its master", READY_S)
    _wait(lambda: replica.info("replication").get("master_link_status") == "up", "the replica does not follow", READY_S)


def _wait(condition: Callable[[], bool], complaint: str, seconds: float) -> None:
    """Wait for what servers agree on among themselves. One that does not answer has not agreed."""
    began_s = time.monotonic()
    while True:
        with suppress(RedisError, OSError):
            if condition():
                return
        assert time.monotonic() - began_s < seconds, f"{complaint} after {seconds:g} s"
        time.sleep(0.01)
