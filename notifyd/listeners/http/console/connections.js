// Who is connected, where, how well; and the button that ends a connection.

import { ask, askKey, confirmed } from "./access.js";
import { each, el, heading, say, searchInput, topicLink } from "./dom.js";
import { mergedConnections } from "./feeds.js";
import { bytes, count, milliseconds, plural, span } from "./format.js";
import { numberColumn, Table } from "./table.js";

const nameOf = ({ user }) => user || "anonymous";

export class Connections {
  feeds = ["connections"];

  constructor(app) {
    this.app = app;
    this.table = new Table({ label: "Connections", columns: this.columns(), key: (row) => row.session, sort: "queue_bytes", empty: "Nobody is connected.",
      matches: (row) => [nameOf(row), row.address, row.transport, row.encoding, row.node, row.session, ...(row.topics ?? [])].join(" ") });
    const filter = searchInput("connection-filter", "User, address, device…", () => this.table.filter(filter.value));
    this.said = el("p", { role: "status" });
    this.element = el("div", "view guarded", heading("Connections", filter), this.said, el("div", "card", this.table.element));
  }

  columns() {
    return [
      { id: "user", title: "User", class: "wide", value: nameOf, text: (row) => nameOf(row) + (row.session === this.app.own ? " (this page)" : "") },
      { id: "address", title: "Address", class: "mono", value: (row) => row.address },
      { id: "transport", title: "Transport", value: (row) => `${row.transport} ${row.encoding}` },
      numberColumn("round_trip_ms", "Round trip", milliseconds),
      numberColumn("queue_bytes", "Queue", bytes),
      { ...numberColumn("subscriptions", "Topics"), show: showTopics },
      { ...numberColumn("heard", "Heard"), text: ({ time, heard }) => `${span(time - heard)} ago` },
      { ...numberColumn("since", "Connected"), text: ({ time, since }) => span(time - since) },
      { id: "node", title: "Node", value: (row) => row.node },
      { id: "end", title: "", class: "end", show: (cell, row) => this.showEnd(cell, row) },
    ];
  }

  showEnd(cell, row) {
    const button = cell.firstChild ?? cell.appendChild(el("button", { type: "button", className: "danger" }, "Disconnect"));
    Object.assign(button, { ariaLabel: `Disconnect ${nameOf(row)}, ${row.address}`, onclick: () => this.end(row) });
  }

  async end(row) {
    const who = `${nameOf(row)} (${row.address})`;
    if (await confirmed(`Disconnect ${who}?`)) await this.remove(row.session, who);
  }

  async remove(session, who) {
    try {
      await ask("DELETE", `v1/connections/${encodeURIComponent(session)}`);
      this.tell(`${who} is disconnected.`);
    } catch ({ status, message }) {
      if (status === 401 && await askKey("To disconnect somebody takes an API key.")) await this.remove(session, who);
      else this.tell(status === 404 ? `${who} is gone already.` : `${who} was not disconnected: ${message}.`, "bad");
    }
  }

  tell(textContent, className = "soft") {
    Object.assign(this.said, { textContent, className });
  }

  show() {
    this.tell("");
  }

  tick() {
    const { connections } = this.app;
    this.table.update(connections, mergedConnections(connections), "These have the fullest queues of each node.");
  }
}

function showTopics(cell, { topics = [], subscriptions }) {
  const details = cell.firstChild ?? cell.appendChild(el("details", "", el("summary"), el("ul", "mono"))), more = subscriptions - topics.length;
  say(details.firstChild, count(subscriptions));
  each(details.lastChild, more > 0 ? [...topics, plural(more, "more topic")] : topics, (topic) => topic,
    (topic) => el("li", "", topics.includes(topic) ? el("a", { href: topicLink(topic) }, topic) : topic));
}
