"""A load's report as one page that needs nothing else: for a screen, light or dark, for a phone, and for paper."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain

from notifyd.bench.figures import NONE, Figure, describe_ratio, figures_of
from notifyd.bench.plots import Plotted, draw_plots
from notifyd.bench.report import Comparison, LoadReport
from notifyd.bench.text import describe_saturation, describe_start
from notifyd.bench.tuning import tuning_of
from notifyd.text import printable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page may load nothing, whatever stands in it."""

_HEADLINES = ("rate", "latency p50", "latency p99", "errors", "server CPU, of a core", "memory per connection")

_STYLE = """
:root{color-scheme:light dark;--ground:#f4f5f7;--card:#fff;--ink:#1d2430;--faint:#5d6675;--line:#dfe3e8;--bad:#b3261e}
@media screen and (prefers-color-scheme:dark){:root{--ground:#0c0f14;--card:#14181f;--ink:#e6e9ef;--faint:#98a2b3;
--line:#2b323d;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.25rem;max-width:66rem;background:var(--ground);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
h1{font-size:1.4rem;margin:0 0 .25rem}h2{font-size:1.05rem;margin:1.75rem 0 .5rem}p{margin:.25rem 0}
.faint{color:var(--faint);overflow-wrap:anywhere}.bad{color:var(--bad);font-weight:600}
.cards,.plots{display:grid;gap:.75rem}
.cards{grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));margin-top:1rem}
.plots{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.cards div,.plots figure,.table,pre{background:var(--card);border:1px solid var(--line);border-radius:8px}
.cards div{padding:.6rem .8rem}.cards b{display:block;font-size:1.25rem;font-weight:600}
.plots figure{margin:0;padding:.25rem}.plots svg{display:block;width:100%;height:auto}
.table+.table{margin-top:.75rem}.table{overflow-x:auto;padding:.25rem .8rem;max-width:48rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .75rem .3rem 0;text-align:left;vertical-align:top;overflow-wrap:break-word}
th{color:var(--faint);font-weight:500}tr+tr>*{border-top:1px solid var(--line)}
.numbers td,.numbers thead th+th{text-align:right;white-space:nowrap;padding-right:0;padding-left:.75rem}
.facts th{width:14rem;max-width:40vw}.facts td{overflow-wrap:anywhere}
pre{padding:.75rem .8rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
.kinds th{overflow-wrap:anywhere;min-width:8rem}
@media (max-width:30rem){body{padding:.75rem}table{font-size:13px}th,td{padding-right:.5rem}}
@media print{body{background:none;max-width:none;padding:0;font-size:12px}.plots{grid-template-columns:1fr 1fr}
.cards{grid-template-columns:repeat(3,1fr)}
figure,tr,.cards div{break-inside:avoid}}
""".strip()


