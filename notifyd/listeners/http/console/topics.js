// All topics: rates, subscribers, history; and the way to one of them.

import { el, heading, mark, say, searchInput, topicLink } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { count, perSecond } from "./format.js";
import { numberColumn, Table } from "./table.js";

const COLUMNS = [
  { id: "topic", title: "Topic", class: "mono wide", value: (row) => row.topic, show: showTopic },
  numberColumn("in", "In", perSecond),
  numberColumn("out", "Out", perSecond),
  numberColumn("subscribers", "Subscribers", count),
  numberColumn("history", "History", (kept) => (kept ? `last ${count(kept)}` : "none")),
  numberColumn("offset", "Newest offset", count),
];

export class Topics {
  feeds = ["topics"];

  constructor(app) {
    this.app = app;
    this.table = new Table({ label: "Topics", columns: COLUMNS, key: (row) => row.topic, sort: "in", matches: (row) => row.topic, empty: "No topics yet." });
    const filter = searchInput("topic-filter", "Filter, or a topic to open", () => this.table.filter(filter.value));
    const open = (event) => {
      event.preventDefault();
      if (filter.value.trim()) location.hash = topicLink(filter.value.trim());
    };
    this.element = el("div", "view", heading("Topics", el("form", { className: "line", onsubmit: open }, filter, el("button", "", "Open"))),
      el("div", "card", this.table.element));
  }

  tick() {
    const { topics } = this.app;
    this.table.update(topics, mergedTopics(topics), "These are the busiest of each node; open any other by its name.");
  }
}

function showTopic(cell, { topic }) {
  const link = cell.firstChild ?? cell.appendChild(el("a"));
  mark(link, "href", topicLink(topic));
  say(link, topic);
}
