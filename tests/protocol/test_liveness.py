import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.liveness import Beat, ClientLiveness, RoundTrips, ServerLiveness

FLOOR_S = 10.0


def client(interval_s: float = 30.0, misses: int = 2, now_s: float = 0.0) -> ClientLiveness:
    return ClientLiveness(interval_s=interval_s, misses=misses, floor_s=FLOOR_S, now_s=now_s)


def server(interval_s: float = 30.0, now_s: float = 0.0) -> ServerLiveness:
    return ServerLiveness(interval_s=interval_s, floor_s=FLOOR_S, now_s=now_s)


# --- round trips -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1000), max_size=12), st.floats(0, 60))
def test_the_timeout_is_three_times_the_mean_of_the_last_five_at_least_the_floor(
    samples_s: list[float], floor_s: float
) -> None:
    trips = RoundTrips()
    for sample_s in samples_s:
        trips = trips.with_sample(sample_s)
    last_s = samples_s[-5:]
    if not last_s:
        assert trips.mean_s is None
        assert trips.timeout_s(floor_s) == floor_s
    else:
        assert trips.mean_s == pytest.approx(sum(last_s) / len(last_s))
        assert trips.timeout_s(floor_s) == pytest.approx(max(3 * sum(last_s) / len(last_s), floor_s))


# --- against a slow model that remembers everything ------------------------------------------------------------------


@dataclass
class Timeline:
    """Everything that happened, in order, and the rules of the specification read off it."""

    interval_s: float
    misses: int | None
    heard_s: list[float] = field(default_factory=lambda: [0.0])
    pings_s: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)
    trips_s: list[float] = field(default_factory=list)

    def timeout_s(self) -> float:
        last_s = self.trips_s[-5:]
        return max(3 * sum(last_s) / len(last_s), FLOOR_S) if last_s else FLOOR_S

    def lost_s(self) -> float:
        if self.misses is not None:
            return self.heard_s[-1] + self.misses * self.interval_s + self.timeout_s()
        unheard_s = [ping_s for ping_s in self.pings_s if ping_s > self.heard_s[-1]]
        return unheard_s[0] + self.timeout_s() if unheard_s else float("inf")

    def ping_s(self) -> float:
        pinged_s = max(self.pings_s, default=0.0)
        if self.misses is None:
            return pinged_s + self.interval_s
        return min(max(self.heard_s[-1], pinged_s) + self.interval_s, pinged_s + 5 * self.interval_s)

    def pong(self, ping_s: float, now_s: float) -> float | None:
        self.heard_s.append(now_s)
        if not self.pings_s or ping_s != self.pings_s[-1] or ping_s in self.answered_s:
            return None
        self.answered_s.append(ping_s)
        self.trips_s.append(now_s - ping_s)
        return self.trips_s[-1]


steps = st.lists(
    st.tuples(
        st.floats(0.001, 100),
        st.sampled_from(["heard", "ping", "answer", "answer the last but one", "answer nothing", "interval"]),
        st.floats(1, 3600),
    ),
    max_size=30,
)


@given(st.sampled_from([1, 2, 3, None]), st.floats(1, 120), steps)
@example(None, 30.0, [(30.0, "ping", 1.0), (5.0, "answer", 1.0), (1.0, "answer", 1.0), (30.0, "ping", 1.0)])
def test_both_sides_keep_the_rules_through_any_timeline(
    misses: int | None, interval_s: float, events: list[tuple[float, str, float]]
) -> None:
    liveness = server(interval_s) if misses is None else client(interval_s, misses)
    model = Timeline(interval_s, misses)
    now_s = 0.0
    for pause_s, event, new_interval_s in events:
        now_s += pause_s
        if event == "heard":
            liveness.heard(now_s)
            model.heard_s.append(now_s)
        elif event == "ping":
            assert liveness.ping(now_s) == int(now_s * 1000)
            model.pings_s.append(now_s)
        elif event == "interval":
            liveness.interval_s = model.interval_s = new_interval_s
        else:
            place = {"answer": 1, "answer the last but one": 2}.get(event, 99)
            ping_s = model.pings_s[-place] if len(model.pings_s) >= place else -1.0
            expected_s = model.pong(ping_s, now_s)
            assert liveness.pong(int(ping_s * 1000), now_s) == expected_s
        check(liveness, model, now_s)


