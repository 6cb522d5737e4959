// The supervision tree of each node, as it runs: states, restarts, the last error.

import { connectionLevel } from "./alerts.js";
import { chip, el, heading, hint, mark, say, select, setChildren, setChip, setOptions } from "./dom.js";
import { count, NONE, span } from "./format.js";

const TITLES = ["Service", "State", "Restarts", "Since", "Last error"];

export class Tree {
  constructor(app) {
    Object.assign(this, { app, node: "", kept: new Map() });
    this.nodes = select("Node", [["", "all"]], (name) => { this.node = name; this.tick(); });
    this.body = el("tbody", { role: "rowgroup" });
    this.table = el("table", { class: "tree", role: "table", "aria-label": "Supervision tree" },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, TITLES.map((title) => el("th", { role: "columnheader", scope: "col", class: title === "Restarts" ? "number" : "" }, title)))), this.body);
    this.empty = hint("The tree comes in a moment.");
    this.element = el("div", { class: "view" }, heading("Supervision", this.nodes),
      el("div", { class: "card" }, el("div", { class: "table" }, this.table, this.empty)));
  }

  show() {
    this.stop = this.app.tree.use(() => this.tick());
  }

  hide() {
    this.stop();
  }

  tick() {
    const trees = this.app.tree.current.filter(({ tree }) => tree).sort((one, other) => one.node.localeCompare(other.node, "en", { numeric: true }));
    setOptions(this.nodes.lastChild, [["", trees.length > 1 ? `all ${trees.length}` : "all"], ...trees.map(({ node }) => [node, node])]);
    this.nodes.hidden = trees.length < 2;
    const rows = trees.filter(({ node }) => !this.node || node === this.node).flatMap(({ node, tree }) => flat({ ...tree, name: node }, 0, ""));
    const old = this.kept;
    this.kept = new Map(rows.map((row) => [row.path, old.get(row.path) ?? make(row.depth)]));
    setChildren(this.body, rows.map((row) => fillRow(this.kept.get(row.path), row)));
    this.table.hidden = !rows.length;
    this.empty.hidden = rows.length > 0;
  }
}

const flat = (node, depth, above) => {
  const path = `${above}/${node.name}`;
  return [{ ...node, depth, path }, ...(node.children ?? []).flatMap((child) => flat(child, depth + 1, path))];
};

function make(depth) {
  const row = el("tr", { role: "row" }, TITLES.map((title) => el("td", { role: "cell", class: title === "Restarts" ? "number" : "", "data-title": title })));
  row.style.setProperty("--depth", depth);
  row.children[0].append(el("span", { class: "mono" }));
  row.children[0].className = "wide";
  row.children[1].append(chip());
  return row;
}

function fillRow(row, { name, state, restarts, since, error, count: amount, depth }) {
  const [title, word, times, age, failure] = row.children;
  say(title.firstChild, name);
  mark(row, "aria-level", depth + 1);
  if (typeof amount === "number") setChip(word.firstChild, count(amount), "idle");
  else setChip(word.firstChild, state ?? "unknown", connectionLevel(state));
  say(times, restarts ? count(restarts) : "0");
  mark(times, "data-level", restarts ? "warn" : "idle");
  say(age, since ? span((Date.now() - since) / 1000) : NONE);
  say(failure, error || "");
  return row;
}
