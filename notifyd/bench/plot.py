"""Line plots as SVG, for the report of a load and for the project's documents.

    svg = draw_plot("Memory", [Line("notifyd", points)], Axis("connections", is_log=True), Axis("MB"), marked=True)

The same data gives the same bytes. A plot brings its own colours, light and dark (`prefers-color-scheme`), and needs
nothing from outside.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from zlib import crc32

from notifyd.bench.scale import Scale, fit_scale, is_shown, tick_label
from notifyd.text import printable

COLOURS = 6
"""So many series differ in colour; further ones take the first again."""

_LETTER = 0.58
"""A character's width, as a share of the font's size: what is drawn must fit without measuring it."""

_FONT = 12
_TITLE_FONT = 14
_ROW = 18
_MARGIN = 10

_LIGHT = ("#fff", "#1d2430", "#667085", "#e4e7ec", "#1f66d1", "#d4570b", "#12805c", "#8b3fd1", "#c11f5d", "#0b7285")
_DARK = ("#14181f", "#e6e9ef", "#98a2b3", "#2b323d", "#6aa5ff", "#ff9a56", "#45cf9c", "#c596ff", "#ff7fae", "#54c7da")
"""Colours of the ground, the title and names, ticks and axes, the grid, and the series."""

_SHAPE = """\
.plot{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;font-size:12px}
.plot .title{font-size:14px;font-weight:600}
.plot path{fill:none}
.plot .line{stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.plot .dashed{stroke-dasharray:5 5}
.plot circle{stroke-width:2}"""


def _colours(palette: Sequence[str]) -> str:
    ground, ink, faint, grid, *lines = palette
    series = "".join(f".plot .c{place}{{stroke:{colour}}}" for place, colour in enumerate(lines))
    return (
        f".plot .ground,.plot circle{{fill:{ground}}}.plot text{{fill:{faint}}}.plot .title,.plot .name{{fill:{ink}}}"
        f".plot .grid{{stroke:{grid}}}.plot .axis{{stroke:{faint}}}{series}"
    )


_STYLE = f"{_SHAPE}\n{_colours(_LIGHT)}\n@media screen and (prefers-color-scheme:dark){{{_colours(_DARK)}}}"


@dataclass(frozen=True)
class Line:
    """One line: points of x and y, by x. A y of None, or one that its axis cannot show, breaks it."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: int | None = None
    """From 0 to COLOURS - 1; None takes the next one."""
    dashed: bool = False
    stepped: bool = False
    """A y holds from the point before to its own: the upper end of a bar."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows. `ticks`, each a value with its label, take the place of round values."""

    label: str
    is_log: bool = False
    ticks: Sequence[tuple[float, str]] | None = None


def draw_plot(
    title: str,
    series: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    description: str = "",
    width: int = 720,
    height: int = 360,
    marked: bool = False,
) -> str:
    """Return an SVG of a plot; `marked` shows each point, with its values for whoever points at it.

    A description, for those who cannot see it, is made from the series where none is given.
    """
    frame = _Frame(title, series, x, y, width=width, height=height)
    told = description or _describe(series, x, y)
    key = f"p{crc32(repr((title, told, series, width, height)).encode()):08x}"
    size = f'width="{width}" height="{height}"'
    shape = f'{size} viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}t {key}d"'
    heading = _safe(_cut(title, width - 2 * _MARGIN, _TITLE_FONT))
    pieces = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" {shape}>',
        f'<title id="{key}t">{_safe(title)}</title>',
        f'<desc id="{key}d">{_safe(told)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" {size} rx="6"/>',
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN + _TITLE_FONT}">{heading}</text>',
        *frame.draw_axes(),
        *(piece for place, one in enumerate(series) for piece in frame.draw_series(place, one, marked=marked)),
        *frame.draw_legend(),
    ]
    return "\n".join([*pieces, "</svg>\n"])


