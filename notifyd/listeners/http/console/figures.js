// What the nodes say of themselves once a second (`$sys:figures`), for as long as charts look back.

import { byName } from "./format.js";

export const SILENT_MS = 3000;   // a node that has said nothing for so long is marked
export const GONE_MS = 5 * 60_000;      // and after this it is no longer shown
const KEPT_MS = 15 * 60_000;
const HOLD_MS = 2500;            // a figure stands for the time until the next one, at most so long
const STEP_MS = 1000;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const worst = (values) => Math.max(...values);
const together = (path) => (/^(latency_ms|loop_lag_ms|topics)/.test(path) ? worst : sum);

// The number under a path such as "messages.in", or the sum of the numbers below it; null for none.
export function figure(figures, path) {
  const found = path.split(".").reduce((value, name) => value?.[name], figures);
  if (found === null || typeof found !== "object") return Number.isFinite(found) ? found : null;
  return combined(Object.keys(found).map((name) => figure(found, name)), sum);
}

export class Figures {
  nodes = new Map();  // name -> {name, last: the newest figures, heardAt, samples: [{at, figures, rates: errors a second}]}
  began = null;

  take(figures, now) {
    if (typeof figures?.node !== "string") return;
    const node = this.nodes.get(figures.node) ?? { name: figures.node, samples: [] };
    this.nodes.set(node.name, Object.assign(node, { last: figures, heardAt: now }));
    node.samples.push({ at: now, figures, rates: errorRates(node.samples.at(-1), figures, now) });
    while (node.samples[0].at < now - KEPT_MS) node.samples.shift();
    this.began ??= now;
  }

  list(now) {
    for (const [name, node] of this.nodes) {
      node.isSilent = now - node.heardAt > SILENT_MS;
      if (now - node.heardAt > GONE_MS) this.nodes.delete(name);
    }
    return [...this.nodes.values()].sort((one, other) => byName(one.name, other.name));
  }

  chosen(name) {
    return name ? [this.nodes.get(name)].filter(Boolean) : [...this.nodes.values()];
  }

  // `name`: of a node, "" for all.
  now(path, name, now) {
    const fresh = this.chosen(name).filter(({ heardAt }) => now - heardAt <= SILENT_MS);
    return combined(fresh.map(({ last }) => figure(last, path)), together(path));
  }

  points(path, name, from, to) {
    return this.walk(name, from, to, (sample) => (sample[path] ??= figure(sample.figures, path)), together(path));
  }

  errorPoints(kind, name, from, to) {
    return this.walk(name, from, to, ({ rates }) => rates[kind] ?? 0, sum);
  }

  // Errors since the nodes started, the most frequent first: [[kind, count], …].
  errors(name) {
    const totals = new Map();
    for (const { last } of this.chosen(name))
      for (const [kind, amount] of Object.entries(last.errors ?? {})) totals.set(kind, (totals.get(kind) ?? 0) + amount);
    return [...totals].filter(([, amount]) => amount > 0).sort(([, one], [, other]) => other - one);
  }

  // One value a second, put together from the sample of each node that stands for that second.
  walk(name, from, to, take, combine) {
    const nodes = this.chosen(name).map(({ samples }) => ({ samples, place: -1 })), points = [];
    for (let second = Math.ceil(from / STEP_MS) * STEP_MS; second < to + STEP_MS; second += STEP_MS) {
      const values = [], time = Math.min(second, to);
      for (const node of nodes) {
        while (node.samples[node.place + 1]?.at <= time) node.place += 1;
        const sample = node.samples[node.place];
        if (sample && time - sample.at < HOLD_MS) values.push(take(sample));
      }
      points.push([time, combined(values, combine)]);
    }
    return points;
  }
}

function combined(values, combine) {
  const known = values.filter(Number.isFinite);
  return known.length ? combine(known) : null;
}

// A node that was started anew counts from 0 again.
function errorRates(before, { errors, started }, now) {
  if (!before) return {};
  const earlier = before.figures.started === started ? before.figures.errors ?? {} : {}, seconds = Math.max(0.5, (now - before.at) / 1000);
  return Object.fromEntries(Object.entries(errors ?? {}).map(([kind, amount]) => [kind, Math.max(0, amount - (earlier[kind] ?? 0)) / seconds]));
}
