"""The page of a report: read by an HTML parser, it shows everything and asks for nothing from outside."""

from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given, settings

from notifyd.bench.html import render_page
from notifyd.bench.plots import MOST_POINTS, Plotted, draw_plots, percentile_curve
from notifyd.bench.report import Comparison, LoadReport
from tests.unit.bench.reports import EMPTY, HISTOGRAM, HOSTILE, REPORT, REPORTS, sample_at

VOID = {"meta", "br", "hr", "img", "link", "input"}
LOADING = {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "a", "audio", "video"}
REFERENCES = {"src", "href", "xlink:href", "action", "background", "data", "poster", "srcset", "style"}


class Page(HTMLParser):
    """The tags, attributes and texts of a page; each tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def page_of(found: LoadReport | Comparison) -> Page:
    """Parse a page, and assert that it loads nothing."""
    text = render_page(found, "notifyd bench fanout")
    page = Page(text)
    assert not LOADING & set(page.tags)
    assert not REFERENCES & page.attributes
    assert not {name for name in page.attributes if name.startswith("on")}
    for style in text.split("<style>")[1:]:
        assert "url(" not in style.split("</style>")[0]
        assert "@import" not in style.split("</style>")[0]
    assert "default-src 'none'" in text
    return page


def comparison(**changed: object) -> Comparison:
    return Comparison(REPORT, msgspec.structs.replace(REPORT, **changed), {"topics": '[{match = "**", history = 0}]'})


def test_it_shows_figures_plots_and_how_to_run_it_again() -> None:
    page = page_of(REPORT)
    for text in ("5,964/s", "1.21 ms", "17 kB", "139 µs", "notifyd bench fanout", "payload_bytes"):
        assert text in page.texts, text
    assert page.tags.count("svg") == 7
    assert "The load generator was not saturated: it did not set these figures." in page.texts


def test_errors_and_saturation_are_told() -> None:
    changed = msgspec.structs.replace(REPORT, errors={"refused": 3, "timeout": 1200}, saturated="it was busy")
    page = page_of(changed)
    for text in ("refused", "3", "1,200", "SATURATED: it was busy. The server may be faster than these figures."):
        assert text in page.texts
    assert page.tags.count("svg") == 8


def test_without_anything_measured_there_is_a_page() -> None:
    assert page_of(EMPTY).texts.count("nothing was measured") == 7


def test_before_and_after_stand_in_the_same_plots() -> None:
    page = page_of(comparison(rate=11928.2, errors={"refused": 3}))
    for text in ("before", "after", "5,964/s", "11,928/s", "x 2.00", "p99, before", "topics", "refused"):
        assert text in page.texts, text
    assert page.tags.count("svg") == 8


def test_what_strangers_say_stays_text() -> None:
    texts = {
        "url": HOSTILE,
        "errors": {HOSTILE: 2},
        "unit": HOSTILE,
        "saturated": HOSTILE,
        "options": {HOSTILE: HOSTILE},
    }
    page = page_of(comparison(**texts))
    assert any("<script src=" in text for text in page.texts)
    assert not any(character in text for text in page.texts for character in "\x1b\u202e")


@settings(max_examples=12)
@given(REPORTS, REPORTS)
def test_any_report_has_a_page(before: LoadReport, after: LoadReport) -> None:
    page_of(before)
    page_of(Comparison(before, after, {"limits.queue": "'1MiB'"}))


def test_long_loads_have_small_plots() -> None:
    long = msgspec.structs.replace(REPORT, samples=[sample_at(number) for number in range(1, 20_000)])
    assert len(render_page(long, "")) < 10 * len(render_page(REPORT, ""))
    rate, *_ = draw_plots([Plotted("", long)])
    assert rate.split('class="line c0" d="')[1].split('"')[0].count("L") < MOST_POINTS


def test_the_percentile_curve_counts_nines() -> None:
    curve = percentile_curve([(1.0, 90), (2.0, 9), (3.0, 1)])
    assert [bound for _, bound in curve] == [1.0, 2.0, 3.0]
    assert [nines for nines, _ in curve] == pytest.approx([0, 1, 2])
    assert percentile_curve([]) == []
    assert percentile_curve([(5.0, 7)]) == [(0.0, 5.0)]
    assert len(percentile_curve(HISTOGRAM)) == len(HISTOGRAM)
