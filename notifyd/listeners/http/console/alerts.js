// Bad states, in words: what is wrong with the page's connection, with a node, with its broker.

import { el, setChildren } from "./dom.js";
import { clock } from "./format.js";
import { SILENT_MS } from "./figures.js";

// What a node's state is in one word, and how bad.
export function nodeState(node) {
  if (node.isSilent) return ["silent", "bad"];
  const state = node.last.state ?? "unknown";
  return [state, { serving: "good", draining: "warn", degraded: "bad" }[state] ?? "idle"];
}

export const connectionLevel = (state) =>
  ({ connected: "good", connecting: "warn", "backing off": "warn", unavailable: "bad", disconnected: "bad" })[state] ?? "idle";

// [[level, text], …], the worst first. Texts stay the same while nothing changes: they are read aloud.
export function problems({ link, why, figures, heardAt, connectedAt, isRefused }, now) {
  const found = [];
  if (link.state !== "connected") {
    const since = heardAt ? ` What is shown is of ${clock(heardAt)}.` : "";
    if (link.state !== "connecting" || heardAt) found.push(["bad", `This page is not connected to its node: ${link.state}.${why ? ` ${why}` : ""}${since}`]);
    return found;
  }
  if (!isRefused && now - Math.max(heardAt ?? 0, connectedAt) > SILENT_MS)
    found.push(["bad", `The page is connected, but no node sends figures${heardAt ? ` since ${clock(heardAt)}` : ""}.`]);
  else for (const node of figures.list(now)) found.push(...nodeProblems(node));
  return found;
}

function nodeProblems(node) {
  if (node.isSilent) return [["bad", `Node ${node.name} is silent: nothing heard of it since ${clock(node.heardAt)}.`]];
  const { state, problems: words = [], broker } = node.last;
  const isBrokerAway = broker && broker.state !== "connected";
  const told = words.filter((word) => !(state === "draining" && word === "the node is draining")).join("; ");
  const found = [];
  if (state === "draining") found.push(["warn", `Node ${node.name} is draining: it takes no new clients and sends its own away.`]);
  if (isBrokerAway) found.push(["bad", `The broker is away for node ${node.name}: ${broker.kind} is ${broker.state}. ${told ? `${sentence(told)}. ` : ""}Messages reach this node's own clients only.`]);
  else if (told) found.push([state === "degraded" ? "bad" : "warn", `Node ${node.name} is not ready: ${told}.`]);
  else if (state === "degraded") found.push(["bad", `Node ${node.name} is degraded.`]);
  return found;
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

export function showAlerts(list, found) {
  const kept = new Map([...list.children].map((item) => [item.textContent, item]));
  setChildren(list, found.map(([level, text]) => kept.get(text) ?? el("li", { "data-level": level }, text)));
}
