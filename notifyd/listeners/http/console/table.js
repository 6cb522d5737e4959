// A table that lives: rows keep their elements, sort and filter hold, and nothing moves under the pointer or the focus.
//
// A column: {id, title, value(row): what it sorts by, text?(row), show?(cell, row): fills the cell, number?, down?}

import { el, mark, say, setChildren } from "./dom.js";
import { NONE } from "./format.js";

const MOST_ROWS = 300;

export class Table {
  constructor({ label, columns, key, sort, down = true, empty, matches }) {
    Object.assign(this, { columns, key, sort, down, matches, rows: [], kept: new Map(), wanted: "" });
    this.head = el("tr", { role: "row" }, columns.map((column) => this.title(column)));
    this.body = el("tbody", { role: "rowgroup" });
    this.table = el("table", { role: "table", "aria-label": label }, el("thead", { role: "rowgroup" }, this.head), this.body);
    this.empty = el("p", { class: "hint", hidden: true });
    this.emptyText = empty;
    this.note = el("p", { class: "note", role: "status" });
    this.element = el("div", { class: "table" }, this.table, this.empty, this.note);
    this.body.onkeydown = (event) => this.steer(event);
    this.body.addEventListener("pointerleave", () => this.draw());
    this.body.addEventListener("focusout", () => setTimeout(() => this.draw()));
  }

  title(column) {
    const press = () => {
      this.down = this.sort === column.id ? !this.down : column.number === true;
      this.sort = column.id;
      this.draw(true);
    };
    const inside = column.value ? el("button", { type: "button", onclick: press }, column.title) : column.title;
    return el("th", { role: "columnheader", scope: "col", class: column.number ? "number" : "" }, inside);
  }

  update(rows) {
    this.rows = rows;
    this.draw();
  }

  filter(text) {
    this.wanted = text.trim().toLowerCase();
    this.draw(true);
  }

  // Whether somebody is in the middle of something: then rows stay where they are.
  get isHeld() {
    return this.body.contains(document.activeElement) || this.body.matches(":hover");
  }

  draw(now = false) {
    const shown = this.ordered(!now && this.isHeld).slice(0, MOST_ROWS);
    const keys = new Set(shown.map((row) => this.key(row)));
    for (const key of this.kept.keys()) if (!keys.has(key)) this.kept.delete(key);
    setChildren(this.body, shown.map((row) => this.row(row)));
    this.columns.forEach((column, i) => {
      const order = this.sort === column.id ? (this.down ? "descending" : "ascending") : "none";
      if (column.value) mark(this.head.children[i], "aria-sort", order);
    });
    const all = this.rows.length;
    this.empty.hidden = shown.length > 0;
    this.table.hidden = !shown.length;
    say(this.empty, all ? "Nothing matches the filter." : this.emptyText);
    say(this.note, shown.length < all ? `${shown.length} of ${all} shown` : "");
  }

  ordered(held) {
    const matching = this.rows.filter((row) => this.matches(row).toLowerCase().includes(this.wanted));
    const value = this.columns.find((column) => column.id === this.sort).value;
    const place = new Map(held ? [...this.kept.keys()].map((key, i) => [key, i]) : []);
    const rank = (row) => place.get(this.key(row)) ?? Infinity;
    return matching.sort((one, other) => (held && rank(one) - rank(other)) || this.compare(value(one), value(other))
      || this.compare(this.key(other), this.key(one)) * (this.down ? 1 : -1));
  }

  compare(one, other) {
    if (one === null || other === null) return one === other ? 0 : one === null ? 1 : -1;
    const order = typeof one === "string" ? one.localeCompare(other) : one - other;
    return this.down ? -order : order;
  }

  row(row) {
    const key = this.key(row);
    const element = this.kept.get(key) ?? el("tr", { role: "row" }, this.columns.map((column) =>
      el("td", { role: "cell", class: column.number ? "number" : column.class ?? "", "data-title": column.title })));
    this.kept.delete(key);  // the order of the map is the order of the rows
    this.kept.set(key, element);
    this.columns.forEach((column, i) => {
      const cell = element.children[i];
      if (column.show) column.show(cell, row);
      else say(cell, column.text ? column.text(row) : String(column.value(row) ?? NONE));
    });
    return element;
  }

  // Up and down go to the same control of the next row.
  steer(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const from = event.target.closest("tr");
    if (!step || !from) return;
    const rows = [...this.body.children];
    const place = controls(from).indexOf(event.target);
    const next = controls(rows[rows.indexOf(from) + step])[place];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}

const controls = (row) => [...(row?.querySelectorAll("a, button, summary") ?? [])];

// A cell that holds one link; made once, then only written.
export function linkCell(cell, href, text) {
  const link = cell.firstElementChild ?? cell.appendChild(el("a"));
  mark(link, "href", href);
  say(link, text);
}
