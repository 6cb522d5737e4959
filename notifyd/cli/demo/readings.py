"""Real readings of the machine this runs on: load, memory, network, disk. Linux's /proc, and what Python has itself."""

import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

PROC = Path("/proc")
KIB = 1024
MAX_HOST_CHARACTERS = 64
_NOT_FOR_TOPICS = re.compile(r"[^A-Za-z0-9_.-]+")

Reading = Mapping[str, float | int]
Read = Callable[[float], Reading]
"""Takes a reading; its argument is the time in seconds, on a clock that never runs backwards."""


def host_part() -> str:
    """Return this machine's name in a form that can be one part of a topic."""
    return topic_part(socket.gethostname())


def topic_part(name: str) -> str:
    """Replace what a part of a topic should not hold; never empty."""
    return _NOT_FOR_TOPICS.sub("_", name)[:MAX_HOST_CHARACTERS] or "host"


def available_readings(proc: Path = PROC) -> dict[str, Read]:
    """Return what can be read on this machine, by name."""
    readings: dict[str, Read] = {
        "load": read_load,
        "memory": MemoryGauge(proc / "meminfo"),
        "network": NetworkMeter(proc / "net" / "dev"),
        "disk": read_disk,
    }
    return {name: read for name, read in readings.items() if _works(read)}


def read_load(_now_s: float) -> Reading:
    """Read the mean number of runnable tasks over the last 1, 5 and 15 minutes, and the number of CPUs."""
    one, five, fifteen = os.getloadavg()
    return {"1m": round(one, 2), "5m": round(five, 2), "15m": round(fifteen, 2), "cpus": os.cpu_count() or 1}


def read_disk(_now_s: float) -> Reading:
    """Read how full the root file system is, in bytes and percent."""
    usage = shutil.disk_usage("/")
    return _filling(usage.used, usage.total)


class MemoryGauge:
    """Reads how much memory is in use (what Linux could not give to programs), in bytes and percent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, _now_s: float) -> Reading:
        """Take a reading. Raises OSError, KeyError and ValueError where /proc is not Linux's."""
        lines = (line.split() for line in self._path.read_text().splitlines())
        sizes_kib = {line[0].rstrip(":"): int(line[1]) for line in lines}
        total, available = sizes_kib["MemTotal"] * KIB, sizes_kib["MemAvailable"] * KIB
        return _filling(total - available, total)


class NetworkMeter:
    """Reads the bytes a second through all interfaces but loopback, since the last reading, and in all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[float, int, int] | None = None

    def __call__(self, now_s: float) -> Reading:
        """Take a reading. Raises OSError, IndexError and ValueError where /proc is not Linux's."""
        received, sent = self._totals()
        then_s, earlier_received, earlier_sent = self._last or (now_s, received, sent)
        self._last = (now_s, received, sent)
        elapsed_s = now_s - then_s
        return {
            "received_per_s": _rate(received - earlier_received, elapsed_s),
            "sent_per_s": _rate(sent - earlier_sent, elapsed_s),
            "received": received,
            "sent": sent,
        }

    def _totals(self) -> tuple[int, int]:
        """Add up columns 1 (received) and 9 (sent) of proc_pid_net(5)."""
        received = sent = 0
        for line in self._path.read_text().splitlines()[2:]:
            name, _, counters = line.partition(":")
            if name.strip() != "lo":
                columns = counters.split()
                received += int(columns[0])
                sent += int(columns[8])
        return received, sent


def describe(data: Reading) -> str:
    """Say a reading in a few words."""
    if "cpus" in data:
        return f"{data['1m']:.2f} {data['5m']:.2f} {data['15m']:.2f} on {data['cpus']} CPUs"
    if "percent" in data:
        return f"{in_bytes(data['used'])} of {in_bytes(data['total'])} ({data['percent']:.0f} %)"
    return f"{in_bytes(data['received_per_s'])}/s in, {in_bytes(data['sent_per_s'])}/s out"


def in_bytes(size: float) -> str:
    """Write a number of bytes with the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if size < KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= KIB
    return f"{size:.1f} GiB"


def _works(read: Read) -> bool:
    try:
        read(0.0)
    except (OSError, LookupError, ValueError):
        return False
    return True


def _rate(amount: int, elapsed_s: float) -> float:
    return round(amount / elapsed_s, 1) if elapsed_s > 0 and amount >= 0 else 0.0


def _filling(used: int, total: int) -> Reading:
    """Write down how full something is; first what a curve of the page should show."""
    return {"percent": round(100 * used / total, 1) if total else 0.0, "used": used, "total": total}
