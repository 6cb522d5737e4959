import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.position import Continuity, Position
from tests.protocol.strategies import offsets, positions


@pytest.mark.parametrize(
    ("arrived", "continuity"),
    [
        (Position("e", 18), Continuity.NEXT),
        (Position("e", 17), Continuity.DUPLICATE),
        (Position("e", 1), Continuity.DUPLICATE),
        (Position("e", 19), Continuity.GAP),
        (Position("f", 18), Continuity.NEW_EPOCH),
        (Position("f", 1), Continuity.NEW_EPOCH),
    ],
)
def test_what_an_arrived_position_means(arrived: Position, continuity: Continuity) -> None:
    assert Position("e", 17).judge(arrived) is continuity


@given(st.integers(0, 50), st.lists(st.integers(1, 60)))
def test_a_subscriber_that_heeds_the_verdicts_never_misses_or_doubles(start: int, arrivals: list[int]) -> None:
    taken, position = [], Position("e", start)
    for offset in arrivals:
        if position.judge(Position("e", offset)) is Continuity.NEXT:
            position = Position("e", offset)
            taken.append(offset)
    assert taken == list(range(start + 1, start + 1 + len(taken)))


@given(positions)
def test_positions_survive_both_encodings(position: Position) -> None:
    assert msgspec.json.decode(msgspec.json.encode(position), type=Position) == position
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(position), type=Position) == position


@given(offsets, offsets)
def test_positions_can_be_keys(one: int, other: int) -> None:
    assert len({Position("e", one), Position("e", other)}) == (1 if one == other else 2)


@pytest.mark.parametrize("offset", [-1, 2**63])
def test_no_offset_is_beyond_a_signed_64_bit_counter(offset: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"epoch":"e","offset":%d}' % offset, type=Position)


@pytest.mark.parametrize("position", [Position("e", 0), Position("a:b", 7), Position("e", 2**63 - 1)])
def test_a_position_is_read_from_its_text(position: Position) -> None:
    assert Position.parse(f"{position.epoch}:{position.offset}") == position


@pytest.mark.parametrize(
    "text", ["", "7", ":7", "e:", "e:x", "e:-1", "e:1.0", "e: 1", "e:\u0663", f"e:{2**63}", "e:" + "9" * 5000]
)
def test_anything_else_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="is not EPOCH:OFFSET"):
        Position.parse(text)
