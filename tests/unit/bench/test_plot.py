"""Plots as SVG: what is in them, for any data; that they need nothing from outside and are drawn alike each time."""

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.bench.plot import Axis, Line, draw_plot
from tests.unit.bench.reports import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"
NAN = float("nan")

POINTS = st.lists(st.tuples(st.floats(), st.none() | st.floats()), max_size=10)
SERIES = st.builds(Line, st.text(max_size=80), POINTS, dashed=st.booleans(), stepped=st.booleans())
AXES = st.builds(Axis, st.text(max_size=20), st.booleans())


def lines_of(plot: str) -> list[str]:
    """The shapes of the lines of a plot, without the legend."""
    found = [path.get("d", "") for path in ET.fromstring(plot).iter(f"{SVG}path") if "line" in path.get("class", "")]
    return [shape for shape in found if not shape.endswith("h20")]


def texts_of(plot: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(plot).iter(f"{SVG}text")]


def test_a_line_goes_through_its_points() -> None:
    plot = draw_plot("Load", [Line("one", [(0, 0), (5, 10), (10, 5)])], Axis("s"), Axis("ms"), width=720, height=360)
    (shape,) = lines_of(plot)
    (left, low), (middle, high), (right, half) = [
        tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", shape)
    ]
    assert left < middle < right
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    assert low - half == pytest.approx(half - high, abs=0.2)
    assert {"Load", "one", "s", "ms", "0", "10"} <= set(texts_of(plot))


def test_ticks_stand_where_their_values_do() -> None:
    points = [(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]
    plot = ET.fromstring(draw_plot("", [Line("", points)], Axis("x", is_log=True), Axis("y", is_log=True), marked=True))
    dots = [float(dot.get("cx", "")) for dot in plot.iter(f"{SVG}circle")]
    labels = {
        text.text: float(text.get("x", "")) for text in plot.iter(f"{SVG}text") if text.get("text-anchor") == "middle"
    }
    assert [labels["1"], labels["10"], labels["100"]] == dots


def test_a_line_is_broken_where_there_is_nothing() -> None:
    points = [(0, 1), (1, 2), (2, None), (3, NAN), (4, 3), (5, 4), (6, None), (7, 9)]
    plot = draw_plot("", [Line("one", points)], Axis("x"), Axis("y"))
    assert len(lines_of(plot)) == 2
    assert plot.count("<circle") == 1  # the last one has no neighbour


@pytest.mark.parametrize("points", [[], [(1, None)], [(1, NAN)], [(1, 0)], [(1, -5)]])
def test_without_anything_to_show_it_says_so(points: list[tuple[float, float | None]]) -> None:
    plot = draw_plot("Nothing", [Line("one", points)], Axis("x"), Axis("y", is_log=True))
    assert "nothing was measured" in texts_of(plot)
    assert lines_of(plot) == []


def test_a_step_holds_from_the_point_before() -> None:
    plot = draw_plot("", [Line("", [(0, 0), (1, 4), (2, 2)], stepped=True)], Axis("x"), Axis("y"))
    (shape,) = lines_of(plot)
    assert re.fullmatch(r"M[\d.]+ [\d.]+(V[\d.]+H[\d.]+){2}", shape)


def test_it_is_told_to_those_who_cannot_see_it() -> None:
    plot = ET.fromstring(draw_plot("Memory", [Line("a", [(1, 2), (3, 40)])], Axis("links"), Axis("MB")))
    title, description = plot.find(f"{SVG}title"), plot.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert (title.text, description.text) == ("Memory", "MB against links. a: 2 at 1, 40 at 3.")
    assert plot.get("role") == "img"
    assert plot.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    given_one = draw_plot("Memory", [], Axis("links"), Axis("MB"), description="It grows.")
    assert "It grows.</desc>" in given_one


def test_labels_are_not_written_over_each_other() -> None:
    ticks = [(number / 10, f"label {number}") for number in range(11)]
    plot = draw_plot("", [Line("", [(0, 1), (1, 1)])], Axis("x", ticks=ticks), Axis("y"), width=440)
    shown = [text for text in texts_of(plot) if text.startswith("label")]
    assert 3 <= len(shown) < 11


def test_a_name_too_long_is_cut() -> None:
    plot = draw_plot("t" * 300, [Line("n" * 300, [(0, 1)]), Line("b", [])], Axis("x"), Axis("y"), width=440)
    assert all(len(text) < 75 for text in texts_of(plot))
    assert "t" * 300 in plot


@given(st.text(max_size=40), st.lists(SERIES, max_size=8), AXES, AXES, st.booleans())
def test_any_data_gives_a_plot_and_the_same_data_the_same(
    title: str, series: list[Line], x: Axis, y: Axis, marked: bool
) -> None:
    plot = draw_plot(title, series, x, y, marked=marked)
    ET.fromstring(plot)
    assert plot == draw_plot(title, series, x, y, marked=marked)
    assert "nan" not in "".join(lines_of(plot))
    assert "href" not in re.sub(r">[^<]*<", "><", plot)


def test_strangers_texts_stay_texts() -> None:
    plot = draw_plot(
        HOSTILE, [Line(HOSTILE, [(0, 1), (1, 1)]), Line("b", [])], Axis(HOSTILE), Axis(HOSTILE), marked=True
    )
    tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(plot).iter()}
    assert tags == {"svg", "title", "desc", "style", "rect", "text", "path", "circle"}


def test_it_is_light_and_dark() -> None:
    plot = draw_plot("", [], Axis("x"), Axis("y"))
    assert "@media screen and (prefers-color-scheme:dark)" in plot
    assert "url(" not in plot
    assert "@import" not in plot
