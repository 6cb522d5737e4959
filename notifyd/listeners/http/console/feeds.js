// The `$sys` topics that nodes fill only while somebody looks: what each node said last.

import { SILENT_MS } from "./figures.js";

export class Feed {
  constructor(link, topic, onRefused) {
    Object.assign(this, { link, topic, onRefused, nodes: new Map() });
  }

  // Calls `onChange` at every news until `close`.
  open(onChange) {
    const message = ({ data }) => {
      if (typeof data?.node !== "string") return;
      this.nodes.set(data.node, { data, at: Date.now() });
      onChange();
    };
    this.stop = this.link.follow(this.topic, { message, refused: this.onRefused });
  }

  close() {
    this.stop();
    this.nodes.clear();
  }

  // The newest of each node that still speaks; where none does, of all: the page goes on showing it.
  get current() {
    const all = [...this.nodes.values()], fresh = all.filter(({ at }) => Date.now() - at <= SILENT_MS * 2);
    return (fresh.length ? fresh : all).map(({ data }) => data);
  }

  get hasMore() {
    return this.current.some(({ more }) => more);
  }
}

// Each topic once: subscribers and rates of all nodes are summed, of positions the newest counts.
export function mergedTopics(feed) {
  const topics = new Map();
  for (const one of feed.current.flatMap((said) => said.topics ?? [])) {
    const known = topics.get(one.topic) ?? { topic: one.topic, subscribers: 0, in: 0, out: 0, history: 0, offset: null };
    for (const name of ["subscribers", "in", "out"]) known[name] += one[name] ?? 0;
    known.history = Math.max(known.history, one.history ?? 0);
    known.offset = one.offset === undefined ? known.offset : Math.max(known.offset ?? 0, one.offset);
    topics.set(one.topic, known);
  }
  return [...topics.values()];
}

export const mergedConnections = (feed) =>
  feed.current.flatMap(({ node, connections = [] }) => connections.map((connection) => ({ ...connection, node })));
