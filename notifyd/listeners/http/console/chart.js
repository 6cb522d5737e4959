// A line chart over time, with gaps where nothing is known. The legend shows the newest values, or those under the
// pointer or where the arrow keys have moved to.

import { each, el, mark, say, svg } from "./dom.js";
import { clock, number } from "./format.js";

const LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 20;
const GAP_MS = 3500;          // further apart, two points are not joined
const SNAP_MS = 2500;
const TICKS_S = [[60, 15], [120, 30], [300, 60], [900, 180]];

export class LineChart {
  // `zero`: the axis begins at 0; `binary`: its steps are 1, 2, 4, …; `small`: the line alone.
  constructor({ title, format = number, height = 148, zero = true, small = false, binary = false }) {
    Object.assign(this, { title, format, height, zero, small, binary, cursor: null, width: 0 });
    this.margins = small ? { left: 0, right: 2, bottom: 2 } : { left: LEFT, right: RIGHT, bottom: BOTTOM };
    [this.grid, this.lines, this.over] = ["grid", "lines", "over"].map((name) => svg("g", { class: name }));
    this.svg = svg("svg", { height, "aria-hidden": "true" }, this.grid, this.lines, this.over);
    this.plot = el("div", "plot", this.svg);
    this.when = el("span", "when");
    this.legend = el("ul", "legend");
    this.summary = el("p", "hidden");
    this.element = small ? this.plot
      : el("figure", "chart card", el("figcaption", "", el("h2", "", title, this.when), this.summary), this.legend, this.plot);
    this.listen();
  }

  listen() {
    const { plot } = this;
    new ResizeObserver(([entry]) => {
      this.width = Math.floor(entry.contentRect.width);
      this.draw();
    }).observe(plot);
    plot.onpointermove = plot.onpointerdown = (event) =>
      this.point((event.clientX - plot.getBoundingClientRect().left - this.margins.left) / this.inner);
    plot.onpointerleave = (event) => event.pointerType === "mouse" && this.point(null);
    if (this.small) return;
    Object.assign(plot, { tabIndex: 0, role: "slider", ariaLabel: `${this.title}: time`, ariaValueMin: "0", ariaValueMax: "100",
      onkeydown: (event) => this.steer(event), onblur: () => this.point(null) });
  }

  get inner() {
    return Math.max(1, this.width - this.margins.left - this.margins.right);
  }

  // {from, to, gap?, series: [{name, points: [[Unix ms, value or null], …], now?: text for the legend}]}
  update(given) {
    this.given = given;
    this.draw();
  }

  // 0 is the left end, 1 the right one, null is no cursor.
  point(ratio) {
    this.cursor = ratio === null ? null : Math.min(1, Math.max(0, ratio));
    this.draw();
  }