def render_page(found: LoadReport | Comparison, command: str) -> str:
    """Return the page; `command` is how to reproduce what it shows, without a secret in it."""
    shown = _shown(found)
    last = shown[-1].report
    title = f"notifyd bench {last.scenario}"
    plots = [f"<figure>{plot}</figure>" for plot in draw_plots(shown)]
    parts = chain(
        ['<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'],
        [f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'],
        ['<meta name="viewport" content="width=device-width, initial-scale=1">'],
        [f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_safe(title)}</h1>"],
        _introduction(last, shown),
        _cards(shown),
        _tuning(found),
        ["<h2>Plots</h2>", '<div class="plots">', *plots, "</div>"],
        ["<h2>Figures</h2>", *_figures(shown)],
        _errors(shown),
        ["<h2>What was run</h2>", *_options(last), "<h2>Again</h2>", f"<pre>{_safe(command)}</pre>"],
        ["</body>\n</html>\n"],
    )
    return "\n".join(parts)


def _shown(found: LoadReport | Comparison) -> list[Plotted]:
    if isinstance(found, LoadReport):
        return [Plotted("", found)]
    return [Plotted("before", found.before, colour=1, dashed=True), Plotted("after", found.after)]


def _introduction(last: LoadReport, shown: Sequence[Plotted]) -> Iterable[str]:
    processes = f"{last.processes} load process{'es'[: 2 * (last.processes != 1)]}"
    about = f"{last.url}, {last.encoding}, {processes}, {describe_start(last)}"
    yield f'<p class="faint">{_safe(about)}</p>'
    for one in shown:
        when = f"{one.name}: " if one.name else ""
        look = "bad" if one.report.saturated is not None else "faint"
        yield f'<p class="{look}">{_safe(when + describe_saturation(one.report))}</p>'


def _cards(shown: Sequence[Plotted]) -> Iterable[str]:
    """Show what is asked first; after tuning, with how much it changed."""
    yield '<div class="cards">'
    for figure, ratio in zip(*_last_figures(shown), strict=True):
        if figure.name in _HEADLINES and figure.text != NONE:
            told = f'<span class="faint">{_safe(ratio)}</span>' if ratio else ""
            yield f'<div><span class="faint">{_safe(figure.name)}</span><b>{_safe(figure.text)}</b>{told}</div>'
    yield "</div>"


def _last_figures(shown: Sequence[Plotted]) -> tuple[list[Figure], list[str]]:
    """Return the figures of the last report, and how many times as much as in the first each is."""
    first, last = figures_of(shown[0].report), figures_of(shown[-1].report)
    if len(shown) == 1:
        return last, [""] * len(last)
    return last, [describe_ratio(new.ratio_to(old)) for old, new in zip(first, last, strict=True)]


def _tuning(found: LoadReport | Comparison) -> Iterable[str]:
    if isinstance(found, Comparison):
        yield "<h2>Tuning</h2>"
        for key, value in found.tuning.items():
            known = tuning_of(key)
            more = [] if known is None else [("instead of", known.default), ("why", known.why), ("costs", known.costs)]
            yield from _table((), [(key, value), *more], look="facts")


def _figures(shown: Sequence[Plotted]) -> Iterable[str]:
    columns = [[figure.text for figure in figures_of(one.report)] for one in shown]
    last, ratios = _last_figures(shown)
    heads = ("", *(one.name for one in shown), "ratio") if len(shown) > 1 else ()
    rows = zip((figure.name for figure in last), *columns, *([ratios] if len(shown) > 1 else []), strict=True)
    return _table(heads, rows, look="numbers")


def _errors(shown: Sequence[Plotted]) -> Iterable[str]:
    kinds = sorted({kind for one in shown for kind in one.report.errors})
    if kinds:
        yield "<h2>Errors</h2>"
        heads = ("", *(one.name for one in shown)) if len(shown) > 1 else ()
        rows = [(kind, *(f"{one.report.errors.get(kind, 0):,}" for one in shown)) for kind in kinds]
        yield from _table(heads, rows, look="numbers kinds")


def _options(report: LoadReport) -> Iterable[str]:
    phases = ((f"seconds of {name}", f"{seconds:.2f}") for name, seconds in report.phases.items())
    options = ((name, str(value)) for name, value in report.options.items())
    return _table((), [("scenario", report.scenario), ("encoding", report.encoding), *options, *phases], look="facts")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], look: str) -> Iterable[str]:
    """Draw a table, the first cell of each row as its head."""
    yield f'<div class="table"><table class="{look}">'
    if heads:
        cells = "".join(f'<th scope="col">{_safe(head)}</th>' for head in heads)
        yield f"<thead><tr>{cells}</tr></thead>"
    yield "<tbody>"
    for name, *values in rows:
        cells = "".join(f"<td>{_safe(value)}</td>" for value in values)
        yield f'<tr><th scope="row">{_safe(name)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _safe(text: str) -> str:
    """Return a stranger's text as a page can hold it."""
    return escape(printable(text))
