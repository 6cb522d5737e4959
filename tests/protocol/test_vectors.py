"""Runs `spec/vectors`: the files that every implementation of the protocol runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from protocol.backoff import Backoff, delay_s
from protocol.codec import Frame, FrameDecoder, FrameType, encode_frame, encode_heartbeat, frames_of_message
from protocol.errors import LocalProtocolError, RemoteProtocolError, RequestError
from protocol.frames import build_frame
from protocol.framing import Encoding
from protocol.liveness import ClientLiveness, ServerLiveness
from protocol.messages import (
    Message,
    Publish,
    Request,
    ServerMessage,
    decode_request,
    decode_server_message,
    encode,
)
from protocol.topics import Pattern, check_topic, is_reserved
from protocol.trace import read_trace
from tests.protocol.outcomes import outcome_of

SPEC = Path(__file__).parents[2] / "spec"

MICROSECOND_S = 1e-6


def vectors(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SPEC / "vectors" / f"{name}.json").read_text(encoding="utf-8"))
    return document


FRAMES, MESSAGES, LIVENESS, BACKOFF, TOPICS, TRACES = map(
    vectors, ("frames", "messages", "liveness", "backoff", "topics", "traces")
)


def each(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """Run a test for each case, under its name."""
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


# --- frames ----------------------------------------------------------------------------------------------------------


def frames_of(case: dict[str, Any]) -> list[Frame]:
    return [
        Frame(FrameType[frame["type"]], int(frame["timestamp_ms"]), bytes.fromhex(frame["payload_hex"]))
        for frame in case["frames"]
    ]


@pytest.mark.parametrize("chunk_bytes", [10**6, 1, 7, 16])
@each(FRAMES["cases"])
def test_frames_in_a_stream(case: dict[str, Any], chunk_bytes: int) -> None:
    stream, decoder = bytes.fromhex(case["hex"]), FrameDecoder(case["payload_limit_bytes"])
    frames: list[Frame] = []
    error, error_at = None, 0
    for start in range(0, len(stream), chunk_bytes):
        decoder.receive(stream[start : start + chunk_bytes])
        try:
            while (frame := decoder.next_frame()) is not None:
                frames.append(frame)
        except RemoteProtocolError as failure:
            error, error_at = failure.close_code, min(start + chunk_bytes, len(stream))
            break
    assert frames == frames_of(case)
    assert error == case["stream"].get("close_code")
    if error is None:
        assert decoder.buffered_bytes == case["stream"]["waiting_bytes"]
    elif chunk_bytes == 1:
        assert error_at <= case["stream"]["after_bytes"]


@each(FRAMES["cases"])
def test_frames_in_a_binary_message(case: dict[str, Any]) -> None:
    frames: list[Frame] = []
    outcome: object = "whole"
    try:
        for frame in frames_of_message(bytes.fromhex(case["hex"]), case["payload_limit_bytes"]):
            frames.append(frame)  # noqa: PERF402 - what came before the error counts
    except RemoteProtocolError as failure:
        outcome = {"close_code": failure.close_code}
    assert frames == frames_of(case)
    assert outcome == case["binary_message"]


@each([case for case in FRAMES["cases"] if case["stream"] == {"waiting_bytes": 0}])
def test_frames_are_built_to_the_same_bytes(case: dict[str, Any]) -> None:
    frames = frames_of(case)
    assert b"".join(build_frame(frame.type, frame.timestamp_ms, _payload(frame)) for frame in frames) == bytes.fromhex(
        case["hex"]
    )
    assert b"".join(map(_encoded, frames)) == bytes.fromhex(case["hex"])


@each(FRAMES["cannot_be_built"])
def test_frames_that_cannot_be_built(case: dict[str, Any]) -> None:
    frame = Frame(FrameType[case["type"]], int(case["timestamp_ms"]), bytes(case["payload_bytes"]))
    with pytest.raises(LocalProtocolError):
        build_frame(frame.type, frame.timestamp_ms, _payload(frame))
    if not frame.payload or frame.type > FrameType.PONG:  # the codec's signature leaves no room for a PING's payload
        with pytest.raises(LocalProtocolError):
            _encoded(frame)


def _payload(frame: Frame) -> bytes:
    return cast("bytes", frame.payload)


def _encoded(frame: Frame) -> bytes:
    if frame.type <= FrameType.PONG:
        return encode_heartbeat(frame.type, frame.timestamp_ms)
    return encode_frame(frame.type, _payload(frame), frame.timestamp_ms)


# --- messages --------------------------------------------------------------------------------------------------------

PLAIN: dict[Encoding, Callable[[bytes], Any]] = {
    Encoding.JSON: msgspec.json.decode,
    Encoding.MSGPACK: msgspec.msgpack.decode,
}


@each(MESSAGES["valid"])
def test_valid_messages(case: dict[str, Any]) -> None:
    decode: Callable[[bytes | str, Encoding], Request | ServerMessage | None]
    decode = decode_request if case["from"] == "client" else decode_server_message
    packed = bytes.fromhex(case["msgpack"])
    assert msgspec.msgpack.decode(packed) == json.loads(case["json"])
    message = decode(packed, Encoding.MSGPACK)
    assert message == decode(case["json"], Encoding.JSON) == decode(case["json"].encode(), Encoding.JSON)
    assert message is not None
    for encoding in Encoding:
        encoded = encode(message, encoding)
        assert decode(encoded, encoding) == message
        if case["from"] == "server":
            assert PLAIN[encoding](encoded) == json.loads(case["json"])


@each(MESSAGES["transcoded"])
def test_data_on_its_way_to_either_encoding(case: dict[str, Any]) -> None:
    request = decode_request(bytes.fromhex(case["publish_msgpack"]), Encoding.MSGPACK)
    assert isinstance(request, Publish)
    message = Message(topic=request.topic, data=request.data, time=1)
    assert b'"data":' + case["data_json"].encode() in encode(message, Encoding.JSON)
    assert b"\xa4data" + bytes.fromhex(case["data_msgpack"]) in encode(message, Encoding.MSGPACK)


def payloads_of(case: dict[str, Any]) -> list[tuple[bytes | str, Encoding]]:
    payloads: list[tuple[bytes | str, Encoding]] = []
    if "json" in case:
        payloads += [(case["json"], Encoding.JSON), (case["json"].encode(), Encoding.JSON)]
    if "json_hex" in case:
        payloads.append((bytes.fromhex(case["json_hex"]), Encoding.JSON))
    if "msgpack" in case:
        payloads.append((bytes.fromhex(case["msgpack"]), Encoding.MSGPACK))
    return payloads


@each(MESSAGES["invalid"])
def test_invalid_messages(case: dict[str, Any]) -> None:
    payloads = payloads_of(case)
    assert payloads
    for payload, encoding in payloads:
        outcome = outcome_of(decode_request, payload, encoding)
        if isinstance(outcome, RequestError):
            assert outcome.reason == "bad_request"
            assert {"error": outcome.code, "id": outcome.request_id} == case["answer"]
        else:
            assert isinstance(outcome, RemoteProtocolError)
            assert {"close": outcome.close_code} == case["answer"]


# --- liveness --------------------------------------------------------------------------------------------------------


@each(LIVENESS["timelines"])
def test_liveness(case: dict[str, Any]) -> None:
    settings = {"interval_s": case["interval_s"], "floor_s": case["floor_s"], "now_s": case["opened_at_s"]}
    liveness: ClientLiveness | ServerLiveness
    if case["watching"] == "client":
        liveness = ClientLiveness(misses=case["misses"], **settings)
    else:
        liveness = ServerLiveness(**settings)
    expect(liveness, case["at_opening"])
    for event in case["events"]:
        match event["event"]:
            case "ping":
                assert liveness.ping(event["at_s"]) == event["timestamp_ms"]
            case "heard":
                liveness.heard(event["at_s"])
            case "pong":
                round_trip_s = liveness.pong(event["timestamp_ms"], event["at_s"])
                assert round_trip_s == pytest.approx(event["round_trip_s"], abs=MICROSECOND_S)
            case "interval":
                liveness.interval_s = event["interval_s"]
        expect(liveness, event["then"])


def expect(liveness: ClientLiveness | ServerLiveness, then: dict[str, float | None]) -> None:
    assert liveness.ping_s == pytest.approx(then["ping_due_s"], abs=MICROSECOND_S)
    if then["lost_s"] is None:
        assert liveness.lost_s == float("inf")
    else:
        assert liveness.lost_s == pytest.approx(then["lost_s"], abs=MICROSECOND_S)


# --- backoff ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BACKOFF["bounds"], ids=lambda bound: bound["attempt"])
def test_backoff_bounds(bound: dict[str, Any]) -> None:
    for fraction in (0.0, 0.5, 1 - 2**-53):
        wait_s = delay_s(bound["attempt"], lambda fraction=fraction: fraction)  # type: ignore[misc]
        assert bound["least_s"] - MICROSECOND_S <= wait_s <= bound["most_s"] + MICROSECOND_S


@pytest.mark.parametrize("case", BACKOFF["exact"])
def test_backoff_exactly(case: dict[str, Any]) -> None:
    assert delay_s(case["attempt"], lambda: case["random"]) == pytest.approx(case["delay_s"], abs=MICROSECOND_S)


def test_backoff_walk() -> None:
    backoff = Backoff()
    bounds = {bound["attempt"]: bound for bound in BACKOFF["bounds"]}
    for step in BACKOFF["walk"]:
        if step["event"] == "failure":
            bound = bounds[step["wait_of_attempt"]]
            assert bound["least_s"] <= backoff.next_delay_s() <= bound["most_s"] + MICROSECOND_S
        else:
            backoff.reset()
        assert backoff.unavailable is step["unavailable"]


# --- topics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS["topics"]["valid"])
def test_valid_topics(topic: str) -> None:
    assert check_topic(topic) == topic
    assert is_reserved(topic) is (topic in TOPICS["topics"]["reserved"])


@pytest.mark.parametrize("topic", TOPICS["topics"]["invalid"])
def test_invalid_topics(topic: str) -> None:
    with pytest.raises(ValueError, match=r"^topic "):
        check_topic(topic)


@pytest.mark.parametrize("pattern", TOPICS["patterns"]["valid"])
def test_valid_patterns(pattern: str) -> None:
    assert Pattern(pattern).text == pattern


@pytest.mark.parametrize("pattern", TOPICS["patterns"]["invalid"])
def test_invalid_patterns(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^pattern "):
        Pattern(pattern)


@pytest.mark.parametrize("case", TOPICS["matches"], ids=lambda case: f"{case['pattern']} {case['topic']}")
def test_matches(case: dict[str, Any]) -> None:
    assert Pattern(case["pattern"]).matches(check_topic(case["topic"])) is case["matches"]


# --- traces ----------------------------------------------------------------------------------------------------------


@each(TRACES["cases"])
def test_traces(case: dict[str, Any]) -> None:
    assert read_trace(case["trace"]) == case["read"]


@pytest.mark.parametrize(
    "rows", [FRAMES["cases"], TRACES["cases"], *(MESSAGES[kind] for kind in ("valid", "transcoded", "invalid"))]
)
def test_names_are_unique(rows: list[dict[str, Any]]) -> None:
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
