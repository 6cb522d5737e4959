// Elements made by hand. Whatever comes from the wire goes in as text (textContent), never as markup.

export const at = (id) => document.getElementById(id);

// An element with a class (or properties and attributes), and children: elements, texts, lists of them, null for none.
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

// Writes only what differs: nothing is laid out again, and nothing selected is lost, for the same text.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// Keeps an element for each item, by its key: made once, then only written, and moved no more than it must be, since
// what moves loses the focus.
export function each(list, items, key, make, write = () => {}) {
  const old = list.kept ?? new Map();
  list.kept = new Map(items.map((item) => [key(item), old.get(key(item)) ?? make(item)]));
  for (const item of items) write(list.kept.get(key(item)), item);
  const wanted = [...list.kept.values()];
  for (const child of [...list.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, i) => list.children[i] !== child && list.insertBefore(child, list.children[i] ?? null));
}

// A state in a word and a colour: `level` is good, warn, bad or idle.
export function setChip(chip, text, level) {
  say(chip, text);
  mark(chip, "class", "chip");
  mark(chip, "data-level", level);
}

export const topicLink = (topic) => `#/topics/${encodeURIComponent(topic)}`;

// A heading of a view with its controls to the right.
export const heading = (title, ...controls) => el("div", "bar", el("h1", { tabIndex: -1 }, title), controls);

export const labelled = (label, control, className = "") => el("label", className, el("span", "", label), control);

export const searchInput = (id, placeholder, oninput) =>
  el("input", { id, placeholder, oninput, type: "search", ariaLabel: placeholder, autocomplete: "off", autocapitalize: "off", spellcheck: false });

// A choice of [[value, text], …]; `onchange` gets the value.
export function select(label, options, onchange) {
  const control = el("select", { onchange: () => onchange(control.value) });
  setOptions(control, options);
  return labelled(label, control, "inline");
}

export const setOptions = (control, options) =>
  each(control, options, ([value]) => value, ([value]) => el("option", { value }), (option, [, text]) => say(option, text));

// Lets a dot beat once.
export function beat(dot) {
  dot.classList.remove("beat");
  requestAnimationFrame(() => dot.classList.add("beat"));
}
