// The nodes of the cluster, those that fell silent too, each with the state of its broker.

import { levelOf, nodeState, setChip } from "./alerts.js";
import { each, el, heading, mark, NOTHING, say } from "./dom.js";
import { figure } from "./figures.js";
import { bytes, clock, count, milliseconds, NONE, percent, perSecond, span } from "./format.js";

const FACTS = [["Connections", "connections", count], ["Sessions", "sessions", count], ["Topics", "topics", count], ["Subscriptions", "subscriptions", count],
  ["In", "messages.in", perSecond], ["Out", "messages.out", perSecond], ["Latency p99", "latency_ms.p99", milliseconds], ["Queued", "queue_bytes", bytes],
  ["Loop lag", "loop_lag_ms", milliseconds], ["CPU", "cpu_percent", percent], ["Memory", "memory_bytes", bytes]];

export class Nodes {
  constructor(app) {
    this.app = app;
    this.list = el("ul", "nodes");
    this.total = el("p", "soft");
    this.element = el("div", "view guarded", heading("Nodes", this.total), this.list);
  }

  tick(now) {
    const nodes = this.app.figures.list(now), bad = nodes.filter((node) => levelOf(nodeState(node)) !== "good").length;
    say(this.total, nodes.length ? `${count(nodes.length)} in all, ${bad ? `${count(bad)} not serving` : "all serving"}` : NOTHING);
    each(this.list, nodes, ({ name }) => name, make, fill);
  }
}

const make = ({ name }) => el("li", { "data-node": name },
  el("div", "line", el("h2", "mono", name), el("span"), el("span", "soft")),
  el("div", "line", el("span"), el("span"), el("span", "soft")),
  el("p", "bad"), el("dl", "", [...FACTS, ["Up for"]].map(([title]) => el("div", "", el("dt", "", title), el("dd")))));

function fill(card, node) {
  const [head, brokerLine, trouble, facts] = card.children, { last, isSilent, heardAt } = node;
  const { kind, state, round_trip_ms: roundTrip } = last.broker ?? {};
  mark(card, "class", isSilent ? "card silent" : "card");
  setChip(head.children[1], nodeState(node));
  say(head.children[2], `version ${last.version ?? NONE}`);
  say(brokerLine.children[0], `Broker: ${kind ?? NONE}`);
  setChip(brokerLine.children[1], state);
  say(brokerLine.children[2], kind === "memory" ? "in this process" : `round trip ${milliseconds(roundTrip)}`);
  say(trouble, isSilent ? `nothing was heard since ${clock(heardAt)}` : [last.problems ?? []].flat().join("; "));
  FACTS.forEach(([, path, write], i) => say(facts.children[i].lastChild, write(figure(last, path))));
  say(facts.lastChild.lastChild, span(last.time - last.started));
}
