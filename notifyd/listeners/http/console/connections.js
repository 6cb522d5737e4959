// Who is connected, to which node, how well; and the button that ends a connection.

import { askKey, confirmed } from "./access.js";
import { ask } from "./api.js";
import { each, el, heading, say, searchInput, select, topicLink } from "./dom.js";
import { mergedConnections } from "./feeds.js";
import { bytes, count, milliseconds, NONE, plural, span } from "./format.js";
import { Table } from "./table.js";

const TRANSPORTS = [["", "all"], ["websocket", "websocket"], ["device", "device"]];

const nameOf = ({ user }) => user || "anonymous";

export class Connections {
  feeds = ["connections"];

  constructor(app) {
    Object.assign(this, { app, transport: "" });
    this.table = new Table({ label: "Connections", columns: this.columns(), key: (row) => row.session, sort: "queue", empty: "Nobody is connected.",
      matches: (row) => [nameOf(row), row.address, row.transport, row.encoding, row.node, row.session, ...(row.topics ?? [])].join(" ") });
    const filter = searchInput("connection-filter", "User, address, topic…", () => this.table.filter(filter.value));
    const transports = select("Transport", TRANSPORTS, (transport) => {
      this.transport = transport;
      this.tick();
    });
    this.said = el("p", { role: "status" });
    this.note = el("p", "hint");
    this.element = el("div", "view guarded", heading("Connections", filter, transports), this.said, el("div", "card", this.table.element, this.note));
  }

  columns() {
    return [
      { id: "user", title: "User", class: "wide", value: nameOf, text: (row) => nameOf(row) + (row.session === this.app.own ? " (this page)" : "") },
      { id: "address", title: "Address", class: "mono", value: (row) => row.address },
      { id: "transport", title: "Transport", value: (row) => `${row.transport} ${row.encoding}` },
      { id: "trip", title: "Round trip", number: true, value: (row) => row.round_trip_ms, text: (row) => milliseconds(row.round_trip_ms) },
      { id: "queue", title: "Queue", number: true, value: (row) => row.queue_bytes, text: (row) => bytes(row.queue_bytes) },
      { id: "topics", title: "Topics", number: true, value: (row) => row.subscriptions, show: showTopics },
      { id: "heard", title: "Heard", number: true, value: (row) => -row.heard, text: (row) => (row.heard ? `${span(Date.now() - row.heard)} ago` : NONE) },
      { id: "since", title: "Connected", number: true, value: (row) => -row.since, text: (row) => span(Date.now() - row.since) },
      { id: "node", title: "Node", value: (row) => row.node },
      { id: "end", title: "", class: "end", show: (cell, row) => this.showEnd(cell, row) },
    ];
  }

  showEnd(cell, row) {
    const button = cell.firstChild ?? cell.appendChild(el("button", { type: "button", className: "danger" }, "Disconnect"));
    Object.assign(button, { ariaLabel: `Disconnect ${nameOf(row)}, ${row.address}`, onclick: () => this.end(row) });
  }

  async end(row) {
    const who = `${nameOf(row)} (${row.address})`, own = row.session === this.app.own ? " It is this page's own connection." : "";
    if (await confirmed(`Disconnect ${who}?`, `Its client is closed with 4003 and does not come back by itself.${own}`)) await this.remove(row.session, who);
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
    this.table.update(mergedConnections(connections).filter(({ transport }) => !this.transport || transport === this.transport));
    say(this.note, connections.hasMore ? "These are the ones with the fullest queues of each node." : "");
  }
}

// The number, and behind it the names.
function showTopics(cell, { topics = [], subscriptions }) {
  const details = cell.firstChild ?? cell.appendChild(el("details", "", el("summary"), el("ul", "mono"))), more = subscriptions - topics.length;
  say(details.firstChild, count(subscriptions));
  each(details.lastChild, more > 0 ? [...topics, plural(more, "more topic")] : topics, (topic) => topic,
    (topic) => el("li", "", topics.includes(topic) ? el("a", { href: topicLink(topic) }, topic) : topic));
}
