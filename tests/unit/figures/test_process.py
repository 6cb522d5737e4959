"""What the process takes of the machine, within what a busy machine lets be said."""

import sys
import time

import pytest

from notifyd.figures.process import CpuMeter, resident_bytes


def test_cpu_is_told_since_the_last_look() -> None:
    meter = CpuMeter()
    began_s = time.process_time()
    while time.process_time() - began_s < 0.05:
        pass
    assert meter.percent() > 1
    time.sleep(0.05)
    assert meter.percent() < 50


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_grows_with_what_is_held() -> None:
    before = resident_bytes()
    held = bytearray(b"x" * 50_000_000)
    after = resident_bytes()
    assert before is not None
    assert after is not None
    assert 10_000_000 < before < after - len(held) // 2
