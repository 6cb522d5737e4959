// The `$sys` topics that nodes fill only while somebody looks: what each node said last.

import { SILENT_MS } from "./figures.js";

export class Feed {
  constructor(link, topic, onRefused) {
    Object.assign(this, { link, topic, onRefused, nodes: new Map(), users: new Set(), stop: null });
  }

  // Calls `onChange` at every news while it is used; return what ends that.
  use(onChange) {
    this.users.add(onChange);
    this.stop ??= this.link.follow(this.topic, { message: (message) => this.take(message.data), refused: this.onRefused });
    return () => this.release(onChange);
  }

  release(onChange) {
    this.users.delete(onChange);
    if (this.users.size) return;
    this.stop?.();
    this.stop = null;
    this.nodes.clear();
  }

  take(data) {
    if (typeof data?.node !== "string") return;
    this.nodes.set(data.node, { data, at: Date.now() });
    for (const onChange of this.users) onChange();
  }

  // The newest of each node that still speaks; of all of them where none does, so that the page shows its last.
  get current() {
    const now = Date.now();
    const fresh = [...this.nodes.values()].filter(({ at }) => now - at <= SILENT_MS * 2);
    return (fresh.length ? fresh : [...this.nodes.values()]).map(({ data }) => data);
  }

  get hasMore() {
    return this.current.some(({ more }) => more);
  }
}

// The topics of all nodes, each once: subscribers and rates are summed, of positions the newest counts.
export function mergedTopics(feed) {
  const topics = new Map();
  for (const { topics: listed = [] } of feed.current)
    for (const { topic, subscribers = 0, in: incoming = 0, out = 0, epoch, offset, history = 0 } of listed) {
      const known = topics.get(topic) ?? { topic, subscribers: 0, in: 0, out: 0, history: 0, offset: null };
      topics.set(topic, known);
      known.subscribers += subscribers;
      known.in += incoming;
      known.out += out;
      known.history = Math.max(known.history, history);
      if (offset !== undefined && offset >= (known.offset ?? 0)) Object.assign(known, { epoch, offset });
    }
  return [...topics.values()];
}

export const mergedConnections = (feed) =>
  feed.current.flatMap(({ node, connections = [] }) => connections.map((connection) => ({ ...connection, node })));
