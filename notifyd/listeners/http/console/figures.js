// What the nodes say of themselves once a second (`$sys:figures`), kept for as long as charts look back.

export const KEPT_MS = 15 * 60_000;
export const SILENT_MS = 3000;   // a node that has said nothing for so long is marked
const GONE_MS = 5 * 60_000;      // and after this one it is no longer shown
const HOLD_MS = 2500;            // a figure stands for the time until the next one, at most so long
const STEP_MS = 1000;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const worst = (values) => Math.max(...values);

// What is charted: how it is taken from one node's figures, and how those of several nodes are put together.
export const PICKS = {
  websocketJson: [(f) => f.connections?.websocket?.json, sum],
  websocketMsgpack: [(f) => f.connections?.websocket?.msgpack, sum],
  deviceJson: [(f) => f.connections?.device?.json, sum],
  deviceMsgpack: [(f) => f.connections?.device?.msgpack, sum],
  sessions: [(f) => f.sessions, sum],
  topics: [(f) => f.topics, worst],
  subscriptions: [(f) => f.subscriptions, sum],
  messagesIn: [(f) => f.messages?.in, sum],
  messagesOut: [(f) => f.messages?.out, sum],
  bytesIn: [(f) => f.bytes?.in, sum],
  bytesOut: [(f) => f.bytes?.out, sum],
  p50: [(f) => f.latency_ms?.p50, worst],
  p90: [(f) => f.latency_ms?.p90, worst],
  p99: [(f) => f.latency_ms?.p99, worst],
  queue: [(f) => f.queue_bytes, sum],
  lag: [(f) => f.loop_lag_ms, worst],
};

export class Figures {
  constructor() {
    this.nodes = new Map();  // name -> {name, last: the newest figures, heardAt, samples: [{at, figures, errors: kind -> per s}]}
    this.began = null;
  }

  take(figures, now) {
    if (typeof figures?.node !== "string") return;
    const node = this.nodes.get(figures.node) ?? { name: figures.node, samples: [] };
    this.nodes.set(node.name, node);
    const before = node.samples.at(-1);
    node.samples.push({ at: now, figures, errors: before ? rates(before, figures, now) : {} });
    Object.assign(node, { last: figures, heardAt: now });
    const old = node.samples.findIndex(({ at }) => at > now - KEPT_MS);
    if (old > 60) node.samples.splice(0, old);
    this.began ??= now;
  }

  // By name; with how long each has been silent.
  list(now) {
    for (const [name, node] of this.nodes) if (now - node.heardAt > GONE_MS) this.nodes.delete(name);
    const nodes = [...this.nodes.values()].map((node) => Object.assign(node, { isSilent: now - node.heardAt > SILENT_MS }));
    return nodes.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  }

  chosen(name) {
    return name ? [this.nodes.get(name)].filter(Boolean) : [...this.nodes.values()];
  }

  // The newest value over the chosen nodes ("" is all of them), null where none has one.
  now(pick, name, now) {
    const [take, together] = PICKS[pick];
    const values = this.chosen(name).filter(({ heardAt }) => now - heardAt <= SILENT_MS).map(({ last }) => take(last));
    return combined(values, together);
  }

  points(pick, name, from, to) {
    const [take, together] = PICKS[pick];
    return this.walk(name, from, to, ({ figures }) => take(figures), together);
  }

  errorPoints(kind, name, from, to) {
    return this.walk(name, from, to, ({ errors }) => errors[kind] ?? 0, sum);
  }

  // Errors since the nodes started, the most frequent first: [[kind, count], …].
  errors(name) {
    const totals = new Map();
    for (const { last } of this.chosen(name))
      for (const [kind, amount] of Object.entries(last.errors ?? {})) totals.set(kind, (totals.get(kind) ?? 0) + amount);
    return [...totals].sort(([, one], [, other]) => other - one);
  }

  // One value a second, put together from the sample of each node that stands for that second.
  walk(name, from, to, take, together) {
    const nodes = this.chosen(name).map(({ samples }) => ({ samples, place: -1 }));
    const points = [];
    for (let time = Math.ceil(from / STEP_MS) * STEP_MS; time <= to; time += STEP_MS) {
      const values = [];
      for (const node of nodes) {
        while (node.place + 1 < node.samples.length && node.samples[node.place + 1].at <= time) node.place += 1;
        const sample = node.samples[node.place];
        if (sample && time - sample.at < HOLD_MS) values.push(take(sample));
      }
      points.push([time, combined(values, together)]);
    }
    return points;
  }
}

function combined(values, together) {
  const known = values.filter((value) => typeof value === "number");
  return known.length ? together(known) : null;
}

// A node that was started anew counts from 0 again.
function rates(before, { errors, started }, now) {
  const earlier = before.figures.started === started ? before.figures.errors ?? {} : {};
  const seconds = Math.max(0.5, (now - before.at) / 1000);
  return Object.fromEntries(Object.entries(errors ?? {}).map(([kind, amount]) => [kind, Math.max(0, amount - (earlier[kind] ?? 0)) / seconds]));
}