class _Frame:
    """Where everything stands: the scales of both axes, their ticks and the rows of the legend."""

    def __init__(self, title: str, series: Sequence[Line], x: Axis, y: Axis, *, width: int, height: int) -> None:
        self._series, self._x, self._y = series, x, y
        self._names = (
            [] if [one.name for one in series] in ([], [""], [title]) else _legend_rows(series, width - 2 * _MARGIN)
        )
        points = [point for one in series for point in one.points if self._is_visible(point)]
        self._is_empty = not points
        top = _MARGIN * 2 + _TITLE_FONT + _ROW * len(self._names) + _ROW + 6
        bottom = height - _MARGIN - 2 * _ROW
        most = max(2, (bottom - top) // 28)
        values = [value for _, value in points if value is not None]
        self.y_scale = fit_scale(values, bottom, top, is_log=y.is_log).widened(most)
        self._y_ticks = _ticks_of(y, self.y_scale, most)
        left = _MARGIN + round(max(_width_of(label) for _, label in self._y_ticks)) + 8
        right = width - _MARGIN - 12
        self.x_scale = fit_scale([value for value, _ in points], left, right, is_log=x.is_log)
        self._x_ticks = _without_overlap(_ticks_of(x, self.x_scale, max(2, (right - left) // 56)), self.x_scale)

    def _is_visible(self, point: tuple[float, float | None]) -> bool:
        return is_shown(point[0], is_log=self._x.is_log) and is_shown(point[1], is_log=self._y.is_log)

    def draw_axes(self) -> Iterator[str]:
        """Draw the grid, the ticks and what the axes show."""
        x, y = self.x_scale, self.y_scale
        for value, label in self._y_ticks:
            at = y.place(value)
            yield f'<path class="grid" d="M{x.begin:.1f} {at:.1f}H{x.end:.1f}"/>'
            yield f'<text x="{x.begin - 6:.1f}" y="{at + 4:.1f}" text-anchor="end">{_safe(label)}</text>'
        for value, label in self._x_ticks:
            at = x.place(value)
            yield f'<path class="axis" d="M{at:.1f} {y.begin:.1f}v4"/>'
            yield f'<text x="{at:.1f}" y="{y.begin + 17:.1f}" text-anchor="middle">{_safe(label)}</text>'
        yield f'<path class="axis" d="M{x.begin:.1f} {y.begin:.1f}H{x.end:.1f}"/>'
        yield f'<text x="{x.end:.1f}" y="{y.begin + 34:.1f}" text-anchor="end">{_safe(self._x.label)}</text>'
        yield f'<text x="{_MARGIN}" y="{y.end - 10:.1f}">{_safe(self._y.label)}</text>'
        if self._is_empty:
            middle = f'x="{(x.begin + x.end) / 2:.1f}" y="{(y.begin + y.end) / 2:.1f}"'
            yield f'<text class="name" {middle} text-anchor="middle">nothing was measured</text>'

    def draw_series(self, place: int, one: Line, *, marked: bool) -> Iterator[str]:
        """Draw a line in its colour, broken where there is nothing, and a point that has no neighbour as a dot."""
        look = f"c{_colour_of(place, one)}"
        for run in self._runs(one):
            places = [(self.x_scale.place(x), self.y_scale.place(y)) for x, y in run]
            if len(run) > 1:
                dashed = " dashed" if one.dashed else ""
                yield f'<path class="line {look}{dashed}" d="{_path(places, stepped=one.stepped)}"/>'
            if marked or len(run) == 1:
                for (x, y), (left, top) in zip(run, places, strict=True):
                    told = f"{one.name}: {x:.6g} {self._x.label}, {y:.6g} {self._y.label}"
                    place_of = f'cx="{left:.1f}" cy="{top:.1f}" r="3"'
                    yield f'<circle class="{look}" {place_of}><title>{_safe(told)}</title></circle>'

    def _runs(self, one: Line) -> Iterator[list[tuple[float, float]]]:
        run: list[tuple[float, float]] = []
        for x, y in one.points:
            if y is not None and self._is_visible((x, y)):
                run.append((x, y))
            elif run:
                yield run
                run = []
        if run:
            yield run

    def draw_legend(self) -> Iterator[str]:
        """Draw each line's name with a piece of the line, in as many rows as they need."""
        for row, names in enumerate(self._names):
            middle = _MARGIN * 2 + _TITLE_FONT + _ROW * row + _ROW // 2
            for left, place, name in names:
                one = self._series[place]
                look = f"line c{_colour_of(place, one)}{' dashed' if one.dashed else ''}"
                yield f'<path class="{look}" d="M{left:.1f} {middle}h20"/>'
                yield f'<text class="name" x="{left + 26:.1f}" y="{middle + 4}">{_safe(name)}</text>'


def _legend_rows(series: Sequence[Line], width: float) -> list[list[tuple[float, int, str]]]:
    """Spread the names over rows: where each begins, the place of its series, and the name, cut to a row."""
    rows: list[list[tuple[float, int, str]]] = [[]]
    left = 0.0
    for place, one in enumerate(series):
        name = _cut(one.name, width - 26)
        needed = 26 + _width_of(name)
        if rows[-1] and left + needed > width:
            rows.append([])
            left = 0.0
        rows[-1].append((_MARGIN + left, place, name))
        left += needed + 18
    return rows


def _ticks_of(axis: Axis, scale: Scale, most: int) -> list[tuple[float, str]]:
    if axis.ticks is not None:
        return [(value, label) for value, label in axis.ticks if scale.low <= value <= scale.high] or [(scale.low, "")]
    return [(value, tick_label(value)) for value in scale.ticks(most)]


def _without_overlap(ticks: Sequence[tuple[float, str]], scale: Scale) -> list[tuple[float, str]]:
    """Leave out what would be written over the label before it."""
    kept: list[tuple[float, str]] = []
    free = float("-inf")
    for value, label in sorted(ticks):
        middle, half = scale.place(value), _width_of(label) / 2
        if middle - half >= free:
            kept.append((value, label))
            free = middle + half + 3
    return kept


def _path(places: Sequence[tuple[float, float]], *, stepped: bool) -> str:
    (left, top), *_ = places
    if stepped:
        return f"M{left:.1f} {top:.1f}" + "".join(f"V{y:.1f}H{x:.1f}" for _, (x, y) in pairwise(places))
    return f"M{left:.1f} {top:.1f}" + "".join(f"L{x:.1f} {y:.1f}" for x, y in places[1:])


def _describe(series: Sequence[Line], x: Axis, y: Axis) -> str:
    """Say in words from where to where each line goes."""
    lines = []
    for one in series:
        known = [(at, value) for at, value in one.points if value is not None]
        if known:
            (first, begin), (last, end) = known[0], known[-1]
            lines.append(f"{one.name}: {begin:.6g} at {first:.6g}, {end:.6g} at {last:.6g}.")
    return " ".join([f"{y.label} against {x.label}.", *(lines or ["Nothing was measured."])])


def _colour_of(place: int, one: Line) -> int:
    return (place if one.colour is None else one.colour) % COLOURS


def _width_of(text: str, font: int = _FONT) -> float:
    return len(text) * font * _LETTER


def _cut(text: str, width: float, font: int = _FONT) -> str:
    most = max(1, int(width / (font * _LETTER)))
    return text if len(text) <= most else text[: most - 1] + "…"


def _safe(text: str) -> str:
    """Return a text as XML can hold it."""
    return escape(printable(text))
