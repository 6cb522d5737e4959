from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from notifyd.bench.pacing import LATE_NS, Schedule
from notifyd.bench.saturation import why_saturated

MS = 1_000_000


def test_operations_are_due_at_the_rate_whatever_became_of_those_before() -> None:
    schedule = Schedule(rate=100.0, start_ns=5 * MS)
    assert [schedule.take(10**9) // MS for _ in range(4)] == [5, 15, 25, 35]
    assert schedule.next_ns == 45 * MS


def test_a_server_that_stalls_is_charged_for_all_that_it_kept_waiting() -> None:
    """A second's stall in ten: who timed from the sending would find one slow answer in a thousand."""
    schedule, latencies, waiting = Schedule(rate=100.0, start_ns=0), [], deque[int]()
    for now_ns in range(0, 10_000 * MS, MS):
        while schedule.next_ns <= now_ns:
            if waiting:  # one answer at a time may be owed
                schedule.hold()
                break
            waiting.append(schedule.take(now_ns))
        else:
            schedule.release()
        is_stalled = 4_000 * MS <= now_ns < 5_000 * MS
        if waiting and not is_stalled:
            latencies.append(now_ns - waiting.popleft())
    slow = [latency for latency in latencies if latency > 100 * MS]
    assert len(slow) >= 90
    assert max(latencies) >= 990 * MS
    assert schedule.late <= 1  # all the others were held up by the server


@given(st.lists(st.integers(0, 50 * MS), min_size=1, max_size=50), st.floats(1, 10_000))
def test_what_the_load_itself_sends_late_is_counted(delays_ns: list[int], rate: float) -> None:
    schedule = Schedule(rate, start_ns=0)
    late = sum(schedule.take(schedule.next_ns + delay) is not None and delay > LATE_NS for delay in delays_ns)
    assert schedule.late == late


def test_a_load_that_had_enough_of_everything_is_not_saturated() -> None:
    assert why_saturated(0.9, 1000, 10, None) is None
    assert why_saturated(0.0, 0, 0, None) is None


def test_a_load_that_had_too_little_says_of_what() -> None:
    assert why_saturated(0.97, 0, 0, None) == "the busiest load process used 97% of a core: give it more --processes"
    assert why_saturated(0.2, 1000, 11, None) == (
        "1.1% of what was due was sent more than 10 ms late: give it more --processes"
    )
    assert why_saturated(0.2, 0, 0, "descriptors") == "a load process ran out of descriptors: raise `ulimit -n`"
    assert "ports" in (why_saturated(0.99, 0, 0, "ports") or "")
