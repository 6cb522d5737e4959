// Bad states, in words and colours: of the page's connection, of a node, of its broker.

import { each, el, mark, say } from "./dom.js";
import { SILENT_MS } from "./figures.js";
import { clock } from "./format.js";

const LEVELS = { serving: "good", draining: "warn", degraded: "bad", silent: "bad",
  connected: "good", connecting: "warn", "backing off": "warn", unavailable: "bad", disconnected: "bad" };

export const levelOf = (state) => LEVELS[state] ?? "idle";

export function setChip(chip, state = "unknown", level = levelOf(state)) {
  say(chip, state);
  mark(chip, "class", "chip");
  mark(chip, "data-level", level);
}

export const nodeState = ({ isSilent, last: { state = "unknown" } }) => (isSilent ? "silent" : state);

// [[level, text], …]. No text changes without need: they are read aloud.
export function problems({ link, why, figures, heardAt, connectedAt, isRefused }, now) {
  if (link.state !== "connected") {
    if (link.state === "connecting" && !heardAt) return [];
    const words = [`not connected to its node: ${link.state}`, why, heardAt && `what is shown is of ${clock(heardAt)}`];
    return [["bad", `This page is ${words.filter(Boolean).join("; ")}.`]];
  }
  if (isRefused) return [];
  if (now - Math.max(heardAt, connectedAt) > SILENT_MS) return [["bad", "The page is connected, but no node sends figures."]];
  return figures.list(now).flatMap(nodeProblems);
}

function nodeProblems(node) {
  const { state, problems: words, broker } = node.last, told = [words ?? []].flat().join("; ");
  if (node.isSilent) return [["bad", `Node ${node.name} is silent: nothing was heard of it since ${clock(node.heardAt)}.`]];
  if (state === "draining") return [["warn", `Node ${node.name} is draining: it takes no new clients and sends its own away.`]];
  if (broker && broker.state !== "connected")
    return [["bad", `The broker is away for node ${node.name} (${told || `${broker.kind} is ${broker.state}`}). Messages reach this node's own clients only.`]];
  return told || state === "degraded" ? [["bad", `Node ${node.name} is ${state}${told && `: ${told}`}.`]] : [];
}

export const showAlerts = (list, found) =>
  each(list, found, ([, text]) => text, ([level, text]) => el("li", { "data-level": level }, text));
