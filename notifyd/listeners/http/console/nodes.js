// The nodes of the cluster, those that fell silent too, each with the state of its broker.

import { nodeState } from "./alerts.js";
import { chip, el, heading, hint, mark, say, setChildren, setChip } from "./dom.js";
import { bytes, clock, count, milliseconds, NONE, percent, perSecond, span } from "./format.js";

const connections = ({ connections: { websocket, device } = {} }) =>
  [websocket?.json, websocket?.msgpack, device?.json, device?.msgpack].reduce((sum, one) => sum + (one ?? 0), 0);

const FACTS = [
  ["Connections", (f) => count(connections(f))],
  ["Sessions", (f) => count(f.sessions)],
  ["Topics", (f) => count(f.topics)],
  ["Subscriptions", (f) => count(f.subscriptions)],
  ["In", (f) => perSecond(f.messages?.in)],
  ["Out", (f) => perSecond(f.messages?.out)],
  ["Latency p99", (f) => milliseconds(f.latency_ms?.p99)],
  ["Queued", (f) => bytes(f.queue_bytes)],
  ["Loop lag", (f) => milliseconds(f.loop_lag_ms)],
  ["CPU", (f) => percent(f.cpu_percent)],
  ["Memory", (f) => bytes(f.memory_bytes)],
  ["Up for", (f) => (f.started ? span(((f.time ?? Date.now()) - f.started) / 1000) : NONE)],
];

export class Nodes {
  constructor(app) {
    Object.assign(this, { app, kept: new Map() });
    this.list = el("ul", { class: "nodes" });
    this.empty = hint("No node has said anything yet.");
    this.total = el("p", { class: "soft" });
    this.element = el("div", { class: "view" }, heading("Nodes", this.total), this.list, this.empty);
  }

  show() {}

  hide() {}

  tick(now) {
    const nodes = this.app.figures.list(now);
    const bad = nodes.filter((node) => nodeState(node)[1] !== "good").length;
    say(this.total, nodes.length ? `${count(nodes.length)} in all, ${bad ? `${count(bad)} not serving` : "all serving"}` : "");
    this.empty.hidden = nodes.length > 0;
    setChildren(this.list, nodes.map((node) => this.card(node)));
  }

  card(node) {
    const card = this.kept.get(node.name) ?? make(node.name);
    this.kept.set(node.name, card);
    const { last, isSilent, heardAt } = node;
    setChip(card.state, ...nodeState(node));
    mark(card.element, "class", isSilent ? "card silent" : "card");
    say(card.version, `version ${last.version ?? NONE}`);
    const { kind, state, round_trip_ms: roundTrip } = last.broker ?? {};
    say(card.kind, `Broker: ${kind ?? NONE}`);
    setChip(card.broker, state ?? "unknown", state === "connected" ? "good" : state === undefined ? "idle" : "bad");
    say(card.trip, kind === "memory" ? "in this process" : roundTrip === null || roundTrip === undefined ? "" : `round trip ${milliseconds(roundTrip)}`);
    const words = [isSilent ? `nothing heard since ${clock(heardAt)}` : "", ...(last.problems ?? [])].filter(Boolean).join("; ");
    say(card.problems, words);
    card.problems.hidden = !words;
    FACTS.forEach(([, write], i) => say(card.facts.children[i].lastChild, write(last)));
    return card.element;
  }
}

function make(name) {
  const card = { state: chip(), version: el("span", { class: "soft" }), kind: el("span"), broker: chip(), trip: el("span", { class: "soft" }),
    problems: el("p", { class: "bad" }), facts: el("dl", {}, FACTS.map(([title]) => el("div", {}, el("dt", {}, title), el("dd")))) };
  card.element = el("li", { class: "card", "data-node": name }, el("div", { class: "line" }, el("h2", { class: "mono" }, name), card.state, card.version),
    el("p", { class: "line" }, card.kind, card.broker, card.trip), card.problems, card.facts);
  return card;
}
