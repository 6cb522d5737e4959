// Elements made by hand. Whatever comes from the wire goes in as text (textContent), never as markup.

export const NOTHING = "No node has said anything yet.";
export const at = (id) => document.getElementById(id);

// An element with a class (or properties and attributes), and children or lists of them, null for none.
export function el(tag, given = "", ...children) {
  const element = document.createElement(tag);
  if (typeof given === "string") element.className = given;
  else for (const [name, value] of Object.entries(given)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

export function svg(tag, given = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Writes only what differs: what somebody has selected stays so.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// Keeps an element for each item, by its key. What needs not move keeps the focus.
export function each(list, items, key, make, write = () => {}) {
  const old = list.kept ?? new Map();
  list.kept = new Map(items.map((item) => [key(item), old.get(key(item)) ?? make(item)]));
  for (const item of items) write(list.kept.get(key(item)), item);
  const wanted = [...list.kept.values()];
  for (const child of [...list.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, i) => list.children[i] !== child && list.insertBefore(child, list.children[i] ?? null));
}

export const topicLink = (topic) => `#/topics/${encodeURIComponent(topic)}`;

export const heading = (title, ...controls) => el("div", "bar", el("h1", { tabIndex: -1 }, title), controls);

export const labelled = (label, control, className = "") => el("label", className, el("span", "", label), control);

export const searchInput = (id, placeholder, oninput) =>
  el("input", { id, placeholder, oninput, type: "search", ariaLabel: placeholder, autocomplete: "off", autocapitalize: "off", spellcheck: false });

// `options`: [[value, text], …]
export function select(label, options, onchange) {
  const control = el("select", { onchange: () => onchange(control.value) });
  setOptions(control, options);
  return labelled(label, control, "inline");
}

export const setOptions = (control, options) =>
  each(control, options, ([value]) => value, ([value]) => el("option", { value }), (option, [, text]) => say(option, text));

const beating = new Set();

// A hidden tab has no frames, and what waits for one must not pile up there.
export function beat(dot) {
  if (document.hidden || beating.has(dot)) return;
  beating.add(dot);
  dot.classList.remove("beat");
  requestAnimationFrame(() => beating.delete(dot) && dot.classList.add("beat"));
}
