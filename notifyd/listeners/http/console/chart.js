// A line chart over time: axes, units, gaps where nothing is known, and the values under the pointer or the arrow keys.
// The legend is the read-out: it shows the newest values, or those at the cursor.

import { el, mark, say, setChildren, svg } from "./dom.js";
import { clock, number } from "./format.js";

const LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 20;
const GAP_MS = 3500;          // further apart, two points are not joined
const SNAP_MS = 2500;         // how far from the cursor a value may be
const TICKS_S = [[60, 15], [120, 30], [300, 60], [900, 180], [Infinity, 600]];
const SUMMARY_MS = 5000;      // how often the text alternative is written anew

export class LineChart {
  // `zero`: the axis begins at 0. `small`: a line and its range alone, for a list of many.
  constructor({ title, format = number, height = 148, zero = true, small = false, binary = false }) {
    Object.assign(this, { title, format, height, zero, small, binary, given: null, cursor: null, width: 0, summaryAt: -Infinity });
    this.svg = svg("svg", { height, "aria-hidden": "true", focusable: "false" });
    this.grid = svg("g", { class: "grid" });
    this.lines = svg("g", { class: "lines" });
    this.over = svg("g", { class: "over" });
    this.svg.append(this.grid, this.lines, this.over);
    this.plot = el("div", { class: "plot" }, this.svg);
    this.when = el("span", { class: "when" });
    this.legend = el("ul", { class: "legend" });
    this.summary = el("p", { class: "hidden" });
    this.element = small ? el("div", { class: "chart small" }, this.plot)
      : el("figure", { class: "chart card" }, el("figcaption", {}, el("h2", {}, title, this.when), this.summary), this.legend, this.plot);
    if (!small) this.makeReachable();
    this.listen();
  }

  makeReachable() {
    for (const [name, value] of [["role", "slider"], ["tabindex", "0"], ["aria-label", `${this.title}: time`],
      ["aria-valuemin", "0"], ["aria-valuemax", "100"], ["aria-valuenow", "100"], ["aria-valuetext", "now"]]) mark(this.plot, name, value);
    this.plot.onkeydown = (event) => this.steer(event);
    this.plot.onblur = () => this.point(null);
  }

  listen() {
    new ResizeObserver(([entry]) => {
      this.width = Math.floor(entry.contentRect.width);
      this.draw();
    }).observe(this.plot);
    this.plot.onpointermove = this.plot.onpointerdown = (event) =>
      this.point((event.clientX - this.plot.getBoundingClientRect().left - this.left) / this.inner);
    this.plot.onpointerleave = (event) => event.pointerType === "mouse" && this.point(null);
  }

  get left() { return this.small ? 0 : LEFT; }
  get inner() { return Math.max(1, this.width - this.left - (this.small ? 2 : RIGHT)); }
  get bottom() { return this.small ? 2 : BOTTOM; }

  // `series`: [{name, points: [[Unix ms, value or null], …], now?: text for the legend}], drawn from `from` to `to`.
  update(given) {
    this.given = given;
    this.draw();
  }

  point(ratio) {
    this.cursor = ratio === null ? null : Math.min(1, Math.max(0, ratio));
    this.draw();
  }

  steer(event) {
    const seconds = this.given ? (this.given.to - this.given.from) / 1000 : 60;
    const now = this.cursor ?? 1;
    const to = { ArrowLeft: now - 1 / seconds, ArrowRight: now + 1 / seconds, PageUp: now - 0.1, PageDown: now + 0.1,
      Home: 0, End: 1, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.point(to);
  }

  draw() {
    if (!this.given || this.width < 20) return;
    const { from, to, series } = this.given;
    const scale = this.scale(series);
    this.x = (time) => this.left + this.inner * (time - from) / (to - from);
    this.y = (value) => TOP + (this.height - TOP - this.bottom) * (1 - (value - scale.low) / (scale.high - scale.low));
    mark(this.svg, "width", this.width);
    mark(this.svg, "viewBox", `0 0 ${this.width} ${this.height}`);
    if (!this.small) this.drawGrid(scale, (to - from) / 1000);
    this.lines.replaceChildren(...series.map(({ points }, i) => svg("path", { class: `s${i}`, d: this.path(points) })));
    this.drawCursor();
    if (!this.small) this.describe();
  }

  scale(series) {
    const values = series.flatMap(({ points }) => points.map(([, value]) => value)).filter((value) => value !== null);
    let low = values.length ? Math.min(...values) : 0, high = values.length ? Math.max(...values) : 1;
    if (this.zero) low = Math.min(0, low);
    if (high - low < 1e-9) [low, high] = this.zero ? [low, low + 1] : [low - 1, high + 1];
    const step = this.step((high - low) / 3);
    if (this.small) return { low: low - (high - low) * 0.08, high: high + (high - low) * 0.08, step };
    return { low: Math.floor(low / step) * step, high: Math.ceil(high / step - 1e-9) * step, step };
  }

  step(rough) {
    if (this.binary) return 2 ** Math.max(0, Math.ceil(Math.log2(rough)));
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999) ?? 10 * power;
  }

