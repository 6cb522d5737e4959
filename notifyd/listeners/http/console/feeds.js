// What each node said last on a `$sys` topic that it fills only while somebody looks.

import { GONE_MS, SILENT_MS } from "./figures.js";

export class Feed {
  constructor(link, topic, onRefused) {
    Object.assign(this, { link, topic, onRefused, nodes: new Map() });
  }

  open(onChange) {
    const message = ({ data }) => {
      if (typeof data?.node !== "string") return;
      this.nodes.set(data.node, { data, at: Date.now() });
      for (const [name, { at }] of this.nodes) if (Date.now() - at > GONE_MS) this.nodes.delete(name);
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

// Each topic once, with the sums of all nodes.
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

// Each with its node, and when that said so, by its own clock.
export const mergedConnections = (feed) =>
  feed.current.flatMap(({ node, time, connections = [] }) => connections.map((connection) => ({ ...connection, node, time })));
