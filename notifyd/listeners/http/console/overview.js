// The overview: the figures of the node or of the whole cluster as charts, and at the side what lives: devices, readings.

import { LineChart } from "./chart.js";
import { Devices } from "./devices.js";
import { el, heading, say, select, setChildren, setOptions } from "./dom.js";
import { Fleet } from "./fleet.js";
import { bytes, bytesPerSecond, count, milliseconds, perSecond, plural } from "./format.js";

const WINDOWS = [["60", "1 minute"], ["300", "5 minutes"], ["900", "15 minutes"]];
const ERROR_LINES = 5;

const CHARTS = [
  { title: "Connections", format: count, lines: [["websocket json", "websocketJson"], ["websocket msgpack", "websocketMsgpack"],
    ["device json", "deviceJson"], ["device msgpack", "deviceMsgpack"]] },
  { title: "Messages", format: perSecond, lines: [["in", "messagesIn"], ["out", "messagesOut"]] },
  { title: "Publish to delivery", format: milliseconds, lines: [["p50", "p50"], ["p90", "p90"], ["p99", "p99"]] },
  { title: "Queued for clients", format: bytes, binary: true, lines: [["unsent", "queue"]] },
  { title: "Bytes", format: bytesPerSecond, binary: true, lines: [["in", "bytesIn"], ["out", "bytesOut"]] },
];

export class Overview {
  constructor(app) {
    Object.assign(this, { app, node: "", seconds: 300 });
    this.nodes = select("Node", [["", "all"]], (name) => this.choose({ node: name }));
    this.window = select("Last", WINDOWS, (seconds) => this.choose({ seconds: Number(seconds) }));
    this.window.lastChild.value = "300";
    this.facts = el("dl", { class: "facts card" });
    this.charts = CHARTS.map((given) => ({ ...given, chart: new LineChart(given) }));
    this.errors = new LineChart({ title: "Errors", format: perSecond });
    this.devices = new Devices(app);
    this.fleet = new Fleet(app);
    this.element = el("div", { class: "view" }, heading("Overview", this.nodes, this.window), this.facts,
      el("div", { class: "split" },
        el("div", { class: "charts" }, this.charts.map(({ chart }) => chart.element), this.errors.element),
        el("div", { class: "side" }, this.devices.element, this.fleet.element)));
  }

  choose(given) {
    Object.assign(this, given);
    this.tick(Date.now());
  }

  show() {
    this.devices.show();
    this.fleet.show();
  }

  hide() {
    this.devices.hide();
    this.fleet.hide();
  }

  tick(now) {
    const { figures } = this.app;
    const nodes = figures.list(now);
    setOptions(this.nodes.lastChild, [["", nodes.length > 1 ? `all ${nodes.length}` : "all"], ...nodes.map(({ name }) => [name, name])]);
    this.nodes.hidden = nodes.length < 2;
    if (this.node && !figures.nodes.has(this.node)) this.node = "";
    this.drawFacts(now);
    // A page that was just opened shows its first minute whole, not five with next to nothing in them.
    const from = Math.max(now - this.seconds * 1000, Math.min(now - 60_000, figures.began ?? now));
    for (const { chart, lines } of this.charts)
      chart.update({ from, to: now, series: lines.map(([name, pick]) => ({ name, points: figures.points(pick, this.node, from, now) })) });
    this.drawErrors(from, now);
    this.devices.tick(now);
    this.fleet.tick(now);
  }

  drawErrors(from, now) {
    const kinds = this.app.figures.errors(this.node).filter(([, total]) => total);
    const shown = kinds.slice(0, ERROR_LINES).map(([kind, total]) =>
      ({ name: kind.replaceAll("_", " "), now: `${count(total)} in all`, points: this.app.figures.errorPoints(kind, this.node, from, now) }));
    const none = { name: "none since the start", now: "", points: this.app.figures.points("sessions", this.node, from, now).map(([at, value]) => [at, value === null ? null : 0]) };
    this.errors.update({ from, to: now, series: shown.length ? shown : [none] });
  }

  drawFacts(now) {
    const value = (pick) => this.app.figures.now(pick, this.node, now);
    const total = (...picks) => picks.map(value).reduce((sum, one) => (one === null ? sum : (sum ?? 0) + one), null);
    const devices = total("deviceJson", "deviceMsgpack"), browsers = total("websocketJson", "websocketMsgpack");
    const errors = this.app.figures.errors(this.node).reduce((sum, [, amount]) => sum + amount, 0);
    const rows = [
      ["Connections", count(total("websocketJson", "websocketMsgpack", "deviceJson", "deviceMsgpack")), devices === null ? "" : `${count(browsers)} websocket, ${plural(devices, "device")}`],
      ["Messages in", perSecond(value("messagesIn")), bytesPerSecond(value("bytesIn"))],
      ["Messages out", perSecond(value("messagesOut")), bytesPerSecond(value("bytesOut"))],
      ["Latency p99", milliseconds(value("p99")), value("p50") === null ? "nothing delivered" : `p50 ${milliseconds(value("p50"))}`],
      ["Queued", bytes(value("queue")), "for clients"],
      ["Topics", count(value("topics")), value("subscriptions") === null ? "" : plural(value("subscriptions"), "subscription")],
      ["Loop lag", milliseconds(value("lag")), this.app.figures.nodes.size > 1 && !this.node ? "the worst node" : ""],
      ["Errors", count(errors), "since the start"],
    ];
    setChildren(this.facts, rows.map(([name, text, more], i) => {
      const fact = this.facts.children[i] ?? el("div", {}, el("dt", {}, name), el("dd"), el("dd", { class: "soft" }));
      say(fact.children[1], text);
      say(fact.children[2], more || " ");
      return fact;
    }));
  }
}
