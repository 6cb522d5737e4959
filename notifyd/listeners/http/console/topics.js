// All topics: rates, subscribers, history; and the way to one of them.

import { el, heading, say, textInput } from "./dom.js";
import { mergedTopics } from "./feeds.js";
import { count, perSecond } from "./format.js";
import { linkCell, Table } from "./table.js";

const COLUMNS = [
  { id: "topic", title: "Topic", class: "mono wide", value: (row) => row.topic, show: (cell, row) => linkCell(cell, `#/topics/${encodeURIComponent(row.topic)}`, row.topic) },
  { id: "in", title: "In", number: true, value: (row) => row.in, text: (row) => perSecond(row.in) },
  { id: "out", title: "Out", number: true, value: (row) => row.out, text: (row) => perSecond(row.out) },
  { id: "subscribers", title: "Subscribers", number: true, value: (row) => row.subscribers, text: (row) => count(row.subscribers) },
  { id: "history", title: "History", number: true, value: (row) => row.history, text: (row) => (row.history ? `last ${count(row.history)}` : "none") },
  { id: "offset", title: "Newest offset", number: true, value: (row) => row.offset, text: (row) => count(row.offset) },
];

export class Topics {
  constructor(app) {
    this.app = app;
    this.table = new Table({ label: "Topics", columns: COLUMNS, key: (row) => row.topic, sort: "in",
      empty: "No topics yet. They appear as soon as something is published or subscribed.", matches: (row) => row.topic });
    const filter = textInput({ id: "topic-filter", type: "search", placeholder: "Filter, or a topic to open", "aria-label": "Filter, or a topic to open",
      oninput: () => this.table.filter(filter.value) });
    const form = el("form", { class: "line", onsubmit: (event) => this.open(event, filter.value.trim()) }, filter, el("button", {}, "Open"));
    this.note = el("p", { class: "note" });
    this.element = el("div", { class: "view" }, heading("Topics", form), el("div", { class: "card" }, this.table.element, this.note));
  }

  open(event, topic) {
    event.preventDefault();
    if (topic) location.hash = `#/topics/${encodeURIComponent(topic)}`;
  }

  show() {
    this.stop = this.app.topics.use(() => this.tick());
  }

  hide() {
    this.stop();
  }

  tick() {
    this.table.update(mergedTopics(this.app.topics));
    say(this.note, this.app.topics.hasMore ? "The busiest topics of each node; open any other by its name." : "");
  }
}