  drawGrid({ low, high, step }, seconds) {
    const parts = [];
    for (let value = low; value <= high + step / 2; value += step) {
      const y = this.y(value).toFixed(1);
      parts.push(svg("path", { d: `M${LEFT} ${y}H${this.width - RIGHT}` }),
        svg("text", { x: LEFT - 7, y: Number(y) + 4, "text-anchor": "end" }, this.format(Math.abs(value) < step / 1e6 ? 0 : value)));
    }
    const every = TICKS_S.find(([most]) => seconds <= most)[1];
    for (let ago = 0; ago <= seconds; ago += every) {
      const x = LEFT + this.inner * (1 - ago / seconds);
      const text = ago === 0 ? "now" : ago % 60 ? `−${ago} s` : `−${ago / 60} min`;
      parts.push(svg("text", { x: x.toFixed(1), y: this.height - 3, "text-anchor": ago ? "middle" : "end" }, text));
    }
    this.grid.replaceChildren(...parts);
  }

  path(points) {
    let d = "", before = -Infinity;
    for (const [time, value] of points) {
      if (value === null) {
        before = -Infinity;
        continue;
      }
      const where = `${this.x(time).toFixed(1)} ${this.y(value).toFixed(1)}`;
      d += time - before > (this.given.gap ?? GAP_MS) ? `M${where}h0` : `L${where}`;
      before = time;
    }
    return d;
  }

  drawCursor() {
    const { from, to, series } = this.given;
    const time = this.cursor === null ? null : from + this.cursor * (to - from);
    const found = series.map(({ points }) => (time === null ? points.at(-1) : nearest(points, time)) ?? null);
    const parts = [];
    if (time !== null) {
      const x = this.x(time).toFixed(1);
      parts.push(svg("path", { class: "cursor", d: `M${x} ${TOP}V${this.height - this.bottom}` }));
    }
    found.forEach((pair, i) => {
      if (pair && pair[1] !== null && pair[0] >= from && (time !== null || this.small))
        parts.push(svg("circle", { class: `s${i}`, cx: this.x(pair[0]).toFixed(1), cy: this.y(pair[1]).toFixed(1), r: 2.5 }));
    });
    this.over.replaceChildren(...parts);
    this.onread?.(time === null ? null : found[0]);
    if (!this.small) this.read(time, found);
  }

  read(time, found) {
    const { series, to } = this.given;
    const rows = series.map(({ name, now }, i) => {
      const row = this.legend.children[i] ?? el("li", {}, el("i", { "aria-hidden": "true" }), el("span"), el("b"));
      mark(row, "class", `s${i}`);
      say(row.children[1], name);
      const fresh = found[i] && (time !== null || to - found[i][0] < GAP_MS);
      say(row.children[2], time === null && now !== undefined ? now : this.format(fresh ? found[i][1] : null));
      return row;
    });
    setChildren(this.legend, rows);
    say(this.when, time === null ? "" : clock(time));
    mark(this.plot, "aria-valuenow", Math.round((this.cursor ?? 1) * 100));
    const values = rows.map((row) => `${row.children[1].textContent} ${row.children[2].textContent}`).join(", ");
    if (this.cursor !== null) mark(this.plot, "aria-valuetext", `${clock(time)}: ${values}`);
  }

  // The text alternative: what each line shows, in words.
  describe() {
    const now = performance.now();
    if (now - this.summaryAt < SUMMARY_MS) return;
    this.summaryAt = now;
    const told = this.given.series.map(({ name, points }) => {
      const values = points.map(([, value]) => value).filter((value) => value !== null);
      if (!values.length) return `${name}: nothing yet`;
      return `${name}: ${this.format(values.at(-1))} now, between ${this.format(Math.min(...values))} and ${this.format(Math.max(...values))}`;
    });
    say(this.summary, `${told.join("; ")}.`);
  }
}

function nearest(points, time) {
  let best = null;
  for (const point of points)
    if (point[1] !== null && Math.abs(point[0] - time) <= Math.min(SNAP_MS, Math.abs((best?.[0] ?? Infinity) - time))) best = point;
  return best;
}
