// Who is connected, to which node, how well; and the button that ends a connection.

import { askKey, confirmed } from "./access.js";
import { ask } from "./api.js";
import { el, heading, say, select, setChildren, textInput } from "./dom.js";
import { mergedConnections } from "./feeds.js";
import { bytes, count, milliseconds, NONE, plural, span } from "./format.js";
import { Table } from "./table.js";

const KINDS = [["", "all"], ["websocket", "websocket"], ["device", "device"]];
const ENDED_MS = 5000;        // a connection that was ended here is left out until the nodes say so too

export class Connections {
  constructor(app) {
    Object.assign(this, { app, kind: "", ended: new Map() });
    this.table = new Table({ label: "Connections", columns: this.columns(), key: (row) => row.session, sort: "queue",
      empty: "Nobody is connected.", matches: (row) => [row.user || "anonymous", row.address, row.transport, row.encoding, row.node, row.session, ...(row.topics ?? [])].join(" ") });
    const filter = textInput({ id: "connection-filter", type: "search", placeholder: "User, address, topic, session…", "aria-label": "Show only connections that have",
      oninput: () => this.table.filter(filter.value) });
    this.kinds = select("Transport", KINDS, (kind) => { this.kind = kind; this.tick(); });
    this.said = el("p", { role: "status", class: "said" });
    this.note = el("p", { class: "note" });
    this.element = el("div", { class: "view" }, heading("Connections", filter, this.kinds), this.said, el("div", { class: "card" }, this.table.element, this.note));
  }

  columns() {
    return [
      { id: "user", title: "User", class: "wide", value: (row) => row.user, show: (cell, row) => this.showUser(cell, row) },
      { id: "address", title: "Address", class: "mono", value: (row) => row.address },
      { id: "transport", title: "Transport", value: (row) => `${row.transport} ${row.encoding}` },
      { id: "trip", title: "Round trip", number: true, value: (row) => row.round_trip_ms, text: (row) => milliseconds(row.round_trip_ms) },
      { id: "queue", title: "Queue", number: true, value: (row) => row.queue_bytes, text: (row) => bytes(row.queue_bytes) },
      { id: "topics", title: "Topics", number: true, value: subscriptions, show: showTopics },
      { id: "heard", title: "Heard", number: true, value: (row) => -row.heard, text: (row) => (row.heard ? `${span((Date.now() - row.heard) / 1000)} ago` : NONE) },
      { id: "since", title: "Connected", number: true, value: (row) => -row.since, text: (row) => span((Date.now() - row.since) / 1000) },
      { id: "node", title: "Node", value: (row) => row.node },
      { id: "end", title: "", class: "end", show: (cell, row) => this.showEnd(cell, row) },
    ];
  }

  showUser(cell, row) {
    say(cell, `${row.user || "anonymous"}${row.session === this.app.own ? " (this page)" : ""}`);
    cell.title = `Session ${row.session}`;
  }

  showEnd(cell, row) {
    const button = cell.firstElementChild ?? cell.appendChild(el("button", { type: "button", class: "danger" }, "Disconnect"));
    button.setAttribute("aria-label", `Disconnect ${row.user || "anonymous"}, ${row.address}`);
    button.onclick = () => this.end(row);
  }

  async end(row) {
    const who = `${row.user || "anonymous"} (${row.address})`;
    const own = row.session === this.app.own ? " It is this page's own connection." : "";
    const isMeant = await confirmed(`Disconnect ${who}?`, `Its client is closed with 4003 and does not come back by itself.${own}`, "Disconnect");
    if (isMeant) await this.remove(row, who);
  }

  async remove(row, who) {
    try {
      await ask("DELETE", `v1/connections/${encodeURIComponent(row.session)}`);
      this.tell(`${who} is disconnected.`);
      this.ended.set(row.session, Date.now());
      this.tick();
    } catch (error) {
      if (error.status === 401 && await askKey("To disconnect somebody takes an API key.")) return this.remove(row, who);
      this.tell(error.status === 404 ? `${who} is gone already.` : `${who} was not disconnected: ${error.message}.`, "bad");
    }
  }

  tell(text, className = "") {
    Object.assign(this.said, { textContent: text, className: `said ${className}` });
  }

  show() {
    this.tell("");
    this.stop = this.app.connections.use(() => this.tick());
  }

  hide() {
    this.stop();
  }

  tick() {
    const now = Date.now();
    for (const [session, at] of this.ended) if (now - at > ENDED_MS) this.ended.delete(session);
    const rows = mergedConnections(this.app.connections).filter(({ session, transport }) => !this.ended.has(session) && (!this.kind || transport === this.kind));
    this.table.update(rows);
    say(this.note, this.app.connections.hasMore ? `${count(rows.length)} connections with the fullest queues; there are more.` : "");
  }
}

const subscriptions = (row) => row.subscriptions ?? row.topics?.length ?? 0;

// The number, and behind it the names.
function showTopics(cell, row) {
  const topics = row.topics ?? [];
  const details = cell.firstElementChild ?? cell.appendChild(el("details", {}, el("summary"), el("ul", { class: "mono" })));
  say(details.firstChild, count(subscriptions(row)));
  details.hidden = !subscriptions(row);
  const kept = new Map([...details.lastChild.children].map((item) => [item.textContent, item]));
  const items = topics.map((topic) => kept.get(topic) ?? el("li", {}, el("a", { href: `#/topics/${encodeURIComponent(topic)}` }, topic)));
  const more = subscriptions(row) - topics.length;
  setChildren(details.lastChild, more > 0 ? [...items, el("li", { class: "soft" }, plural(more, "more topic"))] : items);
}
