"""Metrics and log of a node, through the object that the lower floors are given."""

import io
import json
import math
from bisect import bisect_left
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from notifyd.telemetry import Telemetry
from notifyd.telemetry.catalogue import COUNTERS
from notifyd.telemetry.histogram import RECENT_S, Histogram, quantile
from notifyd.telemetry.log import SECRET_FIELDS, WITHHELD, without_secrets
from notifyd.telemetry.repeats import BURST, MAX_KINDS, WINDOW_S, Repeats
from notifyd.tracing import UNTRACED, Span
from protocol.errors import ErrorCode, RequestError

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = TRACE.replace("4bf9", "5bf9")


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.clock = Clock(monotonic_s=lambda: self.now_s, unix_s=lambda: 1_700_000_000 + self.now_s)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def telemetry(stream: io.StringIO, hands: Hands) -> Telemetry:
    return Telemetry("info", stream=stream, clock=hands.clock)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(telemetry.exposition().decode())
        for sample in family.samples
    }


def test_it_is_what_the_lower_floors_are_given(telemetry: Telemetry) -> None:
    events: Events = telemetry
    events.count("heartbeats_lost")


def test_counters_are_exposed_with_their_labels(telemetry: Telemetry) -> None:
    telemetry.count("messages_delivered", 1000)
    telemetry.count("messages_delivered")
    telemetry.count("connections_closed", transport="device", reason="too_slow")
    telemetry.count("connections_closed", reason="too_slow", transport="device")
    told = samples(telemetry)
    assert told["notifyd_messages_delivered_total", ()] == 1001
    assert told["notifyd_connections_closed_total", (("reason", "too_slow"), ("transport", "device"))] == 2
    assert told["notifyd_heartbeats_lost_total", ()] == 0  # there before anything was lost


def test_every_counter_of_the_table_can_be_counted_and_has_a_help_text(telemetry: Telemetry) -> None:
    for name, metric in COUNTERS.items():
        telemetry.count(name, **dict(zip(metric.labels, metric.series()[-1], strict=True)))
    text = telemetry.exposition().decode()
    for name, metric in COUNTERS.items():
        assert f"# HELP notifyd_{name}_total {metric.help}\n# TYPE notifyd_{name}_total counter\n" in text


def test_two_nodes_in_one_process_count_apart(hands: Hands) -> None:
    first, second = Telemetry(clock=hands.clock), Telemetry(clock=hands.clock)
    first.count("heartbeats_lost", 3)
    assert samples(first)["notifyd_heartbeats_lost_total", ()] == 3
    assert samples(second)["notifyd_heartbeats_lost_total", ()] == 0


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("no_such_thing", {}),
        ("refusals", {}),
        ("refusals", {"why": "crowd"}),
        ("refusals", {"reason": "a topic of somebody's"}),
        ("heartbeats_lost", {"reason": "slow"}),
    ],
)
def test_an_unknown_counter_is_a_logged_bug(
    name: str, labels: dict[str, str], telemetry: Telemetry, stream: io.StringIO
) -> None:
    telemetry.count(name, **labels)
    (line,) = lines(stream)
    assert (line["level"], line["event"], line["name"]) == ("error", "unknown_metric", name)
    assert line["labels"] == list(labels)


def test_gauges_are_asked_when_they_are_read(telemetry: Telemetry) -> None:
    connections: list[int] = []
    telemetry.show("connections", lambda: len(connections))
    assert samples(telemetry)["notifyd_connections", ()] == 0
    connections.append(1)
    assert samples(telemetry)["notifyd_connections", ()] == 1
    with pytest.raises(KeyError):
        telemetry.show("no_such_thing", lambda: 0)


def test_what_somebody_else_counts_is_asked_for(telemetry: Telemetry) -> None:
    telemetry.show("messages_published", lambda: {("device",): 7})
    assert samples(telemetry)["notifyd_messages_published_total", (("transport", "device"),)] == 7
    assert samples(telemetry)["notifyd_messages_published_total", (("transport", "http"),)] == 0
    assert telemetry.total("messages_published") == 7


def test_values_can_be_read_back(telemetry: Telemetry) -> None:
    telemetry.count("connections_closed", 2, transport="device", reason="too_slow")
    telemetry.count("connections_closed", transport="websocket", reason="too_slow")
    telemetry.show("topics", lambda: 5)
    assert telemetry.total("connections_closed") == 3
    assert telemetry.total("connections_closed", reason="too_slow", transport="device") == 2
    assert telemetry.total("connections_closed", reason="normal") == 0
    assert telemetry.total("topics") == 5
    assert telemetry.total("heartbeats_lost") == 0
    with pytest.raises(KeyError):
        telemetry.total("no_such_thing")
    with pytest.raises(KeyError):
        telemetry.total("connections_closed", why="too_slow")


