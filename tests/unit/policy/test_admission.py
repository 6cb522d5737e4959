import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.policy.admission import Admission


@st.composite
def limits(draw: st.DrawFn) -> tuple[int, int]:
    limit = draw(st.integers(1, 20))
    return limit, draw(st.integers(1, limit))


@given(limits(), st.lists(st.booleans(), max_size=200))
def test_it_refuses_from_the_limit_down_to_resume(numbers: tuple[int, int], arrivals: list[bool]) -> None:
    limit, resume = numbers
    admission = Admission(limit, resume)
    count, closed = 0, False
    for arrives in arrivals:
        if arrives:
            closed = count >= (resume if closed else limit)
            assert admission.admit() is not closed
            count += not closed
        elif count:
            admission.release()
            count -= 1
        assert admission.count == count <= limit
        assert admission.refusing is closed


def test_the_limit_itself_is_let_in() -> None:
    admission = Admission(3, 2)
    assert [admission.admit() for _ in range(5)] == [True, True, True, False, False]
    admission.release()
    assert not admission.admit()
    admission.release()
    assert admission.admit()


def test_without_hysteresis_one_out_is_one_in() -> None:
    admission = Admission(2, 2)
    assert [admission.admit() for _ in range(3)] == [True, True, False]
    admission.release()
    assert [admission.admit() for _ in range(2)] == [True, False]


def test_other_limits_hold_for_whoever_comes_next() -> None:
    admission = Admission(1, 1)
    assert [admission.admit() for _ in range(2)] == [True, False]
    admission.resize(3, 1)
    assert [admission.admit() for _ in range(3)] == [True, True, False]
    admission.resize(1, 1)
    admission.release()
    assert not admission.admit()


@pytest.mark.parametrize(("limit", "resume"), [(5, 6), (5, 0), (0, 0)])
def test_impossible_limits(limit: int, resume: int) -> None:
    with pytest.raises(ValueError, match="resume must be between"):
        Admission(limit, resume)


def test_a_release_too_many() -> None:
    with pytest.raises(ValueError, match="without an admission"):
        Admission(1, 1).release()
