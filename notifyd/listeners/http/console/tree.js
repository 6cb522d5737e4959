// The supervision tree of each node, as it runs: states, restarts, the last error.

import { setChip } from "./alerts.js";
import { each, el, heading, mark, say } from "./dom.js";
import { byName, count, span } from "./format.js";
import { headCell, newRow, newTable } from "./table.js";

const COLUMNS = [{ title: "Service", class: "wide" }, { title: "State" }, { title: "Restarts", number: true }, { title: "For", number: true }, { title: "Last error", class: "bad" }];

export class Tree {
  feeds = ["tree"];

  constructor(app) {
    this.app = app;
    this.body = el("tbody");
    const table = newTable("Supervision tree", COLUMNS.map(({ title, number }) => headCell(title, number)), this.body);
    table.className = "tree";
    this.element = el("div", "view guarded", heading("Supervision"), el("div", "card", table));
  }

  tick() {
    const trees = this.app.tree.current.filter(({ tree }) => tree).sort((one, other) => byName(one.node, other.node));
    each(this.body, trees.flatMap(({ node, time, tree }) => flat({ ...tree, name: node }, time, 0, "")), ({ path }) => path, make, write);
  }
}

function flat(node, time, depth, above) {
  const path = `${above}/${node.name}`;
  return [{ ...node, time, depth, path }, ...(node.children ?? []).flatMap((child) => flat(child, time, depth + 1, path))];
}

function make({ depth, name }) {
  const row = newRow(COLUMNS);
  row.style.setProperty("--depth", depth);
  row.children[0].append(el("span", "mono", name));
  row.children[1].append(el("span"));
  return row;
}

function write(row, { state, restarts, since, time, error, count: amount }) {
  const [, word, times, age, failure] = row.children, isCount = typeof amount === "number";
  setChip(word.firstChild, isCount ? count(amount) : state);
  say(times, count(restarts ?? 0));
  mark(times, "data-level", restarts ? "warn" : "");
  say(age, span(time - since));
  say(failure, error ?? "");
}