def check(liveness: ClientLiveness | ServerLiveness, model: Timeline, now_s: float) -> None:
    assert liveness.timeout_s == pytest.approx(model.timeout_s())
    assert liveness.lost_s == pytest.approx(model.lost_s())
    assert liveness.ping_s == pytest.approx(model.ping_s())
    due_s = liveness.due_s
    assert due_s == min(liveness.lost_s, liveness.ping_s)
    assert liveness.beat(due_s) is not Beat.NOTHING
    assert liveness.beat(due_s - 0.0005) is Beat.NOTHING
    assert liveness.beat(liveness.lost_s) is Beat.LOST
    assert liveness.beat(now_s) is liveness.beat(now_s)  # asking changes nothing


# --- by example ------------------------------------------------------------------------------------------------------


def test_a_silent_client_is_pinged_at_each_missed_heartbeat_and_lost_after_two_and_the_timeout() -> None:
    liveness = client()
    seen = []
    while liveness.beat(liveness.due_s) is Beat.PING:
        seen.append(liveness.due_s)
        liveness.ping(liveness.due_s)
    assert (seen, liveness.due_s) == ([30.0, 60.0], 70.0)


def test_a_silent_server_is_lost_one_timeout_after_the_first_ping() -> None:
    liveness = server(interval_s=3.0)
    seen = []
    while liveness.beat(liveness.due_s) is Beat.PING:
        seen.append(liveness.due_s)
        liveness.ping(liveness.due_s)
    assert (seen, liveness.due_s) == ([3.0, 6.0, 9.0, 12.0], 13.0)


def test_a_server_owes_nothing_while_no_ping_waits() -> None:
    liveness = server()
    assert liveness.lost_s == float("inf")
    liveness.ping(30.0)
    liveness.heard(31.0)
    assert liveness.lost_s == float("inf")
    assert liveness.beat(1e9) is Beat.PING


@pytest.mark.parametrize("timestamp_ms", [0, 29_999, 30_001, 2**63, 2**64 - 1])
def test_a_made_up_pong_is_a_sign_of_life_and_no_sample(timestamp_ms: int) -> None:
    for liveness in (client(), server()):
        liveness.ping(30.0)
        assert liveness.pong(timestamp_ms, 31.0) is None
        assert liveness.round_trip_s is None
        assert liveness.timeout_s == FLOOR_S
        assert liveness.lost_s > 100.0


def test_before_the_first_ping_no_pong_is_an_answer() -> None:
    assert client(now_s=5.0).pong(5000, 6.0) is None


def test_one_answer_counts_once() -> None:
    liveness = client()
    timestamp_ms = liveness.ping(30.0)
    assert liveness.pong(timestamp_ms, 30.5) == 0.5
    assert liveness.pong(timestamp_ms, 99.0) is None
    assert liveness.round_trip_s == 0.5


def test_a_peer_that_withholds_its_pongs_cannot_stretch_the_timeout_beyond_fifteen_intervals() -> None:
    liveness = client(interval_s=30.0)
    for _ in range(20):
        now_s = liveness.ping_s
        timestamp_ms = liveness.ping(now_s)
        while liveness.ping_s - now_s > 1.0:  # talk, but answer the PING only just before the next one
            now_s += 1.0
            liveness.heard(now_s)
        assert liveness.pong(timestamp_ms, now_s) is not None
        assert FLOOR_S < liveness.timeout_s <= 3 * 5 * 30.0


def test_thousands_of_them_are_small() -> None:
    liveness = client()
    assert not hasattr(liveness, "__dict__")
    assert sys.getsizeof(liveness) + sys.getsizeof(liveness._trips) < 250
