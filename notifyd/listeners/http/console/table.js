// A table that lives: sort and filter hold, and nothing moves under the pointer or the focus.
//
// A column: {id, title, value?(row): what it sorts by, text?(row), show?(cell, row), number?, class?}

import { each, el, mark, NOTHING, say } from "./dom.js";

const MOST_ROWS = 300;

export const numberColumn = (id, title, write) => ({ id, title, number: true, value: (row) => row[id], text: (row) => write(row[id]) });
export const headCell = (title, isNumber) => el("th", { scope: "col", className: isNumber ? "number" : "" }, title);
export const newRow = (columns) => el("tr", "", columns.map(({ title, number, class: name = "" }) =>
  el("td", { className: number ? "number" : name, "data-title": title })));
export const newTable = (label, head, body) => el("table", { ariaLabel: label }, el("thead", "", el("tr", "", head)), body);

export class Table {
  constructor({ label, columns, key, sort, empty, matches }) {
    Object.assign(this, { columns, key, sort, empty, matches, isDown: true, rows: [], none: "", more: "", wanted: "" });
    this.head = columns.map(({ id, title, value, number }) =>
      headCell(value ? el("button", { type: "button", onclick: () => this.sortBy(id, number) }, title) : title, number));
    this.body = el("tbody", { onpointerleave: () => this.draw() });
    this.body.addEventListener("focusout", () => setTimeout(() => this.draw()));
    this.table = newTable(label, this.head, this.body);
    this.note = el("p", "hint");
    this.element = el("div", "", this.table, this.note);
  }

  sortBy(id, isNumber) {
    this.isDown = this.sort === id ? !this.isDown : isNumber === true;
    this.sort = id;
    this.draw(true);
  }

  // The rows made of a feed; `more`: what to say where they are not all there are.
  update({ nodes, hasMore }, rows, more) {
    Object.assign(this, { rows, none: nodes.size ? this.empty : NOTHING, more: hasMore ? more : "" });
    this.draw();
  }

  filter(text) {
    this.wanted = text.trim().toLowerCase();
    this.draw(true);
  }

  draw(isAsked = false) {
    // Where somebody is in the middle of something, rows stay where they are.
    const isHeld = !isAsked && (this.body.contains(document.activeElement) || this.body.matches(":hover"));
    const shown = this.ordered(isHeld).slice(0, MOST_ROWS), all = this.rows.length;
    each(this.body, shown, this.key, () => newRow(this.columns), (element, row) => this.write(element, row));
    this.columns.forEach(({ id, value }, i) =>
      value && mark(this.head[i], "aria-sort", this.sort === id ? (this.isDown ? "descending" : "ascending") : "none"));
    this.table.hidden = !shown.length;
    say(this.note, !all ? this.none : !shown.length ? "Nothing matches the filter." : shown.length < all ? `${shown.length} of ${all} are shown.` : this.more);
  }

  ordered(isHeld) {
    const { value } = this.columns.find(({ id }) => id === this.sort);
    const places = new Map([...(this.body.kept?.keys() ?? [])].map((key, i) => [key, i]));
    const rank = (row) => (isHeld ? places.get(this.key(row)) ?? places.size : 0);
    return this.rows.filter((row) => this.matches(row).toLowerCase().includes(this.wanted)).sort((one, other) =>
      rank(one) - rank(other) || this.compare(value(one), value(other)) || this.compare(this.key(one), this.key(other)));
  }

  compare(one, other) {
    if (one === null || other === null) return (one === null) - (other === null);
    return (typeof one === "string" ? one.localeCompare(other) : one - other) * (this.isDown ? -1 : 1);
  }

  write(element, row) {
    this.columns.forEach(({ show, text, value }, i) => {
      if (show) show(element.children[i], row);
      else say(element.children[i], String((text ?? value)(row)));
    });
  }
}