def test_histograms_are_exposed_in_buckets(telemetry: Telemetry) -> None:
    telemetry.observe("delivery_latency_seconds", 0.001, 10)
    telemetry.observe("delivery_latency_seconds", 0.002)
    telemetry.observe("delivery_latency_seconds", 1000.0)
    told = samples(telemetry)
    name = "notifyd_delivery_latency_seconds"
    buckets = [(float(labels[0][1]), value) for (known, labels), value in told.items() if known == f"{name}_bucket"]
    assert [value for bound, value in buckets if bound < 0.001] == [0, 0, 0]
    assert [value for bound, value in buckets if bound >= 0.001] == [10, *[11] * 12, 12]
    assert told[f"{name}_count", ()] == 12
    assert told[f"{name}_sum", ()] == pytest.approx(1000.012)


def test_an_unknown_histogram_is_a_logged_bug(telemetry: Telemetry, stream: io.StringIO) -> None:
    telemetry.observe("no_such_thing", 1.0)
    telemetry.observe("delivery_latency_seconds", 1.0, transport="device")
    assert [(line["event"], line["name"]) for line in lines(stream)] == [
        ("unknown_metric", "no_such_thing"),
        ("unknown_metric", "delivery_latency_seconds"),
    ]


def test_quantiles_are_those_of_the_last_seconds(telemetry: Telemetry, hands: Hands) -> None:
    def ask() -> list[float | None]:
        return telemetry.quantiles("delivery_latency_seconds", (0.5, 0.99))

    assert ask() == [None, None]
    telemetry.observe("delivery_latency_seconds", 2.0, 100)
    for _ in range(int(RECENT_S)):
        hands.now_s += 1
        slow = ask()
    assert slow == [pytest.approx(1.0 + 1.5 * 0.5), pytest.approx(1.0 + 1.5 * 0.99)]
    telemetry.observe("delivery_latency_seconds", 0.002, 100)
    hands.now_s += 1
    assert ask() == [pytest.approx(0.00175), pytest.approx(0.001 + 0.0015 * 0.99)]
    hands.now_s += 60
    ask()
    hands.now_s += RECENT_S
    assert ask() == [None, None]


@given(st.lists(st.floats(0, 20), min_size=1), st.floats(0, 1))
def test_a_quantile_is_in_the_bucket_of_its_value(values: list[float], share: float) -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    place = bisect_left(histogram.bounds, exact)
    estimate = quantile(histogram.bounds, histogram.counts, share)
    assert estimate is not None
    assert [0, *histogram.bounds, 10.0][place] <= estimate <= [*histogram.bounds, 10.0][place]


def test_the_process_is_measured_too(telemetry: Telemetry) -> None:
    assert samples(telemetry)["process_resident_memory_bytes", ()] > 0


def test_lines_are_json_where_no_one_watches(telemetry: Telemetry, stream: io.StringIO) -> None:
    telemetry.log("info", "listening", address="127.0.0.1:7500", weird=b"\xff", percent="100%s")
    assert lines(stream) == [
        {
            "event": "listening",
            "level": "info",
            "timestamp": "2023-11-14T22:13:20.000+00:00",
            "address": "127.0.0.1:7500",
            "weird": "b'\\xff'",
            "percent": "100%s",
        }
    ]
    assert list(lines(stream)[0])[:3] == ["timestamp", "level", "event"]


def test_a_terminal_gets_colours_and_no_strangers_control_characters(hands: Hands) -> None:
    stream = Terminal()
    Telemetry(stream=stream, clock=hands.clock).log("info", "refused", origin="https://x\x1b[2J\n\r.example")
    (line,) = stream.getvalue().splitlines()
    assert "\x1b[" in line
    assert "\x1b[2J" not in line
    assert r"https://x\x1b[2J\n\r.example" in line


def test_the_form_can_be_chosen_and_changed(hands: Hands) -> None:
    stream, terminal = io.StringIO(), Terminal()
    plain = Telemetry(form="text", stream=stream, clock=hands.clock)
    plain.log("info", "refused", origin="https://x\x1b[2J\n.example", node="n1")
    assert stream.getvalue().startswith("2023-11-14T22:13:20.000+00:00 [info     ] refused")
    assert "\x1b" not in stream.getvalue()
    Telemetry(form="json", stream=terminal, clock=hands.clock).log("info", "refused")
    assert lines(terminal)[0]["event"] == "refused"
    plain.set_format("json")
    plain.log("info", "refused")
    assert json.loads(stream.getvalue().splitlines()[-1])["event"] == "refused"


def test_the_level_can_be_changed(telemetry: Telemetry, stream: io.StringIO) -> None:
    telemetry.set_level("error")
    telemetry.log("warning", "left_out")
    telemetry.set_level("debug")
    telemetry.log("debug", "written")
    assert [line["event"] for line in lines(stream)] == ["written"]
    assert telemetry.total("log_lines") == telemetry.total("log_lines", level="debug") == 1


def test_a_line_begins_with_what_it_is_about(telemetry: Telemetry, stream: io.StringIO) -> None:
    telemetry.log("info", "published", address="x", trace_id="4bf9", connection="9f3a-17", node="n1-1")
    head = ["timestamp", "level", "event", "node", "connection", "trace_id"]
    assert list(lines(stream)[0]) == [*head, "address"]


