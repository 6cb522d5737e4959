// The settings in force, and which of them can change while the node runs.

import { ask } from "./api.js";
import { chip, el, heading, hint, say, setChildren, textInput } from "./dom.js";

const RELOAD_MS = 10_000;

export class Settings {
  constructor(app) {
    this.app = app;
    this.filter = textInput({ id: "setting-filter", type: "search", placeholder: "Filter", "aria-label": "Show only settings that contain", oninput: () => this.sift() });
    this.version = el("p", { class: "soft" });
    this.list = el("div", { class: "settings" });
    this.none = hint("");
    this.key = el("button", { type: "button", hidden: true, onclick: () => app.needKey("The settings are for operators: give one of the node's API keys.").then(() => this.load()) }, "API key…");
    this.element = el("div", { class: "view" }, heading("Settings", this.version, this.filter), el("div", { class: "card", hidden: false }, this.none, this.key), this.list);
  }

  show() {
    this.load();
  }

  hide() {}

  connected() {
    this.load();
  }

  tick(now) {
    if (now - this.loadedAt > RELOAD_MS && this.app.link.state === "connected") this.load();
  }

  async load() {
    this.loadedAt = Date.now();
    try {
      this.draw(await ask("GET", "v1/config"));
    } catch (error) {
      this.fail(error);
    }
  }

  fail({ status, message }) {
    const words = { 404: "Not available: this node does not tell its settings.", 401: "The settings are for operators.", 0: "The node does not answer now." };
    say(this.none, words[status] ?? `Not available: ${message}.`);
    this.none.parentElement.hidden = status === 0 && this.list.children.length > 0;
    this.key.hidden = status !== 401;
    if (status) this.list.replaceChildren();
  }

  draw({ version, settings, live }) {
    this.none.parentElement.hidden = true;
    say(this.version, version === undefined ? "" : `version ${version}`);
    const text = JSON.stringify([settings, live]);
    if (text === this.drawn && this.list.children.length) return;
    this.drawn = text;
    const isLive = (path) => (live ?? []).some((name) => path === name || path.startsWith(`${name}.`) || path.startsWith(`${name}[`));
    setChildren(this.list, Object.entries(settings ?? {}).map(([name, section]) => this.section(name, section, isLive)));
    this.sift();
  }

  section(name, section, isLive) {
    const rows = leaves(section, name).map(([path, value]) => el("div", {}, el("dt", { class: "mono" }, path, isLive(path) ? chip("live", "good") : null),
      el("dd", { class: value === "(withheld)" ? "soft mono" : "mono" }, typeof value === "string" ? value : JSON.stringify(value))));
    return el("section", { class: "card" }, el("h2", {}, name), rows.length ? el("dl", {}, rows) : hint("Nothing is set."));
  }

  sift() {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const section of this.list.children) {
      for (const row of section.querySelectorAll("dl > div")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
      section.hidden = wanted !== "" && !section.querySelector("dl > div:not([hidden])");
    }
  }
}

// [[dotted path, value], …]; a list of plain values is one value.
function leaves(value, path) {
  if (Array.isArray(value) && value.some((item) => item !== null && typeof item === "object")) return value.flatMap((item, i) => leaves(item, `${path}[${i}]`));
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[path, value]];
  return Object.entries(value).flatMap(([name, item]) => leaves(item, `${path}.${name}`));
}