  steer(event) {
    const second = 1000 / (this.given.to - this.given.from), at = this.cursor ?? 1;
    const to = { ArrowLeft: at - second, ArrowRight: at + second, Home: 0, End: 1, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.point(to);
  }

  draw() {
    if (!this.given || this.width < 20) return;
    const { from, to, series } = this.given, scale = this.scale(series.flatMap(valuesOf));
    this.x = (time) => (this.margins.left + this.inner * (time - from) / (to - from)).toFixed(1);
    this.y = (value) => (TOP + (this.height - TOP - this.margins.bottom) * (scale.high - value) / (scale.high - scale.low)).toFixed(1);
    mark(this.svg, "width", this.width);
    this.lines.replaceChildren(...series.map(({ points }, i) => svg("path", { class: `s${i}`, d: this.path(points) })));
    this.drawCursor();
    if (this.small) return;
    this.drawGrid(scale);
    this.describe();
  }

  scale(values) {
    let low = Math.min(...values, ...(this.zero || !values.length ? [0] : [])), high = Math.max(...values, low);
    if (high - low < 1e-9) [low, high] = this.zero ? [low, low + 1] : [low - 1, high + 1];
    const rough = (high - low) / 3, power = 10 ** Math.floor(Math.log10(rough));
    const step = this.binary ? 2 ** Math.max(0, Math.ceil(Math.log2(rough))) : power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    if (this.small) return { low: low - rough / 4, high: high + rough / 4 };
    return { low: Math.floor(low / step) * step, high: Math.ceil(high / step - 1e-9) * step, step };
  }

  drawGrid({ low, high, step }) {
    const parts = [], { from, to } = this.given, seconds = (to - from) / 1000;
    const write = (x, y, anchor, text) => parts.push(svg("text", { x, y, "text-anchor": anchor }, text));
    for (let value = low; value <= high + step / 2; value += step) {
      const y = this.y(value);
      parts.push(svg("path", { d: `M${LEFT} ${y}H${this.width - RIGHT}` }));
      write(LEFT - 7, Number(y) + 4, "end", this.format(Math.abs(value) < step / 1e6 ? 0 : value));
    }
    const every = TICKS_S.find(([most]) => seconds <= most)?.[1] ?? 600;
    for (let ago = 0; ago <= seconds; ago += every)
      write(this.x(to - ago * 1000), this.height - 3, ago ? "middle" : "end", ago ? (ago % 60 ? `−${ago} s` : `−${ago / 60} min`) : "now");
    this.grid.replaceChildren(...parts);
  }

  path(points) {
    let d = "", before = -Infinity;
    for (const [time, value] of points) {
      if (value === null) before = -Infinity;
      else {
        const isFar = time - before > (this.given.gap ?? GAP_MS), where = `${this.x(time)} ${this.y(value)}`;
        d += isFar ? `M${where}h0` : `L${where}`;
        before = time;
      }
    }
    return d;
  }

  drawCursor() {
    const { from, to, series } = this.given, time = this.cursor === null ? null : from + this.cursor * (to - from);
    const found = series.map(({ points }) => (time === null ? points.at(-1) : nearest(points, time)));
    const line = svg("path", { class: "cursor", d: time === null ? "" : `M${this.x(time)} ${TOP}V${this.height - this.margins.bottom}` });
    const dots = found.map((pair, i) => ((time !== null || this.small) && pair && pair[1] !== null
      ? svg("circle", { class: `s${i}`, cx: this.x(pair[0]), cy: this.y(pair[1]), r: 2.5 }) : ""));
    this.over.replaceChildren(line, ...dots);
    this.onread?.(time === null ? undefined : found[0]?.[1]);
    if (!this.small) this.read(time, found);
  }

  read(time, found) {
    const { series, to } = this.given, slots = series.map((one, i) => ({ ...one, i, pair: found[i] }));
    each(this.legend, slots, ({ i }) => i, ({ i }) => el("li", `s${i}`, el("i"), el("span"), el("b")), (row, { name, now, pair }) => {
      say(row.children[1], name);
      const isFresh = pair && (time !== null || to - pair[0] < GAP_MS);
      say(row.children[2], time === null && now !== undefined ? now : this.format(isFresh ? pair[1] : null));
    });
    say(this.when, time === null ? "" : clock(time));
    mark(this.plot, "aria-valuenow", Math.round((this.cursor ?? 1) * 100));
    const values = [...this.legend.children].map(({ children: [, name, value] }) => `${name.textContent} ${value.textContent}`);
    mark(this.plot, "aria-valuetext", time === null ? "now" : `${clock(time)}: ${values.join(", ")}`);
  }

  // The text alternative.
  describe() {
    say(this.summary, this.given.series.map((one) => {
      const values = valuesOf(one), write = (value) => this.format(value);
      if (!values.length) return `${one.name}: nothing yet.`;
      return `${one.name}: ${write(values.at(-1))} now, between ${write(Math.min(...values))} and ${write(Math.max(...values))}.`;
    }).join(" "));
  }
}

const valuesOf = ({ points }) => points.map(([, value]) => value).filter((value) => value !== null);

function nearest(points, time) {
  const distance = (point) => Math.abs(point[0] - time);
  return points.reduce((best, point) => (point[1] !== null && distance(point) <= (best ? distance(best) : SNAP_MS) ? point : best), null);
}
