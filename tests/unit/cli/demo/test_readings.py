from pathlib import Path

import pytest

from notifyd.cli.demo.readings import (
    MemoryGauge,
    NetworkMeter,
    available_readings,
    describe,
    host_part,
    in_bytes,
    read_disk,
    read_load,
    topic_part,
)
from protocol.topics import check_topic

MEMINFO = """\
MemTotal:        1000 kB
MemFree:          100 kB
MemAvailable:     250 kB
HugePages_Total:    0
"""

NET_DEV = """\
Inter-|   Receive                                      |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 7267222757 8978964 0 46 0 0 0 0 7267222757 8978964 0 0 0 0 0 0
  eth0:    {0}   20945 0 0 0 0 0 0 {1}   13044 0 0 0 0 0 0
 wlan0:10 1 0 0 0 0 0 0 20 13044 0 0 0 0 0 0
"""


def test_load_and_disk() -> None:
    assert set(read_load(0.0)) == {"1m", "5m", "15m", "cpus"}
    disk = read_disk(0.0)
    assert 0 < disk["used"] < disk["total"]
    assert 0 < disk["percent"] < 100
    assert next(iter(disk)) == "percent", "the page draws the first number"


def test_memory(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    assert MemoryGauge(path)(0.0) == {"used": 750 * 1024, "total": 1000 * 1024, "percent": 75.0}
    path.write_text(MEMINFO.replace("1000", "0").replace("250", "0"))
    assert MemoryGauge(path)(0.0)["percent"] == 0.0


def test_network(tmp_path: Path) -> None:
    path = tmp_path / "dev"
    meter = NetworkMeter(path)
    path.write_text(NET_DEV.format(1000, 500))
    assert meter(5.0) == {"received_per_s": 0.0, "sent_per_s": 0.0, "received": 1010, "sent": 520}
    path.write_text(NET_DEV.format(3000, 600))
    assert meter(7.0) == {"received_per_s": 1000.0, "sent_per_s": 50.0, "received": 3010, "sent": 620}
    path.write_text(NET_DEV.format(0, 700))  # an interface was taken away
    assert meter(8.0)["received_per_s"] == 0.0


def test_what_a_machine_does_not_have_is_left_out(tmp_path: Path) -> None:
    assert list(available_readings(tmp_path)) == ["load", "disk"]
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\n")
    assert list(available_readings(tmp_path)) == ["load", "disk"]
    assert list(available_readings()) == ["load", "memory", "network", "disk"]


@pytest.mark.parametrize(
    ("name", "part"), [("lamp-1", "lamp-1"), ("my lamp:ü*", "my_lamp_"), ("", "host"), ("x" * 300, "x" * 64)]
)
def test_hosts_are_parts_of_topics(name: str, part: str) -> None:
    assert topic_part(name) == part
    check_topic(f"metrics:{part}:load")
    check_topic(f"metrics:{host_part()}:load")


def test_readings_in_words() -> None:
    assert describe({"1m": 0.5, "5m": 1, "15m": 2.25, "cpus": 2}) == "0.50 1.00 2.25 on 2 CPUs"
    assert describe({"used": 1536, "total": 2**31, "percent": 0.4}) == "1.5 KiB of 2.0 GiB (0 %)"
    assert describe({"received_per_s": 10, "sent_per_s": 2**20, "received": 1, "sent": 1}) == "10 B/s in, 1.0 MiB/s out"
    assert in_bytes(5 * 2**40) == "5120.0 GiB"
