"""`python -m tests.bench.document`: writes the kept figures into the README, and draws the curves as spec/*.svg."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from notifyd.bench.plot import Axis, Line, draw_plot
from tests.bench import record
from tests.bench.curve import Curve
from tests.bench.result import Result

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PLOTS = ROOT / "spec"
BEGIN, END = "<!-- figures: python -m tests.bench.document -->", "<!-- end of figures -->"


def main() -> None:
    results, curves = record.read()
    README.write_text(with_figures(README.read_text(encoding="utf-8"), results), encoding="utf-8")
    for curve in (curve for some in curves.values() for curve in some):
        (PLOTS / f"{curve.name}.svg").write_text(plot(curve), encoding="utf-8")


def with_figures(readme: str, results: Mapping[str, Sequence[Result]]) -> str:
    """Return the README with the table of these results in its place."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures(results)}\n{END}{after}"


def figures(results: Mapping[str, Sequence[Result]]) -> str:
    """Write results as a Markdown table: each line with the name to give to `python -m tests.bench`."""
    lines = ["| measured | notifyd | compared with | ratio | target | by |", "|---|--:|---|--:|--:|---|"]
    lines += [_line(name, result) for name, some in results.items() for result in some]
    return "\n".join(lines)


def _line(name: str, result: Result) -> str:
    target = "" if result.target is None else f"{result.target:g}"
    missed = ", missed" if result.verdict == "MISSED" else ""
    compared = f"{_short(result.reference)} {result.unit}, {result.against}"
    ours = f"{_short(result.figure)} {result.unit}"
    return f"| {result.name} | {ours} | {compared} | {result.ratio:.2f} | {target}{missed} | `{name}` |"


def _short(figure: float) -> str:
    """Write a figure with as many digits as tell something."""
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"


def plot(curve: Curve) -> str:
    """Draw a curve."""
    lines = [Line(name, [(x, y) for x, y in points]) for name, points in curve.lines.items()]
    x, y = Axis(curve.x, is_log=curve.log_x), Axis(curve.y, is_log=curve.log_y)
    return draw_plot(curve.title, lines, x, y, marked=True)


if __name__ == "__main__":
    main()
