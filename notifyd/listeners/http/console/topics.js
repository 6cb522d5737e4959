// All topics: rates, subscribers, history; and the way to one of them.

import { el, heading, mark, say, searchInput, topicLink } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { count, perSecond } from "./format.js";
import { Table } from "./table.js";

const COLUMNS = [
  { id: "topic", title: "Topic", class: "mono wide", value: (row) => row.topic, show: showTopic },
  { id: "in", title: "In", number: true, value: (row) => row.in, text: (row) => perSecond(row.in) },
  { id: "out", title: "Out", number: true, value: (row) => row.out, text: (row) => perSecond(row.out) },
  { id: "subscribers", title: "Subscribers", number: true, value: (row) => row.subscribers, text: (row) => count(row.subscribers) },
  { id: "history", title: "History", number: true, value: (row) => row.history, text: (row) => (row.history ? `last ${count(row.history)}` : "none") },
  { id: "offset", title: "Newest offset", number: true, value: (row) => row.offset, text: (row) => count(row.offset) },
];

export class Topics {
  feeds = ["topics"];

  constructor(app) {
    this.app = app;
    this.table = new Table({ label: "Topics", columns: COLUMNS, key: (row) => row.topic, sort: "in", matches: (row) => row.topic,
      empty: "No topics yet. They appear as soon as something is published or subscribed." });
    const filter = searchInput("topic-filter", "Filter, or a topic to open", () => this.table.filter(filter.value));
    const open = (event) => {
      event.preventDefault();
      if (filter.value.trim()) location.hash = topicLink(filter.value.trim());
    };
    this.note = el("p", "hint");
    this.element = el("div", "view", heading("Topics", el("form", { className: "line", onsubmit: open }, filter, el("button", "", "Open"))),
      el("div", "card", this.table.element, this.note));
  }

  tick() {
    this.table.update(mergedTopics(this.app.topics));
    say(this.note, this.app.topics.hasMore ? "These are the busiest of each node; open any other by its name." : "");
  }
}

function showTopic(cell, { topic }) {
  const link = cell.firstChild ?? cell.appendChild(el("a"));
  mark(link, "href", topicLink(topic));
  say(link, topic);
}
