// The figures of one node or of all as charts, and at the side devices and readings.

import { LineChart } from "./chart.js";
import { Devices } from "./devices.js";
import { each, el, heading, say, select, setOptions } from "./dom.js";
import { Fleet } from "./fleet.js";
import { bytes, bytesPerSecond, count, milliseconds, perSecond, plural } from "./format.js";

const WINDOWS = [["300", "5 minutes"], ["60", "1 minute"], ["900", "15 minutes"]];
const SHORTEST_MS = 60_000;
const ERROR_LINES = 4;
const CHARTS = [
  { title: "Connections", format: count, binary: true, of: "connections.", lines: ["websocket json", "websocket msgpack", "device json", "device msgpack"] },
  { title: "Messages", format: perSecond, of: "messages.", lines: ["in", "out"] },
  { title: "Publish to delivery", format: milliseconds, of: "latency_ms.", lines: ["p50", "p90", "p99"] },
  { title: "Queued for clients", format: bytes, binary: true, of: "queue_", lines: ["bytes"] },
  { title: "Bytes", format: bytesPerSecond, binary: true, of: "bytes.", lines: ["in", "out"] },
];

export class Overview {
  feeds = ["topics", "connections"];

  constructor(app) {
    Object.assign(this, { app, node: "", seconds: 300 });
    this.nodes = select("Node", [["", "all"]], (name) => this.choose({ node: name }));
    const windows = select("Last", WINDOWS, (seconds) => this.choose({ seconds: Number(seconds) }));
    this.facts = el("dl", "facts card");
    this.charts = CHARTS.map((given) => ({ ...given, chart: new LineChart(given) }));
    this.errors = new LineChart({ title: "Errors", format: perSecond });
    this.side = [new Devices(app), this.fleet = new Fleet(app)];
    this.element = el("div", "view guarded", heading("Overview", this.nodes, windows), this.facts, el("div", "split",
      el("div", "charts", this.charts.map(({ chart }) => chart.element), this.errors.element), el("div", "", this.side.map(({ element }) => element))));
  }

  choose(given) {
    Object.assign(this, given);
    this.tick(Date.now());
  }

  hide() {
    this.fleet.hide();
  }

  tick(now) {
    const { figures } = this.app, nodes = figures.list(now);
    if (!figures.nodes.has(this.node)) this.node = "";
    setOptions(this.nodes.lastChild, [["", "all"], ...nodes.map(({ name }) => [name, name])]);
    this.nodes.hidden = nodes.length < 2;
    this.drawFacts((path) => figures.now(path, this.node, now));
    // A page that was just opened shows a minute.
    const from = Math.max(now - this.seconds * 1000, Math.min(now - SHORTEST_MS, figures.began ?? now));
    const points = (path) => figures.points(path, this.node, from, now);
    for (const { chart, of, lines } of this.charts)
      chart.update({ from, to: now, series: lines.map((name) => ({ name, points: points(of + name.replace(" ", ".")) })) });
    const errors = figures.errors(this.node).slice(0, ERROR_LINES).map(([kind, total]) =>
      ({ name: kind.replaceAll("_", " "), now: `${count(total)} in all`, points: figures.errorPoints(kind, this.node, from, now) }));
    this.errors.update({ from, to: now, series: errors.length ? errors : [{ name: "none since the start", now: "", points: points("errors") }] });
    for (const part of this.side) part.tick(now);
  }

  drawFacts(value) {
    const rows = [
      ["Connections", count(value("connections")), plural(value("connections.device"), "device")],
      ["Messages in", perSecond(value("messages.in")), bytesPerSecond(value("bytes.in"))],
      ["Messages out", perSecond(value("messages.out")), bytesPerSecond(value("bytes.out"))],
      ["Latency p99", milliseconds(value("latency_ms.p99")), `p50 ${milliseconds(value("latency_ms.p50"))}`],
      ["Queued", bytes(value("queue_bytes")), "for clients"],
      ["Topics", count(value("topics")), plural(value("subscriptions"), "subscription")],
      ["Loop lag", milliseconds(value("loop_lag_ms")), "of the worst node"],
      ["Errors", count(value("errors")), "since the start"],
    ];
    each(this.facts, rows, ([name]) => name, ([name]) => el("div", "", el("dt", "", name), el("dd"), el("dd", "soft")), (fact, [, text, more]) => {
      say(fact.children[1], text);
      say(fact.children[2], more);
    });
  }
}
