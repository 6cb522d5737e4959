"""The servers that tests start: they are real, keep what they acknowledged, fail over, move slots, and end."""

import os
import socket
import time

import pytest
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from tests.certificates import Certificates, certificates
from tests.kit.redis_process import NotConnected, RedisServer, Version
from tests.kit.redis_servers import Cluster, cluster, sentinel_set, standalone, versions

__all__ = ["certificates"]

SLOT_KEY = "{orders:status}:7"


@pytest.mark.parametrize("version", versions(), ids=str)
def test_a_standalone_server_is_of_its_version_and_is_gone_after_the_block(version: Version) -> None:
    with standalone(version=version) as server:
        name = "valkey_version" if version.name == "valkey" else "redis_version"
        assert server.info("server")[name] == ".".join(map(str, version.numbers))
        pid = server.pid
    assert not server.is_running
    assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110
    assert not server.directory.exists()
    with pytest.raises(NotConnected):
        server.cli("PING")


def test_a_failing_test_leaves_no_server_behind() -> None:
    servers = []

    def failing_test() -> None:
        with standalone() as server:
            servers.append(server)
            server.stop_process()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_test()
    assert not servers[0].is_running


def test_a_killed_server_comes_back_on_its_port_with_all_it_acknowledged() -> None:
    with standalone() as server:
        port = server.port
        for number in range(200):
            server.cli("RPUSH", "list", number)
        server.kill()
        assert not server.is_running
        server.restart()
        assert server.port == port
        assert server.cli("LLEN", "list") == 200


def test_a_stopped_server_answers_when_it_goes_on() -> None:
    with standalone() as server:
        server.stop_process()
        with pytest.raises(RedisError):
            server.cli("PING", timeout_s=0.05)
        server.continue_process()
        assert server.cli("PING") == "PONG"


def test_clients_can_be_cut_off() -> None:
    with standalone() as server, socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(b"SUBSCRIBE a\r\n")
        assert client.recv(100)
        assert server.kill_clients("normal") == 0
        assert server.kill_clients("pubsub") == 1
        assert client.recv(100) == b""


def test_passwords_users_and_the_unix_socket() -> None:
    with standalone(password="secret", users={"node": ">word ~a* &* +@all"}, unix_socket=True) as server:
        assert server.cli("PING") == "PONG"
        assert server.url == f"redis://:secret@127.0.0.1:{server.port}/0"
        assert server.unix_url == f"unix://:secret@{server.unix_path}"
        assert server.unix_path.is_socket()
        assert set(server.cli("ACL", "USERS")) == {"default", "node"}
        server.password = "wrong"
        with pytest.raises(AuthenticationError):
            server.cli("PING")


def test_tls(certificates: Certificates) -> None:
    with standalone(certificates=certificates) as server:
        assert server.url.startswith("rediss://127.0.0.1:")
        assert server.cli("PING") == "PONG"


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(AssertionError, match="maxmemory"), standalone(maxmemory="nonsense"):
        pass


def test_the_shared_server_is_empty_and_names_are_never_the_same(
    redis_server: RedisServer, redis_url: str, redis_prefix: str
) -> None:
    assert redis_url == redis_server.url
    assert redis_server.cli("DBSIZE") == 0
    assert redis_prefix.startswith("test")


def test_sentinels_put_the_replica_in_a_killed_primarys_place() -> None:
    with sentinel_set() as sentinels:
        old = sentinels.primary
        old.cli("SET", "a", 1)
        sentinels.wait_in_step()
        old.kill()
        began_s = time.monotonic()
        new = sentinels.wait_failed_over(old)
        assert time.monotonic() - began_s < 10
        assert new.cli("GET", "a") == "1"
        old.restart()
        sentinels.wait_ready()
        assert old.info("replication")["role"] == "slave"
        assert sentinels.url.count(",") == 2


def test_sentinels_fail_over_when_asked() -> None:
    with sentinel_set() as sentinels:
        old = sentinels.primary
        sentinels.fail_over()
        assert sentinels.wait_failed_over(old) is not old


def test_a_cluster_serves_all_slots_and_moves_one(redis_cluster: Cluster) -> None:
    slot = redis_cluster.slot_of(SLOT_KEY)
    source = redis_cluster.owner(slot)
    target = next(master for master in redis_cluster.masters if master is not source)
    for number in range(250):
        source.cli("SET", f"{{orders:status}}:{number}", number)
    redis_cluster.begin_migration(slot, target)
    assert redis_cluster.move_keys(slot, target, 249) == 249
    left = source.cli("CLUSTER", "GETKEYSINSLOT", slot, 10)
    moved = next(key for number in range(2) if (key := f"{{orders:status}}:{number}") not in left)
    with pytest.raises(ResponseError, match=f"^(ASK )?{slot} 127.0.0.1:{target.port}"):
        source.cli("GET", moved)
    assert redis_cluster.migrate_slot(slot, target) == 1
    assert redis_cluster.owner(slot) is target
    assert target.cli("GET", SLOT_KEY) == "7"
    with pytest.raises(ResponseError, match=f"^(MOVED )?{slot} 127.0.0.1:{target.port}"):
        source.cli("GET", SLOT_KEY)
    assert redis_cluster.migrate_slot(slot, source) == 250


def test_a_cluster_is_there_soon_and_its_replicas_follow() -> None:
    began_s = time.monotonic()
    with cluster(masters=3, replicas=1) as running:
        assert time.monotonic() - began_s < 8
        assert len(running.replicas) == 3
        assert all(replica.info("replication")["role"] == "slave" for replica in running.replicas)
        owner = running.owner(running.slot_of("a"))
        owner.cli("SET", "a", 1)
        assert owner.cli("GET", "a") == "1"
