// Elements made by hand. Whatever comes from the wire goes in as text (textContent), never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

// An element with properties, `class`, `data-…`, `aria-…` and other attributes, and children (elements or text).
export function el(tag, given = {}, ...children) {
  return fill(document.createElement(tag), given, children);
}

export function svg(tag, given = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(given)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function fill(element, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Writes only what differs: nothing is laid out again, and nothing selected is lost, for the same text.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// A state in a word and a colour: `level` is good, warn, bad or idle.
export const chip = (text = "", level = "idle") => el("span", { class: "chip", "data-level": level }, text);

export function setChip(element, text, level) {
  say(element, text);
  mark(element, "data-level", level);
}

// Puts these children in this order and moves no more than it must: what moves loses the focus.
export function setChildren(element, children) {
  const wanted = new Set(children);
  for (const child of [...element.children]) if (!wanted.has(child)) child.remove();
  children.forEach((child, i) => element.children[i] !== child && element.insertBefore(child, element.children[i] ?? null));
}

// A heading of a view with its controls to the right.
export const heading = (title, ...controls) =>
  el("div", { class: "bar" }, el("h1", { tabIndex: -1 }, title), ...controls);

export const hint = (text) => el("p", { class: "hint" }, text);

export function labelled(label, control, className = "") {
  return el("label", { class: className }, el("span", {}, label), control);
}

export const textInput = (given) => el("input", { autocomplete: "off", autocapitalize: "off", spellcheck: false, ...given });

export function select(label, options, onchange) {
  const control = el("select", { onchange: () => onchange(control.value) });
  setOptions(control, options);
  return labelled(label, control, "inline");
}

export function setOptions(control, options) {
  if (control.options.length === options.length && options.every(([value], i) => control.options[i].value === value)) return;
  const chosen = control.value;
  control.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) control.value = chosen;
}