def test_repeats_about_connections_are_left_out_by_their_reason(telemetry: Telemetry, stream: io.StringIO) -> None:
    for number in range(20):
        telemetry.log("info", "connection_closed", connection=f"9f3a-{number}", reason="heartbeat_lost")
        telemetry.log("info", "connection_closed", connection=f"9f3a-{number}", reason="too_slow")
        telemetry.log("info", "serving")
    events = [(line["event"], line.get("reason")) for line in lines(stream)]
    assert events.count(("connection_closed", "heartbeat_lost")) == BURST
    assert events.count(("connection_closed", "too_slow")) == BURST
    assert events.count(("serving", None)) == 20


def test_lines_below_the_level_are_not_written(telemetry: Telemetry, stream: io.StringIO) -> None:
    telemetry.log("debug", "connection_opened")
    assert lines(stream) == []


def test_the_level_changes_at_once(telemetry: Telemetry, stream: io.StringIO) -> None:
    for level, count in (("error", 0), ("debug", 2), ("info", 3)):
        telemetry.set_level(level)
        telemetry.log("debug", "seen_closely")
        telemetry.log("info", "seen")
        assert len(stream.getvalue().splitlines()) == count


def test_a_level_that_does_not_exist_is_written_as_an_error(telemetry: Telemetry, stream: io.StringIO) -> None:
    telemetry.log("loud", "bug")
    assert lines(stream)[0]["level"] == "error"


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_a_lost_stream_loses_lines_and_nothing_else(error: Exception, hands: Hands) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

    Telemetry(stream=Gone(), clock=hands.clock).log("error", "service_failed")


@pytest.mark.parametrize("field", sorted(SECRET_FIELDS))
def test_secret_fields_are_withheld(field: str, telemetry: Telemetry, stream: io.StringIO) -> None:
    telemetry.log("info", "refused", **{field: "hunter2", "headers": {field.title(): ["hunter2"]}})
    (line,) = lines(stream)
    assert line[field] == WITHHELD
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("GET /ws?topics=a&token=hunter2&x=1", "GET /ws?topics=a&token=(withheld)&x=1"),
        ("Authorization: Bearer hunter2", "Authorization: (withheld)"),
        ("redis://user:hunter2@127.0.0.1:6379/0", "redis://(withheld)@127.0.0.1:6379/0"),
        ("cannot reach redis://127.0.0.1:6379", "cannot reach redis://127.0.0.1:6379"),
        ("tokens are fine", "tokens are fine"),
        (["password=hunter2"], ["password=(withheld)"]),
        (17, 17),
    ],
)
def test_credentials_in_text_are_withheld(text: Any, told: Any) -> None:
    assert without_secrets(text) == told


def test_repeats_are_left_out_and_counted(telemetry: Telemetry, stream: io.StringIO, hands: Hands) -> None:
    for number in range(100):
        telemetry.log("warning", "refused", place="accept", peer=number)
        telemetry.log("info", "drained")
    telemetry.log("warning", "refused", place="handshake")
    warnings = [line for line in lines(stream) if line["event"] == "refused"]
    assert [line.get("peer") for line in warnings] == [0, 1, 2, 3, 4, None]  # another place is another kind of line
    assert len(lines(stream)) == 100 + BURST + 1
    assert samples(telemetry)["notifyd_log_lines_left_out_total", ()] == 100 - BURST
    hands.now_s = WINDOW_S
    telemetry.log("warning", "refused", place="accept", peer="later")
    telemetry.log("warning", "refused", place="accept", peer="later still")
    assert [line.get("left_out") for line in lines(stream)[-2:]] == [100 - BURST, None]


def test_repeats_watch_a_bounded_number_of_kinds() -> None:
    repeats = Repeats()
    for number in range(3 * MAX_KINDS):
        assert repeats.admit((str(number),), 0.0) == 0
    assert len(repeats._windows) == MAX_KINDS


def test_trouble_names_the_trace_it_happened_in(telemetry: Telemetry, stream: io.StringIO) -> None:
    with Span(TRACE):
        telemetry.log("info", "serving")
        telemetry.log("warning", "inside")
        with Span(OTHER):
            telemetry.log("error", "further inside")
        telemetry.log("error", "inside again")
    telemetry.log("error", "outside")
    traces = {line["event"]: line.get("trace_id") for line in lines(stream)}
    own, other = TRACE[3:35], OTHER[3:35]
    assert traces == {
        "serving": None,
        "inside": own,
        "further inside": other,
        "inside again": own,
        "outside": None,
    }


@pytest.mark.parametrize(
    ("failure", "is_bug"),
    [
        (ZeroDivisionError(), True),
        (RequestError(ErrorCode.FORBIDDEN, "no"), False),
        (BrokerUnavailable("away"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_a_bug_is_told_further_out_and_keeps_its_trace(
    failure: BaseException, is_bug: bool, telemetry: Telemetry, stream: io.StringIO
) -> None:
    def run() -> None:
        with pytest.raises(type(failure)), Span(TRACE), UNTRACED:
            raise failure
        telemetry.log("error", "connection_failed")

    copy_context().run(run)  # as every task has its own
    (line,) = lines(stream)
    assert ("trace_id" in line) is is_bug
